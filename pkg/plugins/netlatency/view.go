package netlatency

import (
	"context"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/placement"
	"github.com/netlatency/netlatency/pkg/target"
)

// view is what is known at one moment, all of it that does not change from pod
// to pod: the nodes, the estimates between them, and what was computed from
// these. It is immutable but for its caches, which fill as targets move.
type view struct {
	matrix *latency.Matrix
	// nodesSynced is whether all nodes were known when the view was made.
	nodesSynced bool
	nodes       *placement.Nodes
	estimates   []*latency.Estimator // by target, one for all of one statistic
	latencies   []atomic.Pointer[targetLatencies]
	costs       []atomic.Pointer[ruleCosts]
}

// targetLatencies is what was computed from one set of a target.
type targetLatencies struct {
	set *target.Set
	*placement.Latencies
}

// ruleCosts is what was computed from the latencies to a rule's targets.
type ruleCosts struct {
	of []*targetLatencies
	*placement.Costs
}

// costsOf is the costs of the rule's targets where sets say that they run.
// What was computed before for the same sets is used again, so that only the
// first pod after a target has moved pays for that target; a new view comes
// with all of it computed.
func (v *view) costsOf(wants []want, r *rule, sets []*target.Set) *placement.Costs {
	if known := v.costs[r.index].Load(); known != nil && known.holdsFor(r, sets) {
		return known.Costs
	}
	now := &ruleCosts{of: make([]*targetLatencies, len(r.targets))}
	columns := make([]*placement.Latencies, len(r.targets))
	for i, at := range r.targets {
		now.of[i] = v.latenciesTo(wants[at], at, sets[at])
		columns[i] = now.of[i].Latencies
	}
	now.Costs = placement.NewCosts(v.nodes, columns)
	v.costs[r.index].Store(now)
	return now.Costs
}

func (c *ruleCosts) holdsFor(r *rule, sets []*target.Set) bool {
	for i, at := range r.targets {
		if c.of[i].set != sets[at] {
			return false
		}
	}
	return true
}

func (v *view) latenciesTo(w want, at int, set *target.Set) *targetLatencies {
	if known := v.latencies[at].Load(); known != nil && known.set == set {
		return known
	}
	t := w.Target
	t.Replicas = set.Replicas
	now := &targetLatencies{set: set, Latencies: placement.NewLatencies(v.nodes, t, v.estimates[at])}
	v.latencies[at].Store(now)
	return now
}

// viewSpacing keeps a stream of changes to nodes, as when a cluster starts,
// from using up a core.
const viewSpacing = 200 * time.Millisecond

// run makes a view after each change of the matrix or of the nodes, and at
// least once in a round of the source: measurements grow stale also when
// nothing is published any more. It returns when ctx ends.
func (p *NetLatency) run(ctx context.Context) {
	round := p.args.Source.Interval()
	for {
		p.metrics.guard(ctx, "view", func(context.Context) { p.renew() })
		if !p.pause(ctx, viewSpacing, nil) || !p.pause(ctx, round, p.wake) {
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
		nodesSynced: p.nodesSynced(),
		estimates:   make([]*latency.Estimator, len(p.wants)),
		latencies:   make([]atomic.Pointer[targetLatencies], len(p.wants)),
		costs:       make([]atomic.Pointer[ruleCosts], len(p.rules)),
	}
	nodes, _ := p.nodes.List(labels.Everything()) // the informers' lister does not fail
	names := make([]string, 0, len(nodes))
	groups := make(map[string]latency.NodeGroup, len(nodes))
	for _, node := range nodes {
		names = append(names, node.Name)
		if group := groupOf(node, p.args.ProviderLabels); group != (latency.NodeGroup{}) {
			groups[node.Name] = group
		}
	}
	v.nodes = placement.NewNodes(names)
	before := p.view.Load()
	byStatistic := make(map[latency.Statistic]*latency.Estimator)
	for i, w := range p.wants {
		e, ok := byStatistic[w.statistic]
		if !ok {
			if before != nil {
				e = before.estimates[i]
			}
			e = e.Next(v.matrix, w.statistic, p.args.StaleAfter.Duration, groups, p.clock.Now())
			byStatistic[w.statistic] = e
		}
		v.estimates[i] = e
	}
	sets := p.targets.Sets()
	for i := range p.rules {
		v.costsOf(p.wants, &p.rules[i], sets)
	}
	p.view.Store(v)
	return v
}

// nodeHandler asks for a new view when a node comes or goes or changes its
// group.
func (p *NetLatency) nodeHandler() cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { wakeUp(p.wake) },
		DeleteFunc: func(any) { wakeUp(p.wake) },
		UpdateFunc: func(before, after any) {
			was, ok1 := before.(*corev1.Node)
			is, ok2 := after.(*corev1.Node)
			if ok1 && ok2 && groupOf(was, p.args.ProviderLabels) != groupOf(is, p.args.ProviderLabels) {
				wakeUp(p.wake)
			}
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
