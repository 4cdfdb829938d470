package netlatency

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/netlatency/netlatency/pkg/placement"
)

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
	c := p.cycleOf(state)
	if c == nil { // no limit has made PreFilter look already
		c = p.prepare(state, pod)
	}
	if c == nil {
		p.metrics.scorings[outcomeNoTargets].Inc()
		return fwk.NewStatus(fwk.Skip)
	}
	if outcome := outcomeOf(c, nodes); outcome != outcomeScored {
		p.metrics.scorings[outcome].Inc()
		reason, note := p.note(outcome, c.demand, c.costs)
		p.announce(pod, reason, note)
		return fwk.NewStatus(fwk.Skip)
	}
	p.metrics.scorings[outcomeScored].Inc()
	c.feasible = nodes
	return nil
}

// outcomeOf says whether costs tell the nodes apart, and if not, what lacks.
func outcomeOf(c *cycle, nodes []fwk.NodeInfo) outcome {
	switch {
	case c.view.matrix.Pairs() == 0:
		return outcomeNoData
	case len(c.costs.Missing()) == len(c.demand.wants):
		return outcomeNoReplicas
	case c.costs.Known() == 0 || len(c.costs.Uninformed()) > 0:
		return outcomeNoData
	}
	for _, node := range nodes {
		if c.costOf(node.Node()) != placement.Unknown {
			return outcomeScored
		}
	}
	return outcomeNoData
}

// Score says nothing: NormalizeScore writes all scores at once. A node's cost
// takes five times as long to find between the calls of other plugins, which
// leave nothing of ours in the processor's caches, as it takes in a row.
func (*NetLatency) Score(context.Context, fwk.CycleState, *corev1.Pod, fwk.NodeInfo) (int64, *fwk.Status) {
	return placement.UnknownScore, nil
}

// ScoreExtensions returns the plugin itself.
func (p *NetLatency) ScoreExtensions() fwk.ScoreExtensions { return p }

// NormalizeScore rates the costs of the nodes that the pod can go to against
// the best of them.
func (p *NetLatency) NormalizeScore(ctx context.Context, state fwk.CycleState, _ *corev1.Pod, scores fwk.NodeScoreList) *fwk.Status {
	defer func() {
		if p.metrics.survived(ctx, "NormalizeScore", recover()) {
			// A cost that is left in the list would fail the pod.
			for i := range scores {
				scores[i].Score = placement.UnknownScore
			}
		}
	}()
	c := p.cycleOf(state)
	if c == nil {
		return nil
	}
	best := placement.Unknown
	for i := range scores {
		cost := c.costAt(i, scores[i].Name)
		scores[i].Score, best = int64(cost), min(best, cost)
	}
	for i := range scores {
		scores[i].Score = p.band.Score(time.Duration(scores[i].Score), best)
	}
	return nil
}
