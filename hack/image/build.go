package main

import (
	"archive/tar"
	"bytes"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// user is what the chart runs containers as; an image that says so too can be
// told from one that runs as root.
const user = "65532:65532"

// rootsFile is where Go looks for roots first.
const rootsFile = "etc/ssl/certs/ca-certificates.crt"

// built is the images of a program.
type built struct {
	program program
	release release
	index   v1.ImageIndex
	bills   []bill // one for each image
}

// build makes an image for each architecture that there is the program for.
func build(p program, of release, directory string) (*built, error) {
	binaries, err := filepath.Glob(filepath.Join(directory, "bin", "*", p.name))
	if err != nil {
		return nil, err
	}
	if len(binaries) == 0 {
		return nil, fmt.Errorf("there is no %s", filepath.Join(directory, "bin", "*", p.name))
	}
	made := &built{program: p, release: of, index: mutate.Annotations(empty.Index, of.labels(p)).(v1.ImageIndex)}
	for _, binary := range binaries { // sorted
		platform := v1.Platform{OS: "linux", Architecture: filepath.Base(filepath.Dir(binary))}
		image, err := imageOf(p, of, platform, binary)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", binary, err)
		}
		made.index = mutate.AppendManifests(made.index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: &platform}})
		list, err := billOf(p, of, platform, binary, image)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", binary, err)
		}
		made.bills = append(made.bills, list)
	}
	return made, nil
}

// labels are those that OCI has names for.
func (of release) labels(p program) map[string]string {
	return map[string]string{
		"org.opencontainers.image.title":       "netlatency " + p.name,
		"org.opencontainers.image.description": p.description,
		"org.opencontainers.image.licenses":    "Apache-2.0",
		"org.opencontainers.image.source":      source,
		"org.opencontainers.image.version":     of.version,
		"org.opencontainers.image.revision":    of.revision,
		"org.opencontainers.image.created":     of.created.Format(time.RFC3339),
	}
}

// source is where the programs come from.
const source = "https://github.com/netlatency/netlatency"

// imageOf is the image of one binary.
func imageOf(p program, of release, platform v1.Platform, binary string) (v1.Image, error) {
	content, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	var files []file
	if p.roots {
		files = append(files, file{path: rootsFile, mode: 0o644, content: roots()})
	}
	files = append(files, file{path: p.name, mode: 0o755, content: content})

	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for _, f := range files {
		layer, err := f.layer()
		if err != nil {
			return nil, err
		}
		image, err = mutate.Append(image, mutate.Addendum{
			Layer:   layer,
			History: v1.History{Created: v1.Time{Time: of.created}, CreatedBy: "hack/image", Comment: "/" + f.path},
		})
		if err != nil {
			return nil, err
		}
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = platform.OS, platform.Architecture
	config.Created = v1.Time{Time: of.created}
	config.Config = v1.Config{User: user, WorkingDir: "/", Entrypoint: []string{"/" + p.name}, Labels: of.labels(p)}
	image, err = mutate.ConfigFile(image, config)
	if err != nil {
		return nil, err
	}
	return mutate.Annotations(image, of.labels(p)).(v1.Image), nil
}

// file is what a layer consists of.
type file struct {
	path    string
	mode    int64
	content []byte
}

// layer is the file with its directories, all of 1970, so that what has not
// changed is the same layer from release to release.
func (f file) layer() (v1.Layer, error) {
	var archive bytes.Buffer
	to := tar.NewWriter(&archive)
	var directories []string
	for at := path.Dir(f.path); at != "."; at = path.Dir(at) {
		directories = append(directories, at)
	}
	for _, directory := range slices.Backward(directories) {
		if err := to.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: directory + "/", Mode: 0o755, ModTime: time.Unix(0, 0)}); err != nil {
			return nil, err
		}
	}
	if err := to.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.path, Mode: f.mode, Size: int64(len(f.content)), ModTime: time.Unix(0, 0)}); err != nil {
		return nil, err
	}
	if _, err := to.Write(f.content); err != nil {
		return nil, err
	}
	if err := to.Close(); err != nil {
		return nil, err
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(archive.Bytes())), nil }
	return tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
}

// roots are those that browsers trust, as the Go project publishes them. Some
// are trusted for certificates of some time only, which a file cannot say; these
// are left out.
func roots() []byte {
	var text strings.Builder
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			_ = pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}) // never fails
		}
	}
	return []byte(text.String())
}
