package netlatency

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/netlatency/netlatency/apis/config"
	"github.com/netlatency/netlatency/pkg/target"
)

// rule gives targets to pods.
type rule struct {
	index      int // its place among the rules
	pods       labels.Selector
	namespaces sets.Set[string] // empty is all
	targets    []config.Target
	// same is the demand of every pod of the rule; nil if it differs by shared,
	// labels that targets have in common with the pod.
	same   *demand
	shared []string
}

// newRules compiles the rules of args. Without any, every pod wants every
// target.
func newRules(args *config.NetLatencyArgs, index *target.Index) ([]rule, error) {
	place := make(map[string]int, len(args.Targets))
	all := make([]string, 0, len(args.Targets))
	for i, t := range args.Targets {
		place[t.Name] = i
		all = append(all, t.Name)
	}
	given := args.Rules
	if len(given) == 0 && len(all) > 0 {
		given = []config.Rule{{Targets: all}}
	}
	wants := make([]*want, len(args.Targets)) // shared by the rules
	rules := make([]rule, 0, len(given))
	for i, r := range given {
		selector := labels.Everything()
		if r.PodSelector != nil {
			var err error
			if selector, err = metav1.LabelSelectorAsSelector(r.PodSelector); err != nil {
				return nil, fmt.Errorf("rules[%d].podSelector: %w", i, err)
			}
		}
		compiled := rule{index: i, pods: selector, namespaces: sets.New(r.Namespaces...)}
		same := make([]*want, 0, len(r.Targets))
		for _, name := range r.Targets {
			at, ok := place[name]
			if !ok {
				return nil, fmt.Errorf("rules[%d].targets: there is no target %q", i, name)
			}
			compiled.targets = append(compiled.targets, args.Targets[at])
			if wants[at] == nil {
				wants[at] = newWant(args, args.Targets[at], index.Configured(at))
				wants[at].ofRule = true
			}
			same = append(same, wants[at])
		}
		if compiled.shared = sharedLabels(compiled.targets); len(compiled.shared) == 0 {
			var err error
			if compiled.same, err = newDemand(same, compiled.targets); err != nil {
				return nil, fmt.Errorf("rules[%d]: %w", i, err)
			}
			compiled.same.ofRule = true
		}
		rules = append(rules, compiled)
	}
	return rules, nil
}

// sharedLabels is the labels of which targets have the values of the pod.
func sharedLabels(targets []config.Target) []string {
	var keys []string
	for _, t := range targets {
		if t.Pods != nil {
			keys = append(keys, t.Pods.MatchLabelKeys...)
		}
	}
	return keys
}

// ruleFor is the first rule that matches the pod, nil if none does.
func (p *NetLatency) ruleFor(pod *corev1.Pod) *rule {
	for i := range p.rules {
		r := &p.rules[i]
		if (len(r.namespaces) == 0 || r.namespaces.Has(pod.Namespace)) && r.pods.Matches(labels.Set(pod.Labels)) {
			return r
		}
	}
	return nil
}
