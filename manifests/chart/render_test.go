// Package chart_test holds the Helm chart to what it promises, without a
// cluster: it is rendered by Helm's own engine and read back as the API server
// and the scheduler read it.
package chart_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

const chartDirectory = "netlatency"

func load(t *testing.T) *chart.Chart {
	t.Helper()
	c, err := loader.Load(chartDirectory)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// renderFiles is what `helm template netlatency --namespace netlatency` does
// with values, given as YAML: file name to content.
func renderFiles(t *testing.T, values string) (map[string]string, error) {
	t.Helper()
	return renderRelease(t, chartutil.ReleaseOptions{Name: "netlatency", Namespace: "netlatency", Revision: 1, IsInstall: true}, values)
}

// renderRelease renders for any release.
func renderRelease(t *testing.T, release chartutil.ReleaseOptions, values string) (map[string]string, error) {
	t.Helper()
	var given map[string]any
	if err := yaml.UnmarshalStrict([]byte(values), &given); err != nil {
		t.Fatal(err)
	}
	c := load(t)
	capabilities := chartutil.DefaultCapabilities.Copy()
	capabilities.KubeVersion = chartutil.KubeVersion{Version: "v1.36.3", Major: "1", Minor: "36"}
	renderValues, err := chartutil.ToRenderValues(c, given, release, capabilities)
	if err != nil {
		return nil, err
	}
	return engine.Engine{Strict: true}.Render(c, renderValues)
}

// manifests is the rendered objects, by kind and name.
type manifests map[string]runtime.Object

// render renders and decodes as strictly as the API server can be asked to.
func render(t *testing.T, values string) manifests {
	t.Helper()
	files, err := renderFiles(t, values)
	if err != nil {
		t.Fatal(err)
	}
	decoder := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	objects := manifests{}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if !strings.HasSuffix(name, ".yaml") || strings.TrimSpace(files[name]) == "" { // nothing, by a value
			continue
		}
		documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewBufferString(files[name])))
		for {
			document, err := documents.Read()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			object, kind, err := decoder.Decode(document, nil, nil)
			if runtime.IsNotRegisteredError(err) { // a custom resource
				object, kind, err = unstructured.UnstructuredJSONScheme.Decode(asJSON(t, document), nil, nil)
			}
			if err != nil {
				t.Fatalf("%s: %v in\n%s", name, err, document)
			}
			meta := object.(metav1.Object)
			key := kind.Kind + " " + meta.GetName()
			if meta.GetNamespace() != "" {
				key = kind.Kind + " " + meta.GetNamespace() + "/" + meta.GetName()
			}
			if _, twice := objects[key]; twice {
				t.Fatalf("%s: %s is rendered twice", name, key)
			}
			objects[key] = object
		}
	}
	return objects
}

func asJSON(t *testing.T, document []byte) []byte {
	t.Helper()
	data, err := yaml.YAMLToJSONStrict(document)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// get is the object of that kind and name.
func get[T runtime.Object](t *testing.T, objects manifests, key string) T {
	t.Helper()
	object, ok := objects[key].(T)
	if !ok {
		t.Fatalf("the chart has no %s", key)
	}
	return object
}
