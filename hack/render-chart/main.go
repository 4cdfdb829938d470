// Command render-chart writes what the chart renders to with its own values, for
// those who do not use Helm: install.yaml, to be applied as it is, and a base for
// kustomize.
//
// usage: go run ./hack/render-chart [directory, manifests by default]
package main

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/releaseutil"
	"sigs.k8s.io/kustomize/kyaml/yaml"
)

const (
	directory = "manifests"
	name      = "netlatency" // of the release and its namespace
	generated = "# Made of the chart by make generate.\n"
)

func main() {
	to := directory
	if len(os.Args) > 1 {
		to = os.Args[1]
	}
	if err := run(to); err != nil {
		fmt.Fprintln(os.Stderr, "render-chart:", err)
		os.Exit(1)
	}
}

func run(to string) error {
	objects, err := render(filepath.Join(directory, "chart", "netlatency"))
	if err != nil {
		return err
	}
	namespace, err := os.ReadFile(filepath.Join(directory, "kustomize", "namespace.yaml"))
	if err != nil {
		return err
	}
	install, base, configuration, err := write(objects)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(to, "kustomize"), 0o755); err != nil {
		return err
	}
	for file, content := range map[string]string{
		"install.yaml":                    generated + "---\n" + string(namespace) + install,
		"kustomize/netlatency.yaml":       generated + base,
		"kustomize/scheduler-config.yaml": generated + configuration,
	} {
		if err := os.WriteFile(filepath.Join(to, file), []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// render is the chart's objects in the order in which Helm installs them, with
// their comments.
func render(dir string) ([]*yaml.RNode, error) {
	chart, err := loader.LoadDir(dir)
	if err != nil {
		return nil, err
	}
	release := chartutil.ReleaseOptions{Name: name, Namespace: name, Revision: 1, IsInstall: true}
	values, err := chartutil.ToRenderValues(chart, nil, release, chartutil.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	files, err := engine.Engine{Strict: true}.Render(chart, values)
	if err != nil {
		return nil, err
	}
	for file := range files {
		if filepath.Base(file) == "NOTES.txt" {
			delete(files, file)
		}
	}
	_, manifests, err := releaseutil.SortManifests(files, chartutil.DefaultVersionSet, releaseutil.InstallOrder)
	if err != nil {
		return nil, err
	}
	var objects []*yaml.RNode
	for _, m := range manifests {
		object, err := yaml.Parse(m.Content)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.Name, err)
		}
		objects = append(objects, object)
	}
	return objects, nil
}

// write is the objects as they are applied, and as kustomize takes them: there
// the scheduler's configuration is a file, of which it makes the ConfigMap.
func write(objects []*yaml.RNode) (install, base, configuration string, err error) {
	var toInstall, toBase bytes.Buffer
	for _, object := range objects {
		// Helm does not manage these.
		for _, label := range []string{"app.kubernetes.io/managed-by", "helm.sh/chart"} {
			if err := object.PipeE(yaml.Lookup("metadata", "labels"), yaml.Clear(label)); err != nil {
				return "", "", "", err
			}
		}
		if err := add(&toInstall, object); err != nil {
			return "", "", "", err
		}
		if object.GetKind() == "ConfigMap" {
			configuration = cmp.Or(configuration, object.GetDataMap()["scheduler-config.yaml"])
			continue
		}
		// kustomize's names tell configurations apart.
		if err := object.PipeE(yaml.Lookup("spec", "template", "metadata", "annotations"), yaml.Clear("checksum/config")); err != nil {
			return "", "", "", err
		}
		if err := object.PipeE(yaml.Lookup("spec", "template", "metadata"), yaml.FieldClearer{Name: "annotations", IfEmpty: true}); err != nil {
			return "", "", "", err
		}
		if err := add(&toBase, object); err != nil {
			return "", "", "", err
		}
	}
	return toInstall.String(), toBase.String(), configuration, nil
}

func add(to *bytes.Buffer, object *yaml.RNode) error {
	text, err := object.String()
	if err != nil {
		return fmt.Errorf("%s %s: %w", object.GetKind(), object.GetName(), err)
	}
	to.WriteString("---\n" + strings.TrimPrefix(text, "---\n"))
	return nil
}
