// Command release makes the files of a release beside its images: an archive of
// the kubectl plugin for each platform, the plugin's manifest for krew, the chart,
// install.yaml, and the checksums of all. The same source gives the same bytes.
//
// It takes the plugin from DIRECTORY/bin/OS_ARCHITECTURE.
//
// usage: hack/release.sh, which builds the plugin
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"flag"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
	"time"

	"helm.sh/helm/v3/pkg/chart/loader"
)

const plugin = "kubectl-netlatency"

func main() {
	version := flag.String("version", "", "the release's tag, v and the chart's version")
	created := flag.Int64("created", 0, "when its source was made, in seconds since 1970")
	directory := flag.String("directory", "build/release", "where the programs are and the files go")
	flag.Parse()
	if err := run(".", *directory, *version, time.Unix(*created, 0)); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

// run makes the files of the source in root.
func run(root, directory, version string, created time.Time) error {
	chart, err := packChart(filepath.Join(root, "manifests", "chart", "netlatency"), version, created)
	if err != nil {
		return err
	}
	install, err := os.ReadFile(filepath.Join(root, "manifests", "install.yaml"))
	if err != nil {
		return err
	}
	files, err := packPlugins(root, directory, created)
	if err != nil {
		return err
	}
	manifest, err := krew(filepath.Join(root, ".krew.yaml"), version, files)
	if err != nil {
		return err
	}
	files["netlatency.yaml"] = manifest
	files["netlatency-"+strings.TrimPrefix(version, "v")+".tgz"] = chart
	files["install.yaml"] = install
	var sums strings.Builder
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(&sums, "%s  %s\n", sum(files[name]), name)
	}
	files["SHA256SUMS"] = []byte(sums.String())
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(directory, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func sum(content []byte) string { return fmt.Sprintf("%x", sha256.Sum256(content)) }

// packChart is the chart as helm package makes it, but for the time. Images and
// install.yaml have the chart's version in them, so a release has it too.
func packChart(directory, version string, created time.Time) ([]byte, error) {
	chart, err := loader.LoadDir(directory)
	if err != nil {
		return nil, err
	}
	for _, in := range []string{chart.Metadata.Version, chart.Metadata.AppVersion} {
		if "v"+in != version {
			return nil, fmt.Errorf("Chart.yaml has version %s and appVersion %s, the release is %s", chart.Metadata.Version, chart.Metadata.AppVersion, version)
		}
	}
	var entries []entry
	for _, file := range chart.Raw { // without what .helmignore names
		entries = append(entries, entry{path: path.Join(chart.Name(), file.Name), mode: 0o644, content: file.Data})
	}
	return pack(entries, created)
}

// packPlugins is an archive for each platform that there is the plugin for.
func packPlugins(root, directory string, created time.Time) (map[string][]byte, error) {
	license, err := os.ReadFile(filepath.Join(root, "LICENSE"))
	if err != nil {
		return nil, err
	}
	binaries, err := filepath.Glob(filepath.Join(directory, "bin", "*", plugin+"*"))
	if err != nil {
		return nil, err
	}
	files := make(map[string][]byte)
	for _, binary := range binaries {
		content, err := os.ReadFile(binary)
		if err != nil {
			return nil, err
		}
		archive, err := pack([]entry{
			{path: "LICENSE", mode: 0o644, content: license},
			{path: filepath.Base(binary), mode: 0o755, content: content},
		}, created)
		if err != nil {
			return nil, err
		}
		files[fmt.Sprintf("%s_%s.tar.gz", plugin, filepath.Base(filepath.Dir(binary)))] = archive
	}
	return files, nil
}

// krew fills the manifest in. Its template is that of krew-release-bot, which has
// this one function.
func krew(file, version string, archives map[string][]byte) ([]byte, error) {
	data := map[string]string{"TagName": version}
	functions := template.FuncMap{"addURIAndSha": func(uri, _ string) (string, error) {
		at, err := template.New("uri").Parse(uri)
		if err != nil {
			return "", err
		}
		var where strings.Builder
		if err := at.Execute(&where, data); err != nil {
			return "", err
		}
		archive, ok := archives[path.Base(where.String())]
		if !ok {
			return "", fmt.Errorf("there is no %s", path.Base(where.String()))
		}
		return fmt.Sprintf("uri: %s\n    sha256: %s", where.String(), sum(archive)), nil
	}}
	text, err := template.New(filepath.Base(file)).Funcs(functions).ParseFiles(file)
	if err != nil {
		return nil, err
	}
	var manifest bytes.Buffer
	if err := text.Execute(&manifest, data); err != nil {
		return nil, err
	}
	return manifest.Bytes(), nil
}

// entry is a file of an archive.
type entry struct {
	path    string
	mode    int64
	content []byte
}

// pack is a compressed archive that depends on nothing else.
func pack(entries []entry, created time.Time) ([]byte, error) {
	var archive bytes.Buffer
	compressed := gzip.NewWriter(&archive)
	to := tar.NewWriter(compressed)
	for _, e := range entries {
		if err := to.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: e.path, Mode: e.mode, Size: int64(len(e.content)), ModTime: created}); err != nil {
			return nil, err
		}
		if _, err := to.Write(e.content); err != nil {
			return nil, err
		}
	}
	if err := to.Close(); err != nil {
		return nil, err
	}
	if err := compressed.Close(); err != nil {
		return nil, err
	}
	return archive.Bytes(), nil
}
