package main

import (
	"archive/tar"
	"bytes"
	"crypto/x509"
	"errors"
	"io"
	"maps"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx/v2/v2_3"
	"github.com/spdx/tools-golang/spdxlib"
)

var (
	scheduler = program{name: "scheduler", description: "Places pods", roots: true}
	version1  = release{version: "v1.0.0", revision: "abc", created: time.Unix(1_700_000_000, 0).UTC()}
)

// programsIn gives each program, which is this test, of two architectures to a
// new directory.
func programsIn(t *testing.T, programs ...program) (directory string) {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	directory = t.TempDir()
	for _, p := range programs {
		for _, architecture := range []string{"amd64", "arm64"} {
			to := filepath.Join(directory, "bin", architecture, p.name)
			if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(to, content, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	return directory
}

// images is what the layout of a program in directory has, by architecture.
func images(t *testing.T, p program, directory string) (index v1.ImageIndex, by map[string]v1.Image) {
	t.Helper()
	root, err := layout.ImageIndexFromPath(filepath.Join(directory, p.name))
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(root); err != nil {
		t.Fatal(err)
	}
	manifest, err := root.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	index, err = root.ImageIndex(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err = index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	by = make(map[string]v1.Image)
	for _, m := range manifest.Manifests {
		if by[m.Platform.String()], err = index.Image(m.Digest); err != nil {
			t.Fatal(err)
		}
	}
	return index, by
}

// contents is the files of an image: path to content.
func contents(t *testing.T, image v1.Image) map[string][]byte {
	t.Helper()
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string][]byte)
	for _, layer := range layers {
		stream, err := layer.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		defer stream.Close()
		archive := tar.NewReader(stream)
		for {
			header, err := archive.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if header.Typeflag != tar.TypeReg {
				continue
			}
			if files[header.Name], err = io.ReadAll(archive); err != nil {
				t.Fatal(err)
			}
		}
	}
	return files
}

func TestAnImageHasTheProgramAndWhatItNeeds(t *testing.T) {
	agent := program{name: "agent", description: "Measures"}
	directory := programsIn(t, agent, scheduler)
	for p, want := range map[program][]string{agent: {"agent"}, scheduler: {rootsFile, "scheduler"}} {
		if err := run(p, version1, directory, ""); err != nil {
			t.Fatal(err)
		}
		_, by := images(t, p, directory)
		if got := slices.Sorted(maps.Keys(by)); !slices.Equal(got, []string{"linux/amd64", "linux/arm64"}) {
			t.Fatalf("%s is for %q", p.name, got)
		}
		for platform, image := range by {
			files := contents(t, image)
			if got := slices.Sorted(maps.Keys(files)); !slices.Equal(got, want) {
				t.Errorf("%s for %s has the files %q, want %q", p.name, platform, got, want)
			}
			binary, err := os.ReadFile(filepath.Join(directory, "bin", strings.TrimPrefix(platform, "linux/"), p.name))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(files[p.name], binary) {
				t.Errorf("%s for %s has another program", p.name, platform)
			}
			config, err := image.ConfigFile()
			if err != nil {
				t.Fatal(err)
			}
			if config.OS+"/"+config.Architecture != platform {
				t.Errorf("%s for %s says that it is for %s/%s", p.name, platform, config.OS, config.Architecture)
			}
			// The chart gives arguments only.
			if c := config.Config; !slices.Equal(c.Entrypoint, []string{"/" + p.name}) || len(c.Cmd) > 0 || c.User != "65532:65532" {
				t.Errorf("%s runs %q %q as %q", p.name, c.Entrypoint, c.Cmd, c.User)
			}
			if got := config.Config.Labels; got["org.opencontainers.image.version"] != "v1.0.0" || got["org.opencontainers.image.revision"] != "abc" || got["org.opencontainers.image.created"] != "2023-11-14T22:13:20Z" {
				t.Errorf("%s has the labels %v", p.name, got)
			}
		}
	}
}

func TestTheSameProgramsGiveTheSameBytes(t *testing.T) {
	read := func() map[string]string {
		directory := programsIn(t, scheduler)
		if err := run(scheduler, version1, directory, ""); err != nil {
			t.Fatal(err)
		}
		files := make(map[string]string)
		err := filepath.WalkDir(directory, func(path string, entry os.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			content, err := os.ReadFile(path)
			files[strings.TrimPrefix(path, directory)] = string(content)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return files
	}
	if first, second := read(), read(); !maps.Equal(first, second) {
		t.Errorf("files %q, and then %q or others of these names", slices.Sorted(maps.Keys(first)), slices.Sorted(maps.Keys(second)))
	}
}

func TestRootsAreCertificates(t *testing.T) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(roots()) {
		t.Fatal("none is")
	}
	if n := bytes.Count(roots(), []byte("BEGIN CERTIFICATE")); n < 100 {
		t.Errorf("only %d roots: most are not constrained", n)
	}
}

func TestTheListNamesEachModule(t *testing.T) {
	directory := programsIn(t, scheduler)
	if err := run(scheduler, version1, directory, ""); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(directory, "scheduler-arm64.spdx.json"))
	if err != nil {
		t.Fatal(err)
	}
	var document v2_3.Document
	if err := spdxjson.ReadInto(bytes.NewReader(content), &document); err != nil {
		t.Fatal(err)
	}
	if err := spdxlib.ValidateDocument(&document); err != nil {
		t.Error(err)
	}
	_, by := images(t, scheduler, directory)
	digest, err := by["linux/arm64"].Digest()
	if err != nil {
		t.Fatal(err)
	}
	versions := make(map[string]string)
	for _, p := range document.Packages {
		versions[p.PackageName] = p.PackageVersion
	}
	for name, want := range map[string]string{
		"scheduler": digest.String(), "stdlib": "1.", "github.com/netlatency/netlatency/hack/image": "v1.0.0",
		"github.com/google/go-containerregistry": "v0.", rootsModule().Path: "v0.",
	} {
		if got, ok := versions[name]; !ok || !strings.HasPrefix(got, want) {
			t.Errorf("%s is listed with version %q, want %s", name, got, want)
		}
	}
}

func TestWhatIsPushedCanBePulledWithItsList(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.WithReferrersSupport(true)))
	defer server.Close()
	prefix := strings.TrimPrefix(server.URL, "http://") + "/netlatency"
	directory := programsIn(t, scheduler)
	if err := run(scheduler, version1, directory, prefix); err != nil {
		t.Fatal(err)
	}
	reference, err := name.ParseReference(prefix + "/scheduler:v1.0.0")
	if err != nil {
		t.Fatal(err)
	}
	pulled, err := remote.Image(reference, remote.WithPlatform(v1.Platform{OS: "linux", Architecture: "arm64"}))
	if err != nil {
		t.Fatal(err)
	}
	got, err := pulled.Digest()
	if err != nil {
		t.Fatal(err)
	}
	_, by := images(t, scheduler, directory)
	if want, err := by["linux/arm64"].Digest(); got != want {
		t.Errorf("pulled %s, want %s: %v", got, want, err)
	}
	referrers, err := remote.Referrers(reference.Context().Digest(got.String()))
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := referrers.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(manifest.Manifests) != 1 || manifest.Manifests[0].ArtifactType != spdxJSON {
		t.Errorf("to the image refer %+v, want its list", manifest.Manifests)
	}
}
