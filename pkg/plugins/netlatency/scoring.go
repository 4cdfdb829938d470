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
	if p.args.AnnotatePlacement {
		c.feasible = make([]string, len(nodes))
		for i, node := range nodes {
			c.feasible[i] = node.Node().Name
		}
	}
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

// Score is the cost of the node in nanoseconds; math.MaxInt64 where it is
// unknown. NormalizeScore makes scores of it.
func (p *NetLatency) Score(ctx context.Context, state fwk.CycleState, _ *corev1.Pod, node fwk.NodeInfo) (score int64, status *fwk.Status) {
	defer func() {
		if p.metrics.survived(ctx, "Score", recover()) {
			score, status = int64(placement.Unknown), nil
		}
	}()
	c := p.cycleOf(state)
	if c == nil {
		return int64(placement.Unknown), nil
	}
	return int64(c.costOf(node.Node())), nil
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
