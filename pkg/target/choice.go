package target

import (
	"encoding/json"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/netlatency/netlatency/apis/config"
)

// choice is the compiled form of a target: which objects it chooses.
type choice struct {
	pods        labels.Selector       // nil unless pods are chosen
	namespaces  sets.Set[string]      // of the pods
	ofNamespace labels.Selector       // of the pods, besides; nil chooses none
	service     *config.ServiceTarget // gives pods their selector, and namespaces its own
	nodes       labels.Selector       // nil unless nodes are chosen
	resource    corev1.ResourceName   // that the nodes have; empty is no condition
}

func newChoice(t config.Target) (choice, error) {
	switch {
	case t.Pods != nil:
		selector, err := metav1.LabelSelectorAsSelector(t.Pods.LabelSelector)
		if err != nil {
			return choice{}, fmt.Errorf("target %q: pods: labelSelector: %w", t.Name, err)
		}
		c := choice{pods: selector, namespaces: sets.New(t.Pods.Namespaces...)}
		switch {
		case t.Pods.NamespaceSelector != nil:
			if c.ofNamespace, err = metav1.LabelSelectorAsSelector(t.Pods.NamespaceSelector); err != nil {
				return choice{}, fmt.Errorf("target %q: pods: namespaceSelector: %w", t.Name, err)
			}
		case len(t.Pods.Namespaces) == 0:
			c.ofNamespace = labels.Everything()
		}
		return c, nil
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

// For is t as pod wants it: instead of labels to share with the pod it has the
// pod's values of them, and the pod's namespace where none is given. A target
// that is the same for every pod is returned as it is.
func For(t config.Target, pod *corev1.Pod) config.Target {
	if t.Pods == nil || len(t.Pods.MatchLabelKeys) == 0 {
		return t
	}
	pods := t.Pods.DeepCopy()
	for _, key := range pods.MatchLabelKeys {
		if value, ok := pod.Labels[key]; ok {
			pods.LabelSelector.MatchExpressions = append(pods.LabelSelector.MatchExpressions,
				metav1.LabelSelectorRequirement{Key: key, Operator: metav1.LabelSelectorOpIn, Values: []string{value}})
		}
	}
	pods.MatchLabelKeys = nil
	if len(pods.Namespaces) == 0 && pods.NamespaceSelector == nil {
		pods.Namespaces = []string{pod.Namespace}
	}
	t.Pods = pods
	return t
}

// keyOf tells choices apart, whatever else the configuration says of a target.
func keyOf(t config.Target) (string, error) {
	key, err := json.Marshal([]any{t.Pods, t.Nodes, t.Service})
	return string(key), err
}

// pair is a label with its value.
type pair struct{ key, value string }

// required is labels of one key of which selector demands one, so that only pods
// with that need be looked at: the fewest there are, none if it demands none.
func required(selector labels.Selector) (fewest []pair) {
	requirements, _ := selector.Requirements()
	for _, r := range requirements {
		switch r.Operator() {
		case selection.Equals, selection.DoubleEquals, selection.In:
		default:
			continue
		}
		values := r.ValuesUnsorted()
		if fewest != nil && len(values) >= len(fewest) {
			continue
		}
		fewest = nil
		for _, value := range values {
			fewest = append(fewest, pair{r.Key(), value})
		}
	}
	return fewest
}

// IsLookedUp reports whether selector demands a label by which pods that it may
// choose can be found. Without one it is evaluated at each change of any pod.
func IsLookedUp(selector *metav1.LabelSelector) bool {
	s, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && len(required(s)) > 0
}

// placeOfPod is the node on which pod is a replica of the target, or empty.
func (t *Target) placeOfPod(pod *corev1.Pod) string {
	if t.pods == nil || !t.serves(pod) || !t.inNamespace(pod.Namespace) || !t.pods.Matches(labels.Set(pod.Labels)) {
		return ""
	}
	return pod.Spec.NodeName
}

// serves is what makes a pod a ready endpoint of a Service: one on its way out
// gets no new connections although it may still call itself ready. With
// publishNotReadyAddresses every pod with an address does that has not ended
// (podToEndpoint and ShouldPodBeInEndpoints of k8s.io/endpointslice).
func (t *Target) serves(pod *corev1.Pod) bool {
	switch {
	case pod.Spec.NodeName == "" || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed:
		return false
	case t.notReady:
		return len(pod.Status.PodIPs) > 0
	case pod.DeletionTimestamp != nil:
		return false
	}
	i := slices.IndexFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodReady })
	return i >= 0 && pod.Status.Conditions[i].Status == corev1.ConditionTrue
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
