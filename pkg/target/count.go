package target

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/cache"
)

// count makes the members of t afresh from the listers.
func (x *Index) count(t *Target) {
	if t.service != nil {
		if service, err := x.services.Services(t.service.Namespace).Get(t.service.Name); err == nil {
			t.pods, t.distribution, t.notReady = podSelector(service), distributionOf(service), service.Spec.PublishNotReadyAddresses
		}
	}
	if t.ofNamespace != nil && !t.ofNamespace.Empty() {
		t.selected = make(map[string]bool)
		chosen, _ := x.namespaces.List(t.ofNamespace) // the informers' listers do not fail
		for _, namespace := range chosen {
			t.selected[namespace.Name] = true
		}
	}
	if t.pods != nil {
		x.eachPod(t, func(pod *corev1.Pod) { t.place(podKey(pod), t.placeOfPod(pod)) })
	}
	if t.nodes != nil {
		nodes, _ := x.nodes.List(t.nodes)
		for _, node := range nodes {
			t.place(node.Name, t.placeOfNode(node))
		}
	}
}

// eachPod visits the pods in the namespaces of t.
func (x *Index) eachPod(t *Target, visit func(*corev1.Pod)) {
	if t.ofNamespace != nil && t.ofNamespace.Empty() {
		for _, object := range x.pods.List() {
			if pod, ok := object.(*corev1.Pod); ok {
				visit(pod)
			}
		}
		return
	}
	for namespace := range t.namespaces {
		x.podsIn(namespace, visit)
	}
	for namespace := range t.selected {
		if !t.namespaces.Has(namespace) {
			x.podsIn(namespace, visit)
		}
	}
}

func (x *Index) podsIn(namespace string, visit func(*corev1.Pod)) {
	objects, _ := x.pods.ByIndex(cache.NamespaceIndex, namespace) // the index is there
	for _, object := range objects {
		if pod, ok := object.(*corev1.Pod); ok {
			visit(pod)
		}
	}
}

func (t *Target) inNamespace(namespace string) bool {
	return t.namespaces.Has(namespace) || t.ofNamespace != nil && (t.ofNamespace.Empty() || t.selected[namespace])
}

// placeNamespace counts the pods of a namespace that t has come to choose by
// its labels, or has ceased to.
func (x *Index) placeNamespace(namespace *corev1.Namespace) {
	x.choose(namespace.Name, func(t *Target) bool { return t.ofNamespace.Matches(labels.Set(namespace.Labels)) })
}

func (x *Index) removeNamespace(namespace *corev1.Namespace) {
	x.choose(namespace.Name, func(*Target) bool { return false })
}

func (x *Index) choose(namespace string, chosen func(*Target) bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for t := range x.affected.spaces {
		is := chosen(t)
		if is == t.selected[namespace] {
			continue
		}
		delete(t.selected, namespace)
		if is {
			t.selected[namespace] = true
		}
		changed := false
		x.podsIn(namespace, func(pod *corev1.Pod) {
			changed = x.place(t, podKey(pod), t.placeOfPod(pod)) || changed
		})
		if changed {
			x.changed(t)
		}
	}
}
