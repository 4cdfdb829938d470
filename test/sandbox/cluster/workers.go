package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
)

// Labels KubeRay writes.
const (
	labelRayCluster  = "ray.io/cluster"
	labelRayNodeType = "ray.io/node-type"
	labelRayOwner    = "ray.io/originated-from-cr-name"
)

var (
	rayVersion  = schema.GroupVersion{Group: "ray.io", Version: "v1"}
	rayServices = rayVersion.WithResource("rayservices")
	rayClusters = rayVersion.WithResource("rayclusters")
)

// ApplyRayService creates or updates a RayService.
func (c *Cluster) ApplyRayService(ctx context.Context, r *RayService) error {
	return c.ApplyObjects(ctx, r.object)
}

// ScaleRayService sets the replicas of the first worker group as Ray's
// autoscaler does: on the RayCluster that serves. (KubeRay ignores replicas
// that change on the RayService.) There must be a RayCluster already.
func (c *Cluster) ScaleRayService(ctx context.Context, key types.NamespacedName, workers int) error {
	if err := c.scaleRayService(ctx, key, workers); err != nil {
		return fmt.Errorf("scale RayService %s to %d workers: %w", key, workers, err)
	}
	return nil
}

func (c *Cluster) scaleRayService(ctx context.Context, key types.NamespacedName, workers int) error {
	service, err := c.dynamic.Resource(rayServices).Namespace(key.Namespace).Get(ctx, key.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	name, _, _ := unstructured.NestedString(service.Object, "status", "activeServiceStatus", "rayClusterName")
	if name == "" {
		name, _, _ = unstructured.NestedString(service.Object, "status", "pendingServiceStatus", "rayClusterName")
	}
	if name == "" {
		return errors.New("it has no RayCluster yet")
	}
	clusters := c.dynamic.Resource(rayClusters).Namespace(key.Namespace)
	return retry.RetryOnConflict(retry.DefaultRetry, func() error {
		cluster, err := clusters.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		groups, err := workerGroups(cluster, "spec", "workerGroupSpecs")
		if err != nil {
			return err
		}
		setReplicas(groups[0].(map[string]any), int64(workers))
		if err := unstructured.SetNestedSlice(cluster.Object, groups, "spec", "workerGroupSpecs"); err != nil {
			return err
		}
		_, err = clusters.Update(ctx, cluster, metav1.UpdateOptions{})
		return err
	})
}

// WaitRayServiceRunning waits until the RayService reports that it serves and
// that no second RayCluster is pending.
func (c *Cluster) WaitRayServiceRunning(ctx context.Context, key types.NamespacedName) error {
	client := c.dynamic.Resource(rayServices).Namespace(key.Namespace)
	return watchObjects(ctx, c, fmt.Sprintf("RayService %s", key), listWatch(client, "metadata.name="+key.Name, ""), &unstructured.Unstructured{},
		func(found []*unstructured.Unstructured) string {
			if len(found) == 0 {
				return "it does not exist"
			}
			status, _, _ := unstructured.NestedString(found[0].Object, "status", "serviceStatus")
			pending, _, _ := unstructured.NestedString(found[0].Object, "status", "pendingServiceStatus", "rayClusterName")
			if status == "Running" && pending == "" {
				return ""
			}
			conditions, _, _ := unstructured.NestedSlice(found[0].Object, "status", "conditions")
			return fmt.Sprintf("serviceStatus %q, pending RayCluster %q, conditions %v", status, pending, conditions)
		})
}

// Workers returns the worker pods of a RayService, in the order of their
// names.
func (c *Cluster) Workers(ctx context.Context, key types.NamespacedName) ([]*corev1.Pod, error) {
	selector, err := c.podSelector(ctx, key, "worker")
	if err != nil || selector == "" {
		return nil, err
	}
	list, err := c.client.CoreV1().Pods(key.Namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return nil, fmt.Errorf("list workers of RayService %s: %w", key, err)
	}
	pods := make([]*corev1.Pod, 0, len(list.Items))
	for i := range list.Items {
		pods = append(pods, &list.Items[i])
	}
	return sortPods(pods), nil
}

// WaitWorkersBound waits until a RayService has exactly n workers, all with a
// node, and returns them in the order of their names. The pods are shared:
// they must not be modified.
func (c *Cluster) WaitWorkersBound(ctx context.Context, key types.NamespacedName, n int) ([]*corev1.Pod, error) {
	var selector string
	err := c.poll(ctx, fmt.Sprintf("the RayCluster of RayService %s", key), func(ctx context.Context) string {
		var err error
		if selector, err = c.podSelector(ctx, key, "worker"); err != nil {
			return err.Error()
		}
		if selector == "" {
			return "KubeRay has created none"
		}
		return ""
	})
	if err != nil {
		return nil, err
	}
	var bound []*corev1.Pod
	err = watchObjects(ctx, c, fmt.Sprintf("%d workers of RayService %s", n, key), c.podListWatch(key.Namespace, selector), &corev1.Pod{},
		func(pods []*corev1.Pod) string {
			bound = bound[:0]
			var leaving int
			var unplaced []string
			for _, p := range sortPods(pods) {
				switch {
				case p.DeletionTimestamp != nil:
					leaving++
				case p.Spec.NodeName == "":
					unplaced = append(unplaced, p.Name+whyUnplaced(p))
				default:
					bound = append(bound, p)
				}
			}
			if len(bound) == n && len(unplaced) == 0 && leaving == 0 {
				return ""
			}
			missing := fmt.Sprintf("%d bound, %d without a node, %d being deleted", len(bound), len(unplaced), leaving)
			if len(unplaced) > 0 {
				missing += "; first: " + unplaced[0]
			}
			return missing
		})
	return bound, err
}

// DeleteRayService deletes a RayService and waits until its pods are gone.
func (c *Cluster) DeleteRayService(ctx context.Context, key types.NamespacedName) error {
	selector, err := c.podSelector(ctx, key, "")
	if err != nil {
		return err
	}
	client := c.dynamic.Resource(rayServices).Namespace(key.Namespace)
	if err := client.Delete(ctx, key.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete RayService %s: %w", key, err)
	}
	err = watchObjects(ctx, c, fmt.Sprintf("the end of RayService %s", key), listWatch(client, "metadata.name="+key.Name, ""), &unstructured.Unstructured{},
		func(left []*unstructured.Unstructured) string {
			if len(left) == 0 {
				return ""
			}
			return "it still exists"
		})
	if err != nil || selector == "" {
		return err
	}
	return watchObjects(ctx, c, fmt.Sprintf("the end of the pods of RayService %s", key), c.podListWatch(key.Namespace, selector), &corev1.Pod{},
		func(left []*corev1.Pod) string {
			if len(left) == 0 {
				return ""
			}
			return fmt.Sprintf("%d are left", len(left))
		})
}

// podSelector selects the pods of all RayClusters of a RayService, those of one
// node type ("head" or "worker") or with "" of both. It is "" while there is no RayCluster.
func (c *Cluster) podSelector(ctx context.Context, key types.NamespacedName, nodeType string) (string, error) {
	list, err := c.dynamic.Resource(rayClusters).Namespace(key.Namespace).List(ctx, metav1.ListOptions{
		LabelSelector: labels.Set{labelRayOwner: key.Name}.String(),
	})
	if err != nil {
		return "", fmt.Errorf("list RayClusters of RayService %s: %w", key, err)
	}
	if len(list.Items) == 0 {
		return "", nil
	}
	selector := &metav1.LabelSelector{
		MatchExpressions: []metav1.LabelSelectorRequirement{{Key: labelRayCluster, Operator: metav1.LabelSelectorOpIn}},
	}
	if nodeType != "" {
		selector.MatchLabels = map[string]string{labelRayNodeType: nodeType}
	}
	for _, cluster := range list.Items {
		selector.MatchExpressions[0].Values = append(selector.MatchExpressions[0].Values, cluster.GetName())
	}
	return metav1.FormatLabelSelector(selector), nil
}

// whyUnplaced is what the scheduler wrote about a pod, if it did.
func whyUnplaced(p *corev1.Pod) string {
	for _, condition := range p.Status.Conditions {
		if condition.Type == corev1.PodScheduled && condition.Status == corev1.ConditionFalse {
			return fmt.Sprintf(" (scheduler %s: %s)", p.Spec.SchedulerName, condition.Message)
		}
	}
	return fmt.Sprintf(" (scheduler %s has not tried)", p.Spec.SchedulerName)
}

func sortPods(pods []*corev1.Pod) []*corev1.Pod {
	slices.SortFunc(pods, func(a, b *corev1.Pod) int { return cmp.Compare(a.Name, b.Name) })
	return pods
}
