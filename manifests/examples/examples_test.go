// Package examples_test holds the example manifests to the definitions of what
// they are examples of.
package examples_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

// rayServiceSchema is that of the KubeRay release that the sandbox runs.
func rayServiceSchema(t *testing.T) *apiextensions.JSONSchemaProps {
	t.Helper()
	download := exec.Command("go", "mod", "download", "-json", "github.com/ray-project/kuberay/ray-operator")
	download.Dir = filepath.Join("..", "..", "hack", "tools", "kuberay")
	output, err := download.Output()
	if err != nil {
		t.Fatalf("%s in %s: %v\n%s", download, download.Dir, err, output)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(output, &module); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(module.Dir, "config", "crd", "bases", "ray.io_rayservices.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var definition apiextensionsv1.CustomResourceDefinition
	if err := yaml.Unmarshal(data, &definition); err != nil {
		t.Fatal(err)
	}
	for _, version := range definition.Spec.Versions {
		if version.Name == "v1" {
			var internal apiextensions.JSONSchemaProps
			if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(version.Schema.OpenAPIV3Schema, &internal, nil); err != nil {
				t.Fatal(err)
			}
			return &internal
		}
	}
	t.Fatal("KubeRay's RayService has no version v1")
	return nil
}

func rayService(t *testing.T) map[string]any {
	t.Helper()
	data, err := os.ReadFile("rayservice.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var content map[string]any
	if err := yaml.UnmarshalStrict(data, &content); err != nil {
		t.Fatal(err)
	}
	return content
}

func TestRayServiceIsOneToKubeRay(t *testing.T) {
	properties := rayServiceSchema(t)
	content := rayService(t)
	validator, _, err := validation.NewSchemaValidator(properties)
	if err != nil {
		t.Fatal(err)
	}
	for _, fault := range validation.ValidateCustomResource(nil, content, validator) {
		t.Error(fault)
	}
	// The API server drops fields that the definition does not know.
	structural, err := schema.NewStructural(properties)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range pruning.PruneWithOptions(content, structural, true, schema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true}) {
		t.Errorf("KubeRay knows no field %s", path)
	}
}

// A schedulerName on the pod templates, and nothing else, is what our
// installation guide asks for.
func TestRayServiceIsPlacedByNetlatencyAlone(t *testing.T) {
	cluster, _, _ := unstructured.NestedMap(rayService(t), "spec", "rayClusterConfig")
	groups, _, _ := unstructured.NestedSlice(cluster, "workerGroupSpecs")
	head, _, _ := unstructured.NestedMap(cluster, "headGroupSpec")
	if len(groups) != 1 {
		t.Fatalf("%d worker groups, want 1", len(groups))
	}
	for name, group := range map[string]map[string]any{"head": head, "workers": groups[0].(map[string]any)} {
		content, _, _ := unstructured.NestedMap(group, "template")
		var template corev1.PodTemplateSpec
		if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(content, &template, true); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := template.Spec.SchedulerName; got != "netlatency-scheduler" {
			t.Errorf("%s: scheduler %q, want the first of the chart", name, got)
		}
		if template.Spec.Affinity != nil || template.Spec.NodeSelector != nil || template.Labels != nil || template.Annotations != nil {
			t.Errorf("%s: there is more to placement than schedulerName", name)
		}
		for _, container := range template.Spec.Containers {
			if container.Resources.Requests.Cpu().IsZero() || container.Resources.Requests.Memory().IsZero() {
				t.Errorf("%s: without requests all workers fit the nearest node", name)
			}
		}
	}
}
