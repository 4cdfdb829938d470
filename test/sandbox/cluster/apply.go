package cluster

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"
	"time"

	"helm.sh/helm/v3/pkg/releaseutil"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/json"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

// fieldManager owns what the sandbox applies.
const fieldManager = "netlatency-sandbox"

// kindTimeout is how long a kind may stay unknown before it is an error. The
// API server serves a new definition within a second or two; half a minute was
// seen with ten compilers beside it.
const kindTimeout = time.Minute

// Apply applies the objects of a YAML stream; see ApplyObjects.
func (c *Cluster) Apply(ctx context.Context, manifests []byte) error {
	objects, err := decodeManifests(manifests)
	if err != nil {
		return err
	}
	return c.applyAll(ctx, objects, metav1.NamespaceDefault)
}

// ApplyObjects applies objects server-side, in Helm's order of installation by
// kind whatever order they are given in, and takes over fields that others
// manage. An object of a namespaced kind without a namespace goes to
// "default". A kind whose definition was applied a moment ago is waited for.
func (c *Cluster) ApplyObjects(ctx context.Context, objects ...runtime.Object) error {
	converted := make([]*unstructured.Unstructured, 0, len(objects))
	for _, o := range objects {
		u, err := toUnstructured(o)
		if err != nil {
			return err
		}
		converted = append(converted, u)
	}
	return c.applyAll(ctx, converted, metav1.NamespaceDefault)
}

// applyAll applies in order; what is namespaced and has no namespace goes to
// the given one.
func (c *Cluster) applyAll(ctx context.Context, objects []*unstructured.Unstructured, namespace string) error {
	sortForInstall(objects)
	for _, o := range objects {
		if err := c.applyOne(ctx, o, namespace); err != nil {
			return fmt.Errorf("apply %s: %w", describe(o), err)
		}
	}
	return nil
}

func (c *Cluster) applyOne(ctx context.Context, o *unstructured.Unstructured, namespace string) error {
	mapping, err := c.mapping(ctx, o.GroupVersionKind())
	if err != nil {
		return err
	}
	if o.GetNamespace() == "" && mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		o.SetNamespace(namespace)
	}
	data, err := o.MarshalJSON()
	if err != nil {
		return err
	}
	_, err = c.dynamic.Resource(mapping.Resource).Namespace(o.GetNamespace()).Patch(ctx, o.GetName(), types.ApplyPatchType, data, metav1.PatchOptions{FieldManager: fieldManager, Force: new(true)})
	return err
}

// mapping finds how a kind is served, waiting for one whose definition is new.
func (c *Cluster) mapping(ctx context.Context, kind schema.GroupVersionKind) (*meta.RESTMapping, error) {
	ctx, cancel := context.WithTimeout(ctx, kindTimeout)
	defer cancel()
	var mapping *meta.RESTMapping
	err := c.poll(ctx, "kind "+kind.String(), func(context.Context) string {
		var err error
		mapping, err = c.mapper.RESTMapping(kind.GroupKind(), kind.Version)
		if err != nil {
			c.mapper.Reset() // it does not look again by itself
			return err.Error()
		}
		return ""
	})
	return mapping, err
}

// decodeManifests reads the objects of a YAML or JSON stream; empty documents
// are skipped.
func decodeManifests(manifests []byte) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(manifests)))
	for n := 1; ; n++ {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, fmt.Errorf("manifest %d: %w", n, err)
		}
		data, err := yaml.YAMLToJSON(document)
		if err != nil {
			return nil, fmt.Errorf("manifest %d: %w", n, err)
		}
		var content map[string]any
		// This decoder keeps integers apart from floats, as unstructured
		// objects must.
		if err := json.Unmarshal(data, &content); err != nil {
			return nil, fmt.Errorf("manifest %d: %w", n, err)
		}
		if len(content) == 0 {
			continue
		}
		o := &unstructured.Unstructured{Object: content}
		if o.GetAPIVersion() == "" || o.GetKind() == "" || o.GetName() == "" {
			return nil, fmt.Errorf("manifest %d (%s) needs apiVersion, kind and metadata.name", n, describe(o))
		}
		objects = append(objects, o)
	}
}

func toUnstructured(o runtime.Object) (*unstructured.Unstructured, error) {
	if u, ok := o.(*unstructured.Unstructured); ok {
		return u.DeepCopy(), nil
	}
	kind := o.GetObjectKind().GroupVersionKind()
	if kind.Empty() {
		kinds, _, err := scheme.Scheme.ObjectKinds(o)
		if err != nil {
			return nil, fmt.Errorf("apply %T: %w", o, err)
		}
		kind = kinds[0]
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		return nil, fmt.Errorf("apply %T: %w", o, err)
	}
	// Go's structs print an empty status, which is not ours to own.
	delete(content, "status")
	u := &unstructured.Unstructured{Object: content}
	u.SetGroupVersionKind(kind)
	return u, nil
}

// sortForInstall orders by kind as Helm does; kinds Helm does not know, custom
// resources, go last. Within a kind the order stays.
func sortForInstall(objects []*unstructured.Unstructured) {
	order := make(map[string]int, len(releaseutil.InstallOrder))
	for i, kind := range releaseutil.InstallOrder {
		order[kind] = i
	}
	place := func(o *unstructured.Unstructured) int {
		if i, ok := order[o.GetKind()]; ok {
			return i
		}
		return len(order)
	}
	sort.SliceStable(objects, func(i, j int) bool { return place(objects[i]) < place(objects[j]) })
}

func describe(o *unstructured.Unstructured) string {
	return strings.TrimSpace(fmt.Sprintf("%s %s", o.GetKind(), types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}))
}

func quantity(s string) resource.Quantity { return resource.MustParse(s) }
