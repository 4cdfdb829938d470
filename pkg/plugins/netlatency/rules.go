package netlatency

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/sets"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/netlatency/netlatency/apis/config"
	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/placement"
)

// want is a target of the configuration in the terms of the domain.
type want struct {
	placement.Target // without its replicas, which come and go
	statistic        latency.Statistic
}

func newWants(args *config.NetLatencyArgs) []want {
	wants := make([]want, len(args.Targets))
	for i, t := range args.Targets {
		wants[i] = want{
			Target: placement.Target{
				Name:        t.Name,
				Weight:      int(t.Weight),
				Aggregation: placement.Aggregation(t.Aggregation),
			},
			statistic: profileStatistic(args),
		}
		if t.Quantile != nil {
			wants[i].statistic.Quantile = *t.Quantile
		}
	}
	return wants
}

func profileStatistic(args *config.NetLatencyArgs) latency.Statistic {
	return latency.Statistic{TailWeight: args.Statistic.TailWeight, LossPenalty: args.Statistic.LossPenalty.Duration}
}

// rule gives targets to pods.
type rule struct {
	index      int // its place among the rules
	pods       labels.Selector
	namespaces sets.Set[string] // empty is all
	targets    []int            // places among the targets of the configuration
	signature  []fwk.SignFragment
}

// newRules compiles the rules of args. Without any, every pod wants every
// target.
func newRules(args *config.NetLatencyArgs) ([]rule, error) {
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
		var signed []config.Target
		for _, name := range r.Targets {
			at, ok := place[name]
			if !ok {
				return nil, fmt.Errorf("rules[%d].targets: there is no target %q", i, name)
			}
			compiled.targets = append(compiled.targets, at)
			signed = append(signed, args.Targets[at])
		}
		// The order in which a rule names its targets does not matter.
		slices.SortFunc(signed, func(a, b config.Target) int { return strings.Compare(a.Name, b.Name) })
		text, err := json.Marshal(signed)
		if err != nil {
			return nil, fmt.Errorf("sign the targets of rules[%d]: %w", i, err)
		}
		compiled.signature = []fwk.SignFragment{{Key: signatureKey, Value: string(text)}}
		rules = append(rules, compiled)
	}
	return rules, nil
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
