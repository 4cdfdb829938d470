package target

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/netlatency/netlatency/apis/config"
)

// choice is the compiled form of a target: which objects it chooses.
type choice struct {
	pods       labels.Selector       // nil unless pods are chosen
	namespaces sets.Set[string]      // of the pods; empty is all
	service    *config.ServiceTarget // gives pods their selector, and namespaces its own
	nodes      labels.Selector       // nil unless nodes are chosen
	resource   corev1.ResourceName   // that the nodes have; empty is no condition
}

func newChoice(t config.Target) (choice, error) {
	switch {
	case t.Pods != nil:
		selector, err := metav1.LabelSelectorAsSelector(t.Pods.LabelSelector)
		if err != nil {
			return choice{}, fmt.Errorf("target %q: pods: labelSelector: %w", t.Name, err)
		}
		return choice{pods: selector, namespaces: sets.New(t.Pods.Namespaces...)}, nil
	case t.Service != nil:
		return choice{pods: labels.Nothing(), namespaces: sets.New(t.Service.Namespace), service: t.Service}, nil
	case t.Nodes != nil:
		selector := labels.Everything()
		if t.Nodes.LabelSelector != nil {
			var err error
			if selector, err = metav1.LabelSelectorAsSelector(t.Nodes.LabelSelector); err != nil {
				return choice{}, fmt.Errorf("target %q: nodes: labelSelector: %w", t.Name, err)
			}
		}
		return choice{nodes: selector, resource: corev1.ResourceName(t.Nodes.Resource)}, nil
	}
	return choice{}, fmt.Errorf("target %q chooses nothing: set one of pods, nodes and service", t.Name)
}

// placeOfPod is the node on which pod is a replica of the target, or empty.
func (c choice) placeOfPod(pod *corev1.Pod) string {
	if c.pods == nil || !ready(pod) || len(c.namespaces) > 0 && !c.namespaces.Has(pod.Namespace) || !c.pods.Matches(labels.Set(pod.Labels)) {
		return ""
	}
	return pod.Spec.NodeName
}

// ready is what an endpoint of a Service would be: a pod on its way out gets
// no new connections although it may still call itself ready.
func ready(pod *corev1.Pod) bool {
	if pod.Spec.NodeName == "" || pod.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return false
	}
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

// placeOfNode is the node's own name if it is chosen, or empty.
//
// A cordoned node stays chosen: what runs there serves on, cordoning only
// turns new pods away. A node that is not ready, or is being deleted, answers
// nobody; one without the condition has never been reported on, and what it
// offers is taken at its word.
func (c choice) placeOfNode(node *corev1.Node) string {
	if c.nodes == nil || node.DeletionTimestamp != nil || !c.nodes.Matches(labels.Set(node.Labels)) {
		return ""
	}
	if c.resource != "" {
		if quantity := node.Status.Allocatable[c.resource]; quantity.Sign() <= 0 {
			return ""
		}
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady && condition.Status != corev1.ConditionTrue {
			return ""
		}
	}
	return node.Name
}
