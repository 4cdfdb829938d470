package netlatency

import (
	"container/list"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/utils/clock"
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

// What is kept of demands beyond those of rules: by annotation, or by labels
// that a target shares with the pod. Each target is kept current, with an entry
// for each pod that it selects, so it is targets that are counted.
const (
	maxFollowed = 4096
	maxTexts    = 4096 // of annotations
)

// idleDemand is how long a demand is kept that nobody asks for: as long as its
// targets are current they take memory, and a Prometheus is asked about all of
// their nodes. The scheduler tries a pod again after five minutes at the latest
// (podMaxInUnschedulablePodsDuration), so one that is pending keeps its demand.
const idleDemand = 10 * time.Minute

// demandSweep is the time between two looks for idle demands.
const demandSweep = time.Minute

// demands is the demands that differ from pod to pod. Who asks for one holds mu
// to look and to note, never while the index is called: SignPod asks under the
// lock of the scheduling queue. Targets are let go by one goroutine.
type demands struct {
	args  *config.NetLatencyArgs
	index *target.Index
	clock clock.PassiveClock
	idle  time.Duration
	texts *lru.Cache // *near by text of the annotation
	// wake asks the goroutine to look: there is a first demand, or one to let
	// go.
	wake chan struct{}

	mu       sync.Mutex
	byKey    map[demandKey]*list.Element
	order    *list.List // of *keptDemand, the one asked for last in front
	followed int        // targets of the demands in order
	dropped  []*demand  // to be let go
}

// demandKey tells demands apart.
type demandKey struct{ namespace, what, shared string }

type keptDemand struct {
	key    demandKey
	demand *demand
	asked  time.Time // for the last time
}

func newDemands(args *config.NetLatencyArgs, index *target.Index, clock clock.PassiveClock) *demands {
	return &demands{
		args: args, index: index, clock: clock, texts: lru.New(maxTexts),
		// Pods that wait for a limit ask when there is a new view, within a few
		// rounds of the source at most.
		idle:  max(idleDemand, 3*args.Source.Interval()),
		wake:  make(chan struct{}, 1),
		byKey: make(map[demandKey]*list.Element),
		order: list.New(),
	}
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
	var values strings.Builder
	for _, label := range shared {
		if value, ok := pod.Labels[label]; ok {
			values.WriteString(label + "=" + value + "\n")
		}
	}
	key := demandKey{pod.Namespace, what, values.String()}
	if d := ds.known(key); d != nil {
		return d, nil
	}
	d, err := ds.newDemand(targets, pod)
	if err != nil {
		return nil, err
	}
	return ds.keep(key, d), nil
}

// known is the demand that is kept for key, nil without; it has been asked for.
func (ds *demands) known(key demandKey) *demand {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	return ds.ask(key)
}

func (ds *demands) ask(key demandKey) *demand {
	e, ok := ds.byKey[key]
	if !ok {
		return nil
	}
	ds.order.MoveToFront(e)
	kept := e.Value.(*keptDemand)
	kept.asked = ds.clock.Now()
	return kept.demand
}

// keep makes room for d and keeps it, unless another was kept for key
// meanwhile; it returns the one that counts.
func (ds *demands) keep(key demandKey, d *demand) *demand {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if known := ds.ask(key); known != nil {
		ds.letGo(d)
		return known
	}
	ds.byKey[key] = ds.order.PushFront(&keptDemand{key: key, demand: d, asked: ds.clock.Now()})
	if ds.order.Len() == 1 {
		wakeUp(ds.wake)
	}
	for ds.followed += len(d.wants); ds.followed > maxFollowed && ds.order.Len() > 1; {
		ds.drop(ds.order.Back())
	}
	return d
}

// drop keeps a demand no longer. Who still has it reads from its targets where
// they last were.
func (ds *demands) drop(e *list.Element) {
	kept := ds.order.Remove(e).(*keptDemand)
	delete(ds.byKey, kept.key)
	ds.followed -= len(kept.demand.wants)
	ds.letGo(kept.demand)
}

func (ds *demands) letGo(d *demand) {
	ds.dropped = append(ds.dropped, d)
	wakeUp(ds.wake)
}

// release lets go of what is no longer kept, and of what has long not been asked
// for; it returns whether any demand is left.
func (ds *demands) release() (left bool) {
	ds.mu.Lock()
	now := ds.clock.Now()
	for e := ds.order.Back(); e != nil && now.Sub(e.Value.(*keptDemand).asked) >= ds.idle; e = ds.order.Back() {
		ds.drop(e)
	}
	left = ds.order.Len() > 0
	dropped := ds.dropped
	ds.dropped = nil
	ds.mu.Unlock()
	for _, d := range dropped {
		for _, w := range d.wants {
			ds.index.Release(w.runs)
		}
	}
	return left
}

// forget releases demands as they are dropped or grow idle. It returns when ctx
// ends.
func (p *NetLatency) forget(ctx context.Context) {
	for {
		left := true
		p.metrics.guard(ctx, "demands", func(context.Context) { left = p.demands.release() })
		if left && !p.pause(ctx, demandSweep, p.demands.wake) {
			return
		}
		if !left {
			select {
			case <-ctx.Done():
				return
			case <-p.demands.wake:
			}
		}
	}
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
