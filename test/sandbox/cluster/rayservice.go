package cluster

import (
	"errors"
	"fmt"
	"os"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// A RayService is a manifest to be adjusted and applied.
type RayService struct{ object *unstructured.Unstructured }

// ReadRayService reads the one RayService of a YAML file; other objects in it
// are passed over.
func ReadRayService(path string) (*RayService, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	rs, err := ParseRayService(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return rs, nil
}

// ParseRayService is ReadRayService on data.
func ParseRayService(data []byte) (*RayService, error) {
	objects, err := decodeManifests(data)
	if err != nil {
		return nil, err
	}
	var found *RayService
	for _, o := range objects {
		if o.GetKind() != "RayService" {
			continue
		}
		if found != nil {
			return nil, errors.New("has more than one RayService")
		}
		found = &RayService{object: o}
		if _, err := workerGroups(o, serviceWorkerGroups...); err != nil {
			return nil, err
		}
	}
	if found == nil {
		return nil, errors.New("has no RayService")
	}
	return found, nil
}

// Key is namespace and name.
func (r *RayService) Key() types.NamespacedName {
	return types.NamespacedName{Namespace: r.object.GetNamespace(), Name: r.object.GetName()}
}

// Object is the manifest itself, for changes that have no method here.
func (r *RayService) Object() *unstructured.Unstructured { return r.object }

// DeepCopy returns a manifest that can be changed without changing this one.
func (r *RayService) DeepCopy() *RayService { return &RayService{object: r.object.DeepCopy()} }

// Rename sets namespace and name.
func (r *RayService) Rename(key types.NamespacedName) {
	r.object.SetNamespace(key.Namespace)
	r.object.SetName(key.Name)
}

// SetWorkers sets the replicas of the first worker group, and its bounds so
// that they hold them.
func (r *RayService) SetWorkers(n int) error {
	return r.changeWorkerGroups(func(i int, group map[string]any) error {
		if i == 0 {
			setReplicas(group, int64(n))
		}
		return nil
	})
}

// SetSchedulerName sets the scheduler of the workers; the head keeps its own.
func (r *RayService) SetSchedulerName(name string) error {
	return r.changeWorkerGroups(func(_ int, group map[string]any) error {
		return unstructured.SetNestedField(group, name, "template", "spec", "schedulerName")
	})
}

// SetWorkerRequests sets what the first container of each worker requests, and
// takes its limits away.
func (r *RayService) SetWorkerRequests(requests corev1.ResourceList) error {
	return r.changeWorkerGroups(func(_ int, group map[string]any) error {
		containers, _, err := unstructured.NestedSlice(group, "template", "spec", "containers")
		if err != nil {
			return err
		}
		if len(containers) == 0 {
			return errors.New("has no containers")
		}
		container, ok := containers[0].(map[string]any)
		if !ok {
			return errors.New("containers[0] is not an object")
		}
		content := make(map[string]any, len(requests))
		for name, quantity := range requests {
			content[string(name)] = quantity.String()
		}
		container["resources"] = map[string]any{"requests": content}
		return unstructured.SetNestedSlice(group, containers, "template", "spec", "containers")
	})
}

// SetWorkerAffinity pins the workers by hand; nil takes any affinity away.
func (r *RayService) SetWorkerAffinity(affinity *corev1.Affinity) error {
	return r.changeWorkerGroups(func(_ int, group map[string]any) error {
		if affinity == nil {
			unstructured.RemoveNestedField(group, "template", "spec", "affinity")
			return nil
		}
		content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(affinity)
		if err != nil {
			return err
		}
		return unstructured.SetNestedField(group, content, "template", "spec", "affinity")
	})
}

var serviceWorkerGroups = []string{"spec", "rayClusterConfig", "workerGroupSpecs"}

func (r *RayService) changeWorkerGroups(change func(i int, group map[string]any) error) error {
	groups, err := workerGroups(r.object, serviceWorkerGroups...)
	if err != nil {
		return err
	}
	for i := range groups {
		if err := change(i, groups[i].(map[string]any)); err != nil {
			return fmt.Errorf("%s: workerGroupSpecs[%d]: %w", describe(r.object), i, err)
		}
	}
	return unstructured.SetNestedSlice(r.object.Object, groups, serviceWorkerGroups...)
}

// workerGroups returns a copy of the worker groups at a path of a RayService or
// RayCluster: at least one, all of them map[string]any.
func workerGroups(o *unstructured.Unstructured, path ...string) ([]any, error) {
	groups, _, err := unstructured.NestedSlice(o.Object, path...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", describe(o), err)
	}
	for i := range groups {
		if _, ok := groups[i].(map[string]any); !ok {
			return nil, fmt.Errorf("%s: workerGroupSpecs[%d] is not an object", describe(o), i)
		}
	}
	if len(groups) == 0 {
		return nil, fmt.Errorf("%s has no workerGroupSpecs", describe(o))
	}
	return groups, nil
}

// setReplicas keeps minReplicas <= n <= maxReplicas, which KubeRay insists on.
func setReplicas(group map[string]any, n int64) {
	group["replicas"] = n
	if lowest, found, err := unstructured.NestedInt64(group, "minReplicas"); !found || err != nil || lowest > n {
		group["minReplicas"] = n
	}
	if highest, found, err := unstructured.NestedInt64(group, "maxReplicas"); !found || err != nil || highest < n {
		group["maxReplicas"] = n
	}
}
