package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// podGroup is pods that are made of one template.
type podGroup struct {
	name     string
	replicas int
	template corev1.PodTemplateSpec // with namespace and labels
	origin   string                 // name of the Ray object that they are of, "" for others
}

// pod is the i-th of the group.
func (g *podGroup) pod(i int) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: *g.template.ObjectMeta.DeepCopy(), Spec: *g.template.Spec.DeepCopy()}
	pod.Name = fmt.Sprintf("%s-%d", g.name, i)
	pod.UID = types.UID("simulated/" + pod.Name)
	if pod.Spec.SchedulerName == "" {
		pod.Spec.SchedulerName = corev1.DefaultSchedulerName
	}
	return pod
}

// Labels that KubeRay puts on the pods of a cluster.
const (
	labelRayCluster  = "ray.io/cluster"
	labelRayGroup    = "ray.io/group"
	labelRayNodeType = "ray.io/node-type"
	labelRayOrigin   = "ray.io/originated-from-cr-name"
)

// readGroups reads the groups of pods that manifests describe: the workers of
// Ray clusters, and the pods of Deployments, StatefulSets, ReplicaSets, Jobs
// and themselves. Other objects are passed over.
func readGroups(in io.Reader, namespace string) ([]podGroup, error) {
	var groups []podGroup
	var others []string
	decoder := yaml.NewYAMLOrJSONDecoder(in, 4096)
	for {
		var o unstructured.Unstructured
		err := decoder.Decode(&o.Object)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if len(o.Object) == 0 {
			continue
		}
		if o.GetNamespace() == "" {
			o.SetNamespace(namespace)
		}
		of, err := groupsOfObject(&o)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", o.GetKind(), o.GetName(), err)
		}
		if of == nil {
			others = append(others, o.GetKind())
		}
		groups = append(groups, of...)
	}
	if len(groups) == 0 {
		slices.Sort(others)
		return nil, fmt.Errorf("it describes no pods: want a RayService, RayCluster, RayJob, Deployment, StatefulSet, ReplicaSet, Job or Pod, found %s", strings.Join(append(slices.Compact(others), "nothing else"), ", "))
	}
	return groups, nil
}

func groupsOfObject(o *unstructured.Unstructured) ([]podGroup, error) {
	switch o.GetKind() {
	case "RayService":
		return rayWorkers(o, "spec", "rayClusterConfig")
	case "RayJob":
		return rayWorkers(o, "spec", "rayClusterSpec")
	case "RayCluster":
		return rayWorkers(o, "spec")
	case "Deployment", "StatefulSet", "ReplicaSet":
		return podsOf(o, "replicas")
	case "Job":
		return podsOf(o, "parallelism")
	case "Pod":
		g := podGroup{name: o.GetName(), replicas: 1}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &g.template); err != nil {
			return nil, err
		}
		return []podGroup{g}, nil
	}
	return nil, nil
}

// podsOf is the pods of an object with one template.
func podsOf(o *unstructured.Unstructured, count string) ([]podGroup, error) {
	spec, _, err := unstructured.NestedMap(o.Object, "spec")
	if err != nil {
		return nil, err
	}
	g, err := templateOf(o, spec, "spec")
	if err != nil {
		return nil, err
	}
	if g.replicas, err = countOf(spec, count, 1); err != nil {
		return nil, fmt.Errorf("spec.%w", err)
	}
	g.name = o.GetName()
	return []podGroup{g}, nil
}

// rayWorkers is the groups of workers of the RayCluster at path, with the
// labels that KubeRay gives them. The name of the cluster is not known before
// it is there.
func rayWorkers(o *unstructured.Unstructured, path ...string) ([]podGroup, error) {
	path = append(path, "workerGroupSpecs")
	specs, found, err := unstructured.NestedSlice(o.Object, path...)
	if err != nil {
		return nil, err
	}
	if !found || len(specs) == 0 {
		return nil, fmt.Errorf("%s is not set: there are no workers", strings.Join(path, "."))
	}
	var groups []podGroup
	for i, s := range specs {
		at := fmt.Sprintf("%s[%d]", strings.Join(path, "."), i)
		spec, ok := s.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("%s is not an object", at)
		}
		g, err := templateOf(o, spec, at)
		if err != nil {
			return nil, err
		}
		name, _, err := unstructured.NestedString(spec, "groupName")
		if err != nil || name == "" {
			return nil, fmt.Errorf("%s.groupName is not set: want the name of the group", at)
		}
		// KubeRay starts minReplicas where replicas is not set.
		least, err := countOf(spec, "minReplicas", 0)
		if err != nil {
			return nil, fmt.Errorf("%s.%w", at, err)
		}
		replicas, err := countOf(spec, "replicas", least)
		if err != nil {
			return nil, fmt.Errorf("%s.%w", at, err)
		}
		hosts, err := countOf(spec, "numOfHosts", 1)
		if err != nil {
			return nil, fmt.Errorf("%s.%w", at, err)
		}
		g.name, g.replicas = name, max(replicas, least)*max(hosts, 1)
		g.origin = o.GetName()
		for label, value := range map[string]string{
			labelRayNodeType: "worker", labelRayGroup: name, labelRayCluster: o.GetName(),
			"ray.io/is-ray-node": "yes", "ray.io/identifier": o.GetName() + "-worker",
			"app.kubernetes.io/name": "kuberay", "app.kubernetes.io/created-by": "kuberay-operator",
		} {
			metav1.SetMetaDataLabel(&g.template.ObjectMeta, label, value)
		}
		if o.GetKind() == "RayService" {
			metav1.SetMetaDataLabel(&g.template.ObjectMeta, "ray.io/serve", "true")
		}
		groups = append(groups, g)
	}
	return groups, nil
}

func templateOf(o *unstructured.Unstructured, spec map[string]any, at string) (podGroup, error) {
	var g podGroup
	template, found, err := unstructured.NestedMap(spec, "template")
	if err != nil || !found {
		return g, fmt.Errorf("%s.template is not set: want a pod's template", at)
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(template, &g.template); err != nil {
		return g, fmt.Errorf("%s.template: %w", at, err)
	}
	g.template.Namespace = o.GetNamespace()
	return g, nil
}

// maxReplicas bounds a simulation: each pod is a search.
const maxReplicas = 10_000

// countOf reads a whole number, which manifests in JSON have as a float.
func countOf(spec map[string]any, field string, otherwise int) (int, error) {
	var n int
	switch v := spec[field].(type) {
	case nil:
		return otherwise, nil
	case int64:
		n = int(v)
	case float64:
		n = int(v)
	default:
		return 0, fmt.Errorf("%s is %v: want a whole number", field, v)
	}
	if n < 0 || n > maxReplicas {
		return 0, fmt.Errorf("%s is %d: want 0 to %d", field, n, maxReplicas)
	}
	return n, nil
}

// adoptCluster gives workers the name of the Ray cluster that runs already for
// their RayService or RayJob, so that targets by matchLabelKeys are found.
// KubeRay puts the name of the origin on the cluster's Services, whose selectors
// name the cluster, and not on its pods.
func (c *cluster) adoptCluster(ctx context.Context, groups []podGroup) {
	for i := range groups {
		g := &groups[i]
		if g.origin == "" {
			continue
		}
		services, err := c.client.CoreV1().Services(g.template.Namespace).List(ctx, metav1.ListOptions{LabelSelector: labelRayOrigin + "=" + g.origin})
		if err != nil {
			return // it is only finer
		}
		for j := range services.Items {
			if name := services.Items[j].Spec.Selector[labelRayCluster]; name != "" {
				g.template.Labels[labelRayCluster] = name
			}
		}
	}
}

func readGroupsFrom(file, namespace string, stdin io.Reader) ([]podGroup, error) {
	text, err := readAll(file, stdin)
	if err != nil {
		return nil, err
	}
	groups, err := readGroups(bytes.NewReader(text), namespace)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return groups, nil
}
