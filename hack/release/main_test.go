package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v3/pkg/chart/loader"
	"sigs.k8s.io/yaml"
)

const root = "../.."

var created = time.Unix(1_700_000_000, 0)

// release is the files of a release with a plugin for each platform: name to
// content.
func release(t *testing.T, version string) (map[string][]byte, error) {
	t.Helper()
	directory := t.TempDir()
	for _, platform := range []string{"linux_amd64", "linux_arm64", "darwin_amd64", "darwin_arm64", "windows_amd64", "windows_arm64"} {
		name := plugin
		if strings.HasPrefix(platform, "windows") {
			name += ".exe"
		}
		to := filepath.Join(directory, "bin", platform, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, []byte("for "+platform), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := run(root, directory, version, created); err != nil {
		return nil, err
	}
	files := make(map[string][]byte)
	found, err := filepath.Glob(filepath.Join(directory, "*.*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(found, filepath.Join(directory, "SHA256SUMS")) {
		if files[filepath.Base(file)], err = os.ReadFile(file); err != nil {
			t.Fatal(err)
		}
	}
	return files, nil
}

func chartVersion(t *testing.T) string {
	t.Helper()
	chart, err := loader.LoadDir(filepath.Join(root, "manifests", "chart", "netlatency"))
	if err != nil {
		t.Fatal(err)
	}
	return chart.Metadata.Version
}

func unpack(t *testing.T, archive []byte) map[string]string {
	t.Helper()
	uncompressed, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string]string)
	from := tar.NewReader(uncompressed)
	for {
		header, err := from.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(from)
		if err != nil {
			t.Fatal(err)
		}
		files[header.Name] = string(content)
	}
}

func TestKrewFindsThePluginOfEachPlatform(t *testing.T) {
	version := chartVersion(t)
	files, err := release(t, "v"+version)
	if err != nil {
		t.Fatal(err)
	}
	var manifest struct {
		Metadata struct{ Name string }
		Spec     struct {
			Version, ShortDescription, Description string
			Platforms                              []struct {
				Selector struct {
					MatchLabels struct{ OS, Arch string }
				}
				URI, SHA256, Bin string
			}
		}
	}
	if err := yaml.Unmarshal(files["netlatency.yaml"], &manifest); err != nil {
		t.Fatalf("%v in\n%s", err, files["netlatency.yaml"])
	}
	// krew calls plugins as kubectl does, without the beginning of their programs'
	// names.
	if manifest.Metadata.Name != "netlatency" || manifest.Spec.Version != "v"+version || manifest.Spec.ShortDescription == "" || manifest.Spec.Description == "" {
		t.Errorf("the manifest is of %+v", manifest)
	}
	var platforms []string
	for _, p := range manifest.Spec.Platforms {
		platform := p.Selector.MatchLabels.OS + "_" + p.Selector.MatchLabels.Arch
		platforms = append(platforms, platform)
		if want := "https://github.com/netlatency/netlatency/releases/download/v" + version + "/" + path.Base(p.URI); p.URI != want {
			t.Errorf("%s is at %s, want %s", platform, p.URI, want)
		}
		archive := files[path.Base(p.URI)]
		if p.SHA256 != sum(archive) {
			t.Errorf("%s has the checksum %s, want %s", platform, p.SHA256, sum(archive))
		}
		content := unpack(t, archive)
		if content[p.Bin] != "for "+platform || !strings.Contains(content["LICENSE"], "Apache License") || len(content) != 2 {
			t.Errorf("the archive for %s has %q", platform, slices.Sorted(maps.Keys(content)))
		}
	}
	want := []string{"linux_amd64", "linux_arm64", "darwin_amd64", "darwin_arm64", "windows_amd64", "windows_arm64"}
	if diff := cmp.Diff(want, platforms); diff != "" {
		t.Errorf("platforms (-want +got):\n%s", diff)
	}
}

func TestTheChartOfAReleaseIsTheChart(t *testing.T) {
	version := chartVersion(t)
	files, err := release(t, "v"+version)
	if err != nil {
		t.Fatal(err)
	}
	got, err := loader.LoadArchive(bytes.NewReader(files["netlatency-"+version+".tgz"]))
	if err != nil {
		t.Fatal(err)
	}
	want, err := loader.LoadDir(filepath.Join(root, "manifests", "chart", "netlatency"))
	if err != nil {
		t.Fatal(err)
	}
	inArchive, inDirectory := make(map[string]string), make(map[string]string)
	for _, file := range got.Raw {
		inArchive[file.Name] = string(file.Data)
	}
	for _, file := range want.Raw {
		inDirectory[file.Name] = string(file.Data)
	}
	if diff := cmp.Diff(inDirectory, inArchive); diff != "" {
		t.Errorf("files (-directory +archive):\n%s", diff)
	}
	for name := range inArchive {
		if strings.HasPrefix(name, "tests/") {
			t.Errorf("the archive has %s", name)
		}
	}
}

func TestAReleaseMadeTwiceIsTheSame(t *testing.T) {
	first, err := release(t, "v"+chartVersion(t))
	if err != nil {
		t.Fatal(err)
	}
	second, err := release(t, "v"+chartVersion(t))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, second); diff != "" {
		t.Errorf("files (-first +second):\n%s", diff)
	}
	for name, content := range first {
		if name != "SHA256SUMS" && !strings.Contains(string(first["SHA256SUMS"]), sum(content)+"  "+name+"\n") {
			t.Errorf("SHA256SUMS lacks %s", name)
		}
	}
}

func TestAReleaseHasTheChartsVersion(t *testing.T) {
	_, err := release(t, "v99.0.0")
	if err == nil || !strings.Contains(err.Error(), "the release is v99.0.0") {
		t.Errorf("got error %v, want one that names both versions", err)
	}
}
