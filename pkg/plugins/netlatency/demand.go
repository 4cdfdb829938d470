package netlatency

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/utils/lru"

	"github.com/netlatency/netlatency/apis/config"
	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/placement"
	"github.com/netlatency/netlatency/pkg/target"
)

// want is a target as a pod wants to be near it, in the terms of the domain.
type want struct {
	placement.Target // without its replicas, which come and go
	statistic        latency.Statistic
	runs             *target.Target
	ofRule           bool // lasts as long as the plugin
	// What Filter says of a node that is beyond the limit, or from which the
	// latency is unknown. Reasons hold no measured value: the scheduler counts
	// nodes by reason, and each of 5000 would be one of its own.
	beyond, unknown []string
}

func newWant(args *config.NetLatencyArgs, t config.Target, runs *target.Target) *want {
	w := &want{
		Target: placement.Target{
			Name:        t.Name,
			Weight:      int(t.Weight),
			Aggregation: placement.Aggregation(t.Aggregation),
		},
		statistic: profileStatistic(args),
		runs:      runs,
	}
	if t.Quantile != nil {
		w.statistic.Quantile = *t.Quantile
	}
	if t.MaxRTT != nil {
		w.MaxRTT = t.MaxRTT.Duration
		w.RejectUnknown = t.WhenUnknown == config.UnknownReject
		w.beyond = []string{fmt.Sprintf("node(s) beyond maxRTT %v of target %s", w.MaxRTT, t.Name)}
		w.unknown = []string{fmt.Sprintf("node(s) with an unknown RTT to target %s, which has maxRTT %v", t.Name, w.MaxRTT)}
	}
	return w
}

func profileStatistic(args *config.NetLatencyArgs) latency.Statistic {
	return latency.Statistic{TailWeight: args.Statistic.TailWeight, LossPenalty: args.Statistic.LossPenalty.Duration}
}

// demand is what a pod wants to be near. It is immutable, and the same one for
// pods that want the same, so that what is computed for it is kept by its
// address.
type demand struct {
	wants     []*want
	limited   bool
	ofRule    bool // of every pod of a rule; lasts as long as the plugin
	signature []fwk.SignFragment
}

// newDemand makes a demand of wants, which targets resolved for the pod spell
// out.
func newDemand(wants []*want, targets []config.Target) (*demand, error) {
	d := &demand{wants: wants}
	for _, w := range wants {
		d.limited = d.limited || w.MaxRTT > 0
	}
	// The order in which targets are named does not matter.
	signed := slices.SortedFunc(slices.Values(targets), func(a, b config.Target) int { return strings.Compare(a.Name, b.Name) })
	text, err := json.Marshal(signed)
	if err != nil {
		return nil, fmt.Errorf("sign the targets: %w", err)
	}
	d.signature = []fwk.SignFragment{{Key: signatureKey, Value: string(text)}}
	return d, nil
}

// refusal is Filter's answer for a node on which the verdict is not Within.
func (d *demand) refusal(verdict placement.Verdict) *fwk.Status {
	at, isUnknown := verdict.Refusal()
	reasons := d.wants[at].beyond
	if isUnknown {
		reasons = d.wants[at].unknown
	}
	// Evicting pods brings no node nearer. A status of its own for each node:
	// the framework writes into it.
	return fwk.NewStatus(fwk.UnschedulableAndUnresolvable, reasons...)
}

func (d *demand) names() []string {
	names := make([]string, 0, len(d.wants))
	for _, w := range d.wants {
		names = append(names, w.Name)
	}
	return names
}

// The demands that are kept beyond those of rules: by annotation, or by labels
// that a target shares with the pod. Each keeps its targets current.
const maxDemands = 4096

// demands is the demands that differ from pod to pod, those used last.
type demands struct {
	args  *config.NetLatencyArgs
	index *target.Index
	texts *lru.Cache // *near by text of the annotation

	mu    sync.Mutex // so that one demand is not made twice
	byKey *lru.Cache // *demand by key
}

func newDemands(args *config.NetLatencyArgs, index *target.Index) *demands {
	return &demands{args: args, index: index, texts: lru.New(maxDemands), byKey: lru.NewWithEvictionFunc(maxDemands, func(_ lru.Key, value any) {
		for _, w := range value.(*demand).wants {
			index.Release(w.runs)
		}
	})}
}

// demandFor is what the pod wants to be near; nil is nothing. fault says what
// is wrong with its annotation, instead of which its rule counts. It looks at
// nothing but the pod and the configuration.
func (p *NetLatency) demandFor(pod *corev1.Pod) (d *demand, fault error) {
	if text, ok := pod.Annotations[nearAnnotation]; ok {
		n := p.demands.parse(text)
		if n.fault == nil {
			d, fault = p.demands.of(text, n.targets, n.shared, pod)
		} else {
			fault = n.fault
		}
		if fault == nil {
			return d, nil
		}
	}
	rule := p.ruleFor(pod)
	switch {
	case rule == nil:
		return nil, fault
	case rule.same != nil:
		return rule.same, fault
	}
	d, err := p.demands.of(fmt.Sprintf("rules[%d]", rule.index), rule.targets, rule.shared, pod)
	if err != nil {
		return nil, err // selectors were checked at the start
	}
	return d, fault
}

// of is the demand of pod for targets, which what tells from others, and which
// differ by namespace and the values of the labels shared.
func (ds *demands) of(what string, targets []config.Target, shared []string, pod *corev1.Pod) (*demand, error) {
	if len(targets) == 0 {
		return nil, nil
	}
	var key strings.Builder
	key.WriteString(pod.Namespace + "\n" + what)
	for _, label := range shared {
		if value, ok := pod.Labels[label]; ok {
			key.WriteString("\n" + label + "=" + value)
		}
	}
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if known, ok := ds.byKey.Get(key.String()); ok {
		return known.(*demand), nil
	}
	d, err := ds.newDemand(targets, pod)
	if err == nil {
		ds.byKey.Add(key.String(), d)
	}
	return d, err
}

func (ds *demands) newDemand(targets []config.Target, pod *corev1.Pod) (d *demand, err error) {
	resolved := make([]config.Target, 0, len(targets))
	wants := make([]*want, 0, len(targets))
	defer func() {
		if err != nil {
			for _, w := range wants {
				ds.index.Release(w.runs)
			}
		}
	}()
	for _, t := range targets {
		t = target.For(inNamespaceOf(pod, t), pod)
		runs, err := ds.index.Follow(t)
		if err != nil {
			return nil, err
		}
		resolved = append(resolved, t)
		wants = append(wants, newWant(ds.args, t, runs))
	}
	return newDemand(wants, resolved)
}
