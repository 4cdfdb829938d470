package netlatency

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/netlatency/netlatency/pkg/placement"
)

const preScoreStateKey = "PreScore" + Name

// preScoreState is what PreScore leaves for Score and NormalizeScore.
type preScoreState struct{ costs *placement.Costs }

// Clone returns the same state: it never changes.
func (s *preScoreState) Clone() fwk.StateData { return s }

// cycle is a scheduling cycle and its costs. Score recognises its cycle by the
// identity of the CycleState: to look the state up by its key would allocate
// and take longer than all the rest, 5000 times in a large cluster.
type cycle struct {
	state fwk.CycleState
	costs *placement.Costs
}

// PreScore finds the pod's targets and the costs of all nodes, which are
// mostly at hand. It returns Skip, and so leaves the choice to other plugins,
// when the pod has no targets or nothing is known that could tell the nodes
// apart.
func (p *NetLatency) PreScore(ctx context.Context, state fwk.CycleState, pod *corev1.Pod, nodes []fwk.NodeInfo) (status *fwk.Status) {
	defer func() {
		if p.metrics.survived(ctx, "PreScore", recover()) {
			status = fwk.NewStatus(fwk.Skip)
		}
	}()
	rule := p.ruleFor(pod)
	if rule == nil {
		p.metrics.scorings[outcomeNoTargets].Inc()
		return fwk.NewStatus(fwk.Skip)
	}
	view := p.current()
	costs := view.costsOf(p.wants, rule, p.targets.Sets())
	if outcome := outcomeOf(view, rule, costs, nodes); outcome != outcomeScored {
		p.metrics.scorings[outcome].Inc()
		p.announce(pod, outcome, rule, costs)
		return fwk.NewStatus(fwk.Skip)
	}
	p.metrics.scorings[outcomeScored].Inc()
	state.Write(preScoreStateKey, &preScoreState{costs: costs})
	p.cycle.Store(&cycle{state: state, costs: costs})
	return nil
}

// outcomeOf says whether costs tell the nodes apart, and if not, what lacks.
func outcomeOf(view *view, rule *rule, costs *placement.Costs, nodes []fwk.NodeInfo) outcome {
	switch {
	case view.matrix.Pairs() == 0:
		return outcomeNoData
	case len(costs.Missing()) == len(rule.targets):
		return outcomeNoReplicas
	case costs.Known() == 0 || len(costs.Uninformed()) > 0:
		return outcomeNoData
	}
	for _, node := range nodes {
		if costs.Of(node.Node().Name) != placement.Unknown {
			return outcomeScored
		}
	}
	return outcomeNoData
}

// Score is the cost of the node in nanoseconds; math.MaxInt64 where it is
// unknown. NormalizeScore makes scores of it.
func (p *NetLatency) Score(ctx context.Context, state fwk.CycleState, _ *corev1.Pod, node fwk.NodeInfo) (score int64, status *fwk.Status) {
	defer func() {
		if p.metrics.survived(ctx, "Score", recover()) {
			score, status = int64(placement.Unknown), nil
		}
	}()
	costs := p.costsIn(state)
	if costs == nil {
		return int64(placement.Unknown), nil
	}
	return int64(costs.Of(node.Node().Name)), nil
}

func (p *NetLatency) costsIn(state fwk.CycleState) *placement.Costs {
	if c := p.cycle.Load(); c != nil && c.state == state {
		return c.costs
	}
	// Another cycle has begun since, or this is a clone of the state.
	data, err := state.Read(preScoreStateKey)
	if err != nil {
		return nil
	}
	if s, ok := data.(*preScoreState); ok {
		return s.costs
	}
	return nil
}

// ScoreExtensions returns the plugin itself.
func (p *NetLatency) ScoreExtensions() fwk.ScoreExtensions { return p }

// NormalizeScore rates the costs against the best of the nodes that the pod
// can go to.
func (p *NetLatency) NormalizeScore(ctx context.Context, _ fwk.CycleState, _ *corev1.Pod, scores fwk.NodeScoreList) *fwk.Status {
	defer func() {
		if p.metrics.survived(ctx, "NormalizeScore", recover()) {
			// A cost that is left in the list would fail the pod.
			for i := range scores {
				scores[i].Score = placement.UnknownScore
			}
		}
	}()
	best := placement.Unknown
	for i := range scores {
		best = min(best, time.Duration(scores[i].Score))
	}
	for i := range scores {
		scores[i].Score = p.band.Score(time.Duration(scores[i].Score), best)
	}
	return nil
}
