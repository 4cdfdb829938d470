package netlatency

import (
	"context"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/apis/core/v1/helper"
	schedulerconfig "k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/names"

	"github.com/netlatency/netlatency/pkg/placement"
)

// Nodes that cannot be chosen need not be rated. Most of what a pod costs a
// scheduler of thousands of nodes is to have all its plugins score each of them,
// although latency has decided most: where all that the others can say is worth
// a doubling or two of the distance, a node that is four times as far as one
// that is free has lost. Filter leaves such nodes out, as soon as it has come to
// the free one, of which it asks the other filters; before these in the profile
// it spares them the rest. That changes no choice: the node that is left out has
// a lower total than the nearest free one, whatever the others say of both, and
// what they say of the rest does not depend on it.
//
// It is done only where all of that is certain, and where it is worth the look
// at each node; all other pods pass Filter as if there were none.

// competition is the profile's other plugins, as far as they matter for who can
// win.
type competition struct {
	// fair says that what they say is known to follow the rules above.
	fair   bool
	weight int64 // of our scores
	// reach is by how much the total of two nodes can differ through others.
	reach  int64
	scores []string // the other plugins that score

	// seen is those of them that had a say about a plain pod; nil before the first
	// was rated. Cycles of a profile come one after the other.
	seen atomic.Pointer[sets.Set[string]]
}

var (
	// local is the plugins whose score of a node does not depend on which others
	// are rated with it.
	local = sets.New(names.NodeResourcesFit, names.NodeResourcesBalancedAllocation, names.ImageLocality)
	// pure is the plugins whose filters say the same when they are asked twice.
	pure = sets.New(Name, names.NodeUnschedulable, names.NodeName, names.TaintToleration, names.NodeAffinity, names.NodePorts,
		names.NodeResourcesFit, names.VolumeRestrictions, names.NodeVolumeLimits, names.VolumeBinding, names.VolumeZone,
		names.PodTopologySpread, names.InterPodAffinity, names.DynamicResources, names.NodeDeclaredFeatures)
)

// minOfEach is how many nodes must be near, and as many far: there is little to
// win where few are left out, and where few are left a batch of alike pods would
// soon be at the end of its ranking.
const minOfEach = 100

// competition is found when it is first asked for: while the plugin is made, the
// profile is not complete.
func (p *NetLatency) competition() *competition {
	p.othersOnce.Do(func() {
		p.others = &competition{}
		profile, ok := p.handle.(interface {
			ListPlugins() *schedulerconfig.Plugins
		})
		if !ok || p.rateAll || len(p.handle.Extenders()) > 0 {
			return
		}
		plugins := profile.ListPlugins()
		for _, s := range plugins.Score.Enabled {
			if s.Name == Name {
				p.others.weight = int64(s.Weight)
				continue
			}
			p.others.scores = append(p.others.scores, s.Name)
			if local.Has(s.Name) {
				p.others.reach += int64(s.Weight) * fwk.MaxScore
			}
		}
		p.others.fair = p.others.weight > 0 &&
			!slices.ContainsFunc(plugins.Filter.Enabled, func(f schedulerconfig.Plugin) bool { return !pure.Has(f.Name) })
	})
	return p.others
}

// observe notes which plugins have a say about a pod, in the cycle of state.
func (f *competition) observe(state fwk.CycleState, pod *corev1.Pod) {
	if !f.fair || !isPlain(pod) {
		return
	}
	seen, skipped := f.seen.Load(), state.GetSkipScorePlugins()
	var more []string
	for _, name := range f.scores {
		if !skipped.Has(name) && (seen == nil || !seen.Has(name)) {
			more = append(more, name)
		}
	}
	if seen != nil && len(more) == 0 {
		return
	}
	all := sets.New(more...)
	if seen != nil {
		all = all.Union(*seen)
	}
	f.seen.Store(&all)
}

// onlyLocal reports whether of a plain pod, as far as is known, only plugins of
// local tell nodes apart.
func (f *competition) onlyLocal(v *view) bool {
	seen := f.seen.Load()
	if seen == nil {
		return false
	}
	for name := range *seen {
		switch {
		case local.Has(name):
		case name == names.TaintToleration && !v.softTaints: // all nodes alike
		case name == names.DynamicResources: // nothing without claims, which plain pods have not
		default:
			return false
		}
	}
	return true
}

// isPlain reports whether nothing in the pod's own template lets other plugins
// prefer one node to another but for its room and its images.
func isPlain(pod *corev1.Pod) bool {
	spec := &pod.Spec
	if len(spec.TopologySpreadConstraints) > 0 || len(spec.ResourceClaims) > 0 {
		return false
	}
	if a := spec.Affinity; a != nil && (a.PodAffinity != nil || a.PodAntiAffinity != nil ||
		a.NodeAffinity != nil && len(a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution) > 0) {
		return false
	}
	for i := range spec.Volumes {
		if spec.Volumes[i].PersistentVolumeClaim != nil || spec.Volumes[i].Ephemeral != nil {
			return false
		}
	}
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			for name := range containers[i].Resources.Requests {
				if !helper.IsNativeResource(name) { // claims may stand for it (KEP-5004)
					return false
				}
			}
		}
	}
	return true
}

// bound is the farthest that a node of one cycle may be to be chosen.
type bound struct {
	points int64 // that a node must lack to have lost

	// The lowest cost of the nodes that are free, as far as Filter has come, and
	// the highest that a node can be chosen at for that.
	free, farthest atomic.Int64
	mu             sync.Mutex
}

// boundFor is the bound of the cycle of pod, nil if every node is to be rated.
func (p *NetLatency) boundFor(state fwk.CycleState, pod *corev1.Pod, c *cycle) *bound {
	f := p.competition()
	if !f.fair || state.IsPodGroupSchedulingCycle() || !isPlain(pod) || !f.onlyLocal(c.view) {
		return nil
	}
	// What is not measured at all is not told apart either.
	if c.view.matrix.Pairs() == 0 || c.costs.Known() == 0 || len(c.costs.Uninformed()) > 0 {
		return nil
	}
	b := &bound{points: f.reach/f.weight + 1}
	if !p.isWorth(c.costs, b.points) {
		return nil
	}
	b.free.Store(math.MaxInt64)
	b.farthest.Store(math.MaxInt64)
	return b
}

// isWorth reports whether many nodes are too far beside the nearest hundred. That
// the very nearest is free, where a target runs, is not to be expected.
func (p *NetLatency) isWorth(costs *placement.Costs, points int64) bool {
	all := costs.Nodes().Len()
	if all < 2*minOfEach {
		return false
	}
	return costs.Beyond(p.band.Farthest(costs.Nearest(minOfEach), points)) >= max(minOfEach, all/8)
}

// isBeyond reports whether a node that costs this has lost.
func (b *bound) isBeyond(cost time.Duration) bool { return int64(cost) > b.farthest.Load() }

// lower notes that a node that costs this is free, beside which none can be chosen
// that costs more than farthest.
func (b *bound) lower(cost, farthest time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if int64(cost) < b.free.Load() {
		b.free.Store(int64(cost))
		b.farthest.Store(int64(farthest))
	}
}

// looking marks the context in which it is looked whether a node is free.
type looking struct{}

// isFree reports whether the pod can go to the node, for good. Filter is asked
// about nodes as they are, but also about nodes without some of their pods, or
// with others that are promised room there: a node that is free then may not be
// in the end. The queue's batches ask about the node that was chosen last, and
// about that without the promises.
func (p *NetLatency) isFree(ctx context.Context, state fwk.CycleState, pod *corev1.Pod, node fwk.NodeInfo) bool {
	name := node.Node().Name
	if last := p.reserved.Load(); ctx.Value(looking{}) != nil || last != nil && *last == name {
		return false
	}
	if of, err := p.handle.SnapshotSharedLister().NodeInfos().Get(name); err != nil || of != node {
		return false
	}
	return p.handle.RunFilterPlugins(context.WithValue(ctx, looking{}, true), state, pod, node).IsSuccess()
}

// reasonOutdone is what nobody reads: a pod for which there is a node to prefer
// has a node.
const reasonOutdone = "node(s) too far to be chosen beside nearer ones that are free"

// outdone is Filter's answer for a node that cannot be chosen, nil for one that
// can.
func (p *NetLatency) outdone(ctx context.Context, state fwk.CycleState, pod *corev1.Pod, b *bound, cost time.Duration, node fwk.NodeInfo) *fwk.Status {
	if b.isBeyond(cost) {
		return fwk.NewStatus(fwk.Unschedulable, reasonOutdone)
	}
	if int64(cost) < b.free.Load() && p.isFree(ctx, state, pod, node) {
		b.lower(cost, p.band.Farthest(cost, b.points))
	}
	return nil
}
