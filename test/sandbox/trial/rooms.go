package trial

import (
	"context"
	"fmt"
	"math"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	resourcehelper "k8s.io/component-helpers/resource"
	"k8s.io/klog/v2"
)

// rooms lists how many workers of a RayService each node has room for, next
// to the pods that are not its workers, and the nodes whose pods request more
// than they have.
func (t *trial) rooms(ctx context.Context, key types.NamespacedName) (places []Place, overcommitted []string, err error) {
	workers, err := t.Cluster.Workers(ctx, key)
	if err != nil {
		return nil, nil, err
	}
	if len(workers) == 0 {
		return nil, nil, fmt.Errorf("RayService %s has no workers", key)
	}
	isWorker := make(map[types.UID]bool)
	for _, w := range workers {
		isWorker[w.UID] = true
	}
	nodes, err := t.Cluster.Client().CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, nil, err
	}
	pods, err := t.Cluster.Client().CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, nil, err
	}
	all, others := make(map[string]corev1.ResourceList), make(map[string]corev1.ResourceList)
	for i := range pods.Items {
		p := &pods.Items[i]
		if p.Spec.NodeName == "" || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
			continue
		}
		add(all, p)
		if !isWorker[p.UID] {
			add(others, p)
		}
	}
	worker := requests(workers[0])
	for _, n := range nodes.Items {
		if n.Spec.Unschedulable || !tolerated(&n, workers[0]) {
			continue
		}
		slots := math.MaxInt
		for name, each := range worker {
			if each.IsZero() {
				continue
			}
			free := n.Status.Allocatable[name].DeepCopy() // by value: Sub changes it
			free.Sub(others[n.Name][name])
			slots = min(slots, max(0, int(free.MilliValue()/each.MilliValue())))
		}
		places = append(places, Place{Node: n.Name, Slots: slots})
	}
	for _, n := range nodes.Items {
		for name, used := range all[n.Name] {
			if used.Cmp(n.Status.Allocatable[name]) > 0 {
				overcommitted = append(overcommitted, fmt.Sprintf("%s: %s of %s %s", n.Name, used.String(), n.Status.Allocatable.Name(name, used.Format).String(), name))
			}
		}
	}
	return places, overcommitted, nil
}

// requests are what a pod takes of a node, its place among the pods included.
func requests(p *corev1.Pod) corev1.ResourceList {
	list := resourcehelper.PodRequests(p, resourcehelper.PodResourcesOptions{})
	list[corev1.ResourcePods] = resource.MustParse("1")
	return list
}

func add(to map[string]corev1.ResourceList, p *corev1.Pod) {
	list := to[p.Spec.NodeName]
	if list == nil {
		list = corev1.ResourceList{}
		to[p.Spec.NodeName] = list
	}
	for name, q := range requests(p) {
		sum := list[name]
		sum.Add(q)
		list[name] = sum
	}
}

// tolerated reports whether the pod may be placed on the node as far as taints
// go.
func tolerated(n *corev1.Node, p *corev1.Pod) bool {
	for _, taint := range n.Spec.Taints {
		if taint.Effect == corev1.TaintEffectPreferNoSchedule {
			continue
		}
		ok := false
		for _, toleration := range p.Spec.Tolerations {
			ok = ok || toleration.ToleratesTaint(klog.Background(), &taint, false)
		}
		if !ok {
			return false
		}
	}
	return true
}
