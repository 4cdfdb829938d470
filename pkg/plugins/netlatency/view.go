package netlatency

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/placement"
	"github.com/netlatency/netlatency/pkg/target"
	"github.com/netlatency/netlatency/pkg/topology"
)

// view is what is known at one moment, all of it that does not change from pod
// to pod: the nodes, the estimates between them, and what was computed from
// these. It is immutable but for what it keeps, which fills as pods ask and
// targets move.
type view struct {
	matrix *latency.Matrix
	made   time.Time
	// nodesSynced is whether all nodes were known when the view was made.
	nodesSynced bool
	nodes       *placement.Nodes
	// places is where in nodes each object is that the view was made of. The
	// scheduler has the same objects, but for nodes that have changed since. By
	// its name a node takes several times as long to find in a large cluster:
	// nobody has read the name before, and the processor waits for memory.
	places     map[*corev1.Node]int32
	groups     map[string]latency.NodeGroup
	staleAfter time.Duration
	// softTaints is whether a node has a taint that pods only prefer to avoid.
	softTaints bool

	mu        sync.Mutex // held to look and to note, never to compute
	estimates map[latency.Statistic]*latency.Estimator
	latencies map[*want]*targetLatencies
	costs     map[*demand]*demandCosts
	uses      uint64 // of costs
}

// maxKept bounds what a view keeps of demands beyond those of rules: each takes
// some 100 kB in a cluster of 5000 nodes.
const maxKept = 256

// targetLatencies is what was computed from one set of a target.
type targetLatencies struct {
	set *target.Set
	*placement.Latencies
}

// demandCosts is what was computed from the latencies to a demand's targets.
type demandCosts struct {
	of []*targetLatencies
	*placement.Costs
	used uint64 // which of the view's uses was the last; 0 is none
}

// costsOf is the costs of what d wants, where that runs now. What was computed
// before for the same sets is used again, so that only the first pod after a
// target has moved pays for that target; a new view comes with the demands of
// rules computed.
func (v *view) costsOf(d *demand) *placement.Costs {
	v.mu.Lock()
	known := v.costs[d]
	v.uses++
	use := v.uses
	if known != nil {
		known.used = use
	}
	v.mu.Unlock()
	if known != nil && known.current(d) {
		return known.Costs
	}
	return v.compute(d, use)
}

// costsOfRules computes what pods of rules cost, as far as it is not at hand.
func (v *view) costsOfRules(rules []rule) {
	for i := range rules {
		if same := rules[i].same; same != nil {
			v.costsOf(same)
		}
	}
}

func (v *view) compute(d *demand, use uint64) *placement.Costs {
	now := &demandCosts{of: make([]*targetLatencies, len(d.wants)), used: use}
	columns := make([]*placement.Latencies, len(d.wants))
	for i, w := range d.wants {
		now.of[i] = v.latenciesTo(w)
		columns[i] = now.of[i].Latencies
	}
	now.Costs = placement.NewCosts(v.nodes, columns)
	v.mu.Lock()
	defer v.mu.Unlock()
	if kept := v.costs[d]; kept == nil {
		v.makeRoom()
	} else { // somebody has asked meanwhile
		now.used = max(now.used, kept.used)
	}
	v.costs[d] = now
	return now.Costs
}

// makeRoom drops the costs that nobody has asked for the longest, of demands
// beyond those of rules, if there are as many as are kept. v.mu is held.
func (v *view) makeRoom() {
	var oldest *demand
	others := 0
	for d, c := range v.costs {
		if d.ofRule {
			continue
		}
		if others++; oldest == nil || c.used < v.costs[oldest].used {
			oldest = d
		}
	}
	if others < maxKept {
		return
	}
	delete(v.costs, oldest)
	for _, w := range oldest.wants {
		if !w.ofRule {
			delete(v.latencies, w)
		}
	}
}

// warm computes what pods have asked the view before for, beyond what a new view
// comes with: the first pod after must not wait for it.
func (v *view) warm(before *view) {
	if before == nil || before == v {
		return
	}
	before.mu.Lock()
	asked := make([]*demand, 0, len(before.costs))
	for d, c := range before.costs {
		if !d.ofRule && c.used > 0 {
			asked = append(asked, d)
		}
	}
	before.mu.Unlock()
	for _, d := range asked {
		v.mu.Lock()
		known := v.costs[d]
		v.mu.Unlock()
		if known == nil {
			v.compute(d, 0)
		}
	}
}

// current reports whether all targets are where they were.
func (c *demandCosts) current(d *demand) bool {
	for i, w := range d.wants {
		if c.of[i].set != w.runs.Set() {
			return false
		}
	}
	return true
}

func (v *view) latenciesTo(w *want) *targetLatencies {
	set := w.runs.Set()
	v.mu.Lock()
	known := v.latencies[w]
	v.mu.Unlock()
	if known != nil && known.set == set {
		return known
	}
	t := w.Target
	t.Replicas, t.Distribution, t.ZoneOf = set.Replicas, set.Distribution, v.zoneOf
	now := &targetLatencies{set: set, Latencies: placement.NewLatencies(v.nodes, t, v.estimatesBy(w.statistic))}
	v.mu.Lock()
	v.latencies[w] = now
	v.mu.Unlock()
	return now
}

func (v *view) zoneOf(node string) string { return v.groups[node].Zone }

// coverage is the newest latencies to the targets of rules, by name.
func (v *view) coverage(rules []rule) map[string]*placement.Latencies {
	v.mu.Lock()
	defer v.mu.Unlock()
	coverage := make(map[string]*placement.Latencies)
	for _, r := range rules {
		if r.same == nil {
			continue
		}
		for _, w := range r.same.wants {
			if known := v.latencies[w]; known != nil {
				coverage[w.Name] = known.Latencies
			}
		}
	}
	return coverage
}

// estimatesBy is the estimates in terms of a statistic. There are four at
// most: that of the profile, and one for each quantile.
func (v *view) estimatesBy(s latency.Statistic) *latency.Estimator {
	v.mu.Lock()
	known := v.estimates[s]
	v.mu.Unlock()
	if known != nil {
		return known
	}
	e := latency.NewEstimator(v.matrix, s, v.staleAfter, v.groups, v.made)
	v.mu.Lock()
	v.estimates[s] = e
	v.mu.Unlock()
	return e
}

// A stream of changes to nodes, as when a cluster starts, must not use up a
// core: a view is not followed by another before viewSpacing, nor before
// viewRest times as long as it took, a round at most.
const (
	viewSpacing = 200 * time.Millisecond
	viewRest    = 9
)

// run makes a view after each change of the matrix or of the nodes, and at
// least once in a round of the source: measurements grow stale also when
// nothing is published any more. It returns when ctx ends.
func (p *NetLatency) run(ctx context.Context) {
	round := p.args.Source.Interval()
	for {
		began := p.clock.Now()
		p.metrics.guard(ctx, "view", func(context.Context) {
			before := p.view.Load()
			p.renew().warm(before)
		})
		spacing := max(viewSpacing, min(viewRest*p.clock.Since(began), round))
		if !p.pause(ctx, spacing, nil) || !p.pause(ctx, round, p.wake) {
			return
		}
	}
}

// pause waits for d or for wake; it returns false if ctx ended.
func (p *NetLatency) pause(ctx context.Context, d time.Duration, wake <-chan struct{}) bool {
	timer := p.clock.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C():
	case <-wake:
	}
	return true
}

// current is the newest view. At the start the first pods must not be placed
// blind because they came a moment before the view with all nodes, or with the
// first matrix: then it is made here.
func (p *NetLatency) current() *view {
	v := p.view.Load()
	if v != nil && (v.nodesSynced || !p.nodesSynced()) && (v.matrix != nil || p.feed.matrix.Load() == nil) {
		return v
	}
	return p.renew()
}

// renew makes the view of this moment, with the costs of every rule.
func (p *NetLatency) renew() *view {
	p.viewing.Lock()
	defer p.viewing.Unlock()
	v := &view{
		matrix:      p.feed.matrix.Load(),
		made:        p.clock.Now(),
		nodesSynced: p.nodesSynced(),
		staleAfter:  p.args.StaleAfter.Duration,
		estimates:   make(map[latency.Statistic]*latency.Estimator),
		latencies:   make(map[*want]*targetLatencies),
		costs:       make(map[*demand]*demandCosts),
	}
	nodes, _ := p.nodes.List(labels.Everything()) // the informers' lister does not fail
	names := make([]string, 0, len(nodes))
	v.groups = make(map[string]latency.NodeGroup, len(nodes))
	for _, node := range nodes {
		names = append(names, node.Name)
		v.softTaints = v.softTaints || hasSoftTaint(node)
		if group := topology.GroupOf(node, p.args.ProviderLabels); group != (latency.NodeGroup{}) {
			v.groups[node.Name] = group
		}
	}
	v.nodes = placement.NewNodes(names)
	v.places = make(map[*corev1.Node]int32, len(nodes))
	for _, node := range nodes {
		if i, ok := v.nodes.Index(node.Name); ok {
			v.places[node] = int32(i)
		}
	}
	// Also by what pods have asked for besides: the first pod after must not
	// wait for the estimates.
	if before := p.view.Load(); before != nil {
		for _, statistic := range before.statistics() {
			v.estimates[statistic] = before.estimatesBy(statistic).Next(v.matrix, statistic, v.staleAfter, v.groups, v.made)
		}
	}
	v.costsOfRules(p.rules)
	p.view.Store(v)
	// Those who wait are looked through after the view can be seen.
	wakeUp(p.moved)
	return v
}

func (v *view) statistics() []latency.Statistic {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Collect(maps.Keys(v.estimates))
}

func hasSoftTaint(node *corev1.Node) bool {
	return slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.Effect == corev1.TaintEffectPreferNoSchedule })
}

// nodeHandler asks for a new view when a node comes or goes or changes its
// group, or a taint that matters.
func (p *NetLatency) nodeHandler(ctx context.Context) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { wakeUp(p.wake) },
		DeleteFunc: func(any) { wakeUp(p.wake) },
		UpdateFunc: func(before, after any) {
			was, ok1 := before.(*corev1.Node)
			is, ok2 := after.(*corev1.Node)
			p.metrics.guard(ctx, "nodes", func(context.Context) {
				if ok1 && ok2 && (hasSoftTaint(was) != hasSoftTaint(is) ||
					topology.GroupOf(was, p.args.ProviderLabels) != topology.GroupOf(is, p.args.ProviderLabels)) {
					wakeUp(p.wake)
				}
			})
		},
	}
}

func wakeUp(wake chan<- struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// guard runs what a goroutine of the plugin is for. A panic there would end
// the scheduler; so the goroutine ends, what it kept current grows stale, and
// the plugin becomes neutral, which the metrics tell.
func (m *profileMetrics) guard(ctx context.Context, what string, run func(context.Context)) {
	defer func() { m.survived(ctx, what, recover()) }()
	run(ctx)
}

// survived counts and logs a recovered panic; it returns false for nil.
func (m *profileMetrics) survived(ctx context.Context, what string, panicked any) bool {
	if panicked == nil {
		return false
	}
	m.panics.WithLabelValues(m.profile, what).Inc()
	klog.FromContext(ctx).Error(nil, "Recovered from a panic; network latency is left out where it struck. Please report this", "in", what, "panic", panicked)
	return true
}
