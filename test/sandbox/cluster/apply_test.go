package cluster

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func TestObjectsAreAppliedInOrderOfInstallation(t *testing.T) {
	objects, err := decodeManifests([]byte(`
{apiVersion: ray.io/v1, kind: RayService, metadata: {name: custom}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: b}}
---
# nothing but a comment
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}}
---
{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: definition}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: account}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: namespace}}
`))
	if err != nil {
		t.Fatal(err)
	}
	sortForInstall(objects)
	var got []string
	for _, o := range objects {
		got = append(got, o.GetName())
	}
	want := []string{"namespace", "account", "definition", "b", "a", "custom"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

func TestManifestThatCannotBeAppliedIsNamed(t *testing.T) {
	for name, manifests := range map[string]string{
		"no kind":     "{apiVersion: v1, metadata: {name: a}}",
		"no name":     "{apiVersion: v1, kind: Pod}",
		"not a map":   "[1, 2]",
		"broken YAML": "{apiVersion: v1",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := decodeManifests([]byte("{apiVersion: v1, kind: Pod, metadata: {name: fine}}\n---\n" + manifests))
			if err == nil || !strings.Contains(err.Error(), "manifest 2") {
				t.Errorf("error %v", err)
			}
		})
	}
}

func FuzzDecodeManifests(f *testing.F) {
	f.Add([]byte("{apiVersion: v1, kind: Pod, metadata: {name: a}}\n---\n---\n"))
	f.Add([]byte("apiVersion: ray.io/v1\nkind: RayService\nmetadata: {name: a}\nspec: {rayClusterConfig: {workerGroupSpecs: [{replicas: 2}]}}\n"))
	f.Add([]byte("kind: RayService\nspec: {rayClusterConfig: {workerGroupSpecs: [1]}}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		objects, err := decodeManifests(data)
		if err == nil {
			for _, o := range objects {
				if o.GetKind() == "" || o.GetAPIVersion() == "" || o.GetName() == "" {
					t.Errorf("accepted %v", o)
				}
			}
		}
		service, err := ParseRayService(data)
		if err != nil {
			return
		}
		if err := service.SetWorkers(3); err != nil {
			return // its worker groups are not those of a RayService
		}
		groups, err := workerGroups(service.Object(), serviceWorkerGroups...)
		if err != nil {
			t.Fatal(err)
		}
		if n, _, _ := unstructured.NestedInt64(groups[0].(map[string]any), "replicas"); n != 3 {
			t.Errorf("replicas %d after SetWorkers(3)", n)
		}
	})
}
