// Package kustomize_test holds the kustomize base to the chart, by way of
// install.yaml, which is rendered from it.
package kustomize_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resmap"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/kustomize/kyaml/kio"
)

const configMap = "ConfigMap netlatency-scheduler-config"

// build is what kustomize makes of the base, below an overlay if that is given.
func build(t *testing.T, overlay map[string]string) resmap.ResMap {
	t.Helper()
	fs := filesys.MakeFsInMemory()
	write := func(path string, content []byte) {
		if err := fs.WriteFile(path, content); err != nil {
			t.Fatal(err)
		}
	}
	base, err := filepath.Glob("*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range base {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		write("/base/"+name, content)
	}
	root := "/base"
	for name, content := range overlay {
		root = "/overlay"
		write(root+"/"+name, []byte(content))
	}
	objects, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(fs, root)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

// byName is objects by kind and name, without the hashes that kustomize ends
// names with, and those names.
func byName(t *testing.T, objects resmap.ResMap) (found map[string]any, hashed string) {
	t.Helper()
	found = make(map[string]any)
	for _, object := range objects.Resources() {
		if object.GetKind() == "ConfigMap" {
			hashed = object.GetName()
		}
	}
	for _, object := range objects.Resources() {
		content, err := object.Map()
		if err != nil {
			t.Fatal(err)
		}
		found[strings.TrimSuffix(object.GetKind()+" "+object.GetName(), strings.TrimPrefix(hashed, "netlatency-scheduler-config"))] = content
	}
	return found, hashed
}

func at(object any, path ...string) any {
	for _, name := range path {
		inner, _ := object.(map[string]any)
		object = inner[name]
	}
	return object
}

// mounted is the name of the ConfigMap that the scheduler mounts.
func mounted(objects map[string]any) any {
	volumes, _ := at(objects["Deployment netlatency-scheduler"], "spec", "template", "spec", "volumes").([]any)
	return at(volumes[0], "configMap", "name")
}

func TestTheBaseIsWhatTheChartInstalls(t *testing.T) {
	data, err := os.ReadFile("../install.yaml")
	if err != nil {
		t.Fatal(err)
	}
	nodes, err := kio.FromBytes(data)
	if err != nil {
		t.Fatal(err)
	}
	want := make(map[string]any)
	for _, node := range nodes {
		content, err := node.Map()
		if err != nil {
			t.Fatal(err)
		}
		want[node.GetKind()+" "+node.GetName()] = content
	}
	got, hashed := byName(t, build(t, nil))
	if hashed == "netlatency-scheduler-config" || mounted(got) != hashed {
		t.Errorf("the scheduler mounts %v, the ConfigMap is %s: another configuration would start no new scheduler", mounted(got), hashed)
	}
	// What tells configurations apart is a name here and a checksum there, and a
	// file begins with where it is from.
	at(got[configMap], "metadata").(map[string]any)["name"] = "netlatency-scheduler-config"
	volumes := at(got["Deployment netlatency-scheduler"], "spec", "template", "spec", "volumes").([]any)
	at(volumes[0], "configMap").(map[string]any)["name"] = "netlatency-scheduler-config"
	delete(at(want["Deployment netlatency-scheduler"], "spec", "template", "metadata").(map[string]any), "annotations")
	for _, objects := range []map[string]any{want, got} {
		configuration := at(objects[configMap], "data").(map[string]any)
		_, configuration["scheduler-config.yaml"], _ = strings.Cut(configuration["scheduler-config.yaml"].(string), "apiVersion:")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("objects (-install.yaml +base):\n%s", diff)
	}
}

func TestAnOverlayReplacesTheConfigurationAndTheImages(t *testing.T) {
	_, before := byName(t, build(t, nil))
	got, hashed := byName(t, build(t, map[string]string{
		"kustomization.yaml": `
resources: [../base]
images:
- name: ghcr.io/netlatency/agent
  newName: registry.example.com/agent
  newTag: v1
configMapGenerator:
- name: netlatency-scheduler-config
  namespace: netlatency
  behavior: replace
  files: [scheduler-config.yaml]
`,
		"scheduler-config.yaml": "mine",
	}))
	if text := at(got[configMap], "data", "scheduler-config.yaml"); text != "mine" {
		t.Errorf("the configuration is %q, want the overlay's", text)
	}
	if hashed == before || mounted(got) != hashed {
		t.Errorf("the scheduler mounts %v, the ConfigMap was %s and is %s", mounted(got), before, hashed)
	}
	containers := at(got["DaemonSet netlatency-agent"], "spec", "template", "spec", "containers").([]any)
	if image := at(containers[0], "image"); image != "registry.example.com/agent:v1" {
		t.Errorf("the agents' image is %s, want the overlay's", image)
	}
}
