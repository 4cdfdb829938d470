package netlatency

import (
	"context"
	"slices"
	"sync"
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
	if c := p.cycleOf(state); c != nil {
		p.scorer.score(c.costs, p.band, scores)
	}
	return nil
}

// scorer rates lists of nodes, and keeps from one cycle to the next what is
// mostly the same: in which order the scheduler lists the nodes, and how they
// score. A cycle of a large cluster takes milliseconds, all cycles the same, and
// of what this package adds to one the most was to find the nodes by name and to
// take logarithms. Cycles of a profile come one after the other, so nobody waits
// for mu.
type scorer struct {
	mu    sync.Mutex
	nodes *placement.Nodes
	// next is, by a node's place among nodes, the place of the one that came
	// after it the last time, and last the place of the one that came first. It
	// is -1 where that is not known.
	next []int32

	costs  *placement.Costs
	best   time.Duration
	scores []int8 // by place, with costs and best
}

// score replaces each of scores by what band says of the node's cost.
func (s *scorer) score(costs *placement.Costs, band placement.Band, scores fwk.NodeScoreList) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.number(costs.Nodes(), scores)
	best := placement.Unknown
	for _, n := range scores {
		if n.Score >= 0 {
			best = min(best, costs.At(int(n.Score)))
		}
	}
	if s.costs != costs || s.best != best {
		s.costs, s.best, s.scores = costs, best, band.Scores(costs, best)
	}
	for i, n := range scores {
		scores[i].Score = placement.UnknownScore
		if n.Score >= 0 {
			scores[i].Score = int64(s.scores[n.Score])
		}
	}
}

// number replaces each of scores by the place of the node, -1 for one that is
// not among nodes. To look at the one that came next the last time takes a
// fraction of the time of finding it by its name: nobody has read the name
// before, and the processor waits for memory. Here it reads two headers of
// strings with the same bytes behind them.
func (s *scorer) number(nodes *placement.Nodes, scores fwk.NodeScoreList) {
	if s.nodes != nodes {
		s.nodes, s.next = nodes, slices.Repeat([]int32{-1}, nodes.Len()+1)
	}
	at := nodes.Len()
	for i := range scores {
		place := s.next[at]
		if place < 0 || nodes.Name(int(place)) != scores[i].Name {
			found, ok := nodes.Index(scores[i].Name)
			if !ok {
				scores[i].Score = -1
				continue
			}
			place = int32(found)
			s.next[at] = place
		}
		scores[i].Score, at = int64(place), int(place)
	}
}
