package target

import (
	"slices"

	"k8s.io/apimachinery/pkg/types"
)

// affected says which targets an event may change, so that thousands of targets
// cost an event of a pod no more than those that its labels may choose.
type affected struct {
	pairs    map[pair]map[*Target]bool // choose pods with this label, or some others of its key
	anyPod   map[*Target]bool          // choose pods by other things than labels they must have
	nodes    map[*Target]bool
	services map[types.NamespacedName]map[*Target]bool
	spaces   map[*Target]bool     // choose namespaces by label
	counting map[string][]*Target // by key of a pod: those that count it
}

func newAffected() affected {
	return affected{
		pairs:    make(map[pair]map[*Target]bool),
		anyPod:   make(map[*Target]bool),
		nodes:    make(map[*Target]bool),
		services: make(map[types.NamespacedName]map[*Target]bool),
		spaces:   make(map[*Target]bool),
		counting: make(map[string][]*Target),
	}
}

// add takes t up by its choice as it is now; remove before the choice changes.
func (a *affected) add(t *Target) {
	switch {
	case t.nodes != nil:
		a.nodes[t] = true
		return
	case t.service != nil:
		insert(a.services, serviceName(t), t)
		if t.pods.String() == "" { // chooses nothing
			return
		}
	}
	labels := required(t.pods)
	for _, label := range labels {
		insert(a.pairs, label, t)
	}
	if len(labels) == 0 {
		a.anyPod[t] = true
	}
	if t.ofNamespace != nil && !t.ofNamespace.Empty() {
		a.spaces[t] = true
	}
}

func (a *affected) remove(t *Target) {
	delete(a.nodes, t)
	delete(a.anyPod, t)
	delete(a.spaces, t)
	if t.service != nil {
		drop(a.services, serviceName(t), t)
	}
	if t.pods != nil {
		for _, label := range required(t.pods) {
			drop(a.pairs, label, t)
		}
	}
}

// of is the targets that may choose, or that count, the pod called key.
func (a *affected) of(key string, labels map[string]string) []*Target {
	targets := slices.Clone(a.counting[key])
	for name, value := range labels {
		for t := range a.pairs[pair{name, value}] {
			targets = append(targets, t)
		}
	}
	for t := range a.anyPod {
		targets = append(targets, t)
	}
	return targets
}

// note and forget say that t counts, or no longer, the pod called key.
func (a *affected) note(t *Target, key string) {
	if t.pods != nil && !slices.Contains(a.counting[key], t) {
		a.counting[key] = append(a.counting[key], t)
	}
}

func (a *affected) forget(t *Target, key string) {
	counting := a.counting[key]
	i := slices.Index(counting, t)
	switch {
	case i < 0:
	case len(counting) == 1:
		delete(a.counting, key)
	default:
		a.counting[key] = slices.Delete(counting, i, i+1)
	}
}

func insert[K comparable](m map[K]map[*Target]bool, key K, t *Target) {
	if m[key] == nil {
		m[key] = make(map[*Target]bool)
	}
	m[key][t] = true
}

func drop[K comparable](m map[K]map[*Target]bool, key K, t *Target) {
	if delete(m[key], t); len(m[key]) == 0 {
		delete(m, key)
	}
}
