package netlatency

import (
	"context"
	"slices"
	"sync"
	"time"
	"unsafe"

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
	if c == nil { // no targets, or a profile without PreFilter
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
func (p *NetLatency) NormalizeScore(ctx context.Context, state fwk.CycleState, pod *corev1.Pod, scores fwk.NodeScoreList) *fwk.Status {
	defer func() {
		if p.metrics.survived(ctx, "NormalizeScore", recover()) {
			// A cost that is left in the list would fail the pod.
			for i := range scores {
				scores[i].Score = placement.UnknownScore
			}
		}
	}()
	if c := p.cycleOf(state); c != nil {
		p.competition().observe(state, pod)
		p.scorer.score(c.costs, p.band, scores, p.snapshot)
	}
	return nil
}

// snapshot is all nodes in the order of the scheduler's snapshot; nil if it has
// none.
func (p *NetLatency) snapshot() []fwk.NodeInfo {
	lister := p.handle.SnapshotSharedLister()
	if lister == nil {
		return nil
	}
	infos, err := lister.NodeInfos().List()
	if err != nil {
		return nil
	}
	return infos
}

// scorer rates lists of nodes, and keeps from one cycle to the next what is
// mostly the same: the order of the scheduler's snapshot, which node is the best,
// and how all of them score. In a whole scheduler nothing of all this is in the
// processor's caches when it is needed, so what it costs is how much memory is
// touched, and in which order. Cycles of a profile come one after the other, so
// nobody waits for mu.
type scorer struct {
	mu    sync.Mutex
	nodes *placement.Nodes
	// names is of the nodes in the order of the snapshot, places where they are
	// among nodes, and positions the way back, -1 for a node that is not in it.
	names     []string
	places    []int32
	positions []int32

	costs *placement.Costs
	best  time.Duration
	rated []int8 // by place: the score beside best, or what is told below
}

const (
	// isBest and isBetter stand for MaxScore of nodes that cost as little as
	// best, or less: beside a list with one of the latter, or with none of the
	// former, rated is not what it should be.
	isBest   = int8(placement.MaxScore) + 1
	isBetter = int8(placement.MaxScore) + 2
)

// score replaces each of scores by what band says of the node's cost beside the
// lowest of them. snapshot is all nodes in the scheduler's order.
func (s *scorer) score(costs *placement.Costs, band placement.Band, scores fwk.NodeScoreList, snapshot func() []fwk.NodeInfo) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.nodes != costs.Nodes() {
		s.learn(costs.Nodes(), snapshot())
	}
	if s.costs != costs {
		_, best, _ := costs.Best()
		s.rate(costs, band, best)
	}
	if s.fill(scores) {
		return
	}
	best := placement.Unknown
	for _, n := range scores {
		best = min(best, costs.Of(n.Name))
	}
	s.rate(costs, band, best)
	s.fill(scores)
}

// learn takes over the order of the snapshot.
func (s *scorer) learn(nodes *placement.Nodes, snapshot []fwk.NodeInfo) {
	s.nodes, s.names, s.places = nodes, make([]string, 0, nodes.Len()), make([]int32, 0, nodes.Len())
	s.positions = slices.Repeat([]int32{-1}, nodes.Len())
	for _, info := range snapshot {
		node := info.Node()
		if node == nil {
			continue
		}
		if place, ok := nodes.Index(node.Name); ok {
			s.positions[place] = int32(len(s.names))
			s.names, s.places = append(s.names, node.Name), append(s.places, int32(place))
		}
	}
}

// rate scores all nodes beside best.
func (s *scorer) rate(costs *placement.Costs, band placement.Band, best time.Duration) {
	s.costs, s.best, s.rated = costs, best, band.Scores(costs, best)
	for place := range s.rated {
		switch cost := costs.At(place); {
		case cost == placement.Unknown:
		case cost == best:
			s.rated[place] = isBest
		case cost < best:
			s.rated[place] = isBetter
		}
	}
}

// isSame reports whether a and b are one string in memory. Equal ones may not be.
func isSame(a, b string) bool {
	return len(a) == len(b) && unsafe.StringData(a) == unsafe.StringData(b)
}

// streams is in how many places at once of the snapshot's order nodes are looked
// for.
const streams = 4

// fill replaces each of scores by what is rated, and reports whether the best of
// them is the one beside which all are rated.
//
// The scheduler filters parts of its snapshot in parallel, as many at once as it
// has processors, and lists nodes as they pass: several runs of the snapshot's
// order, interleaved. So it is nearly always one of a few nodes that comes next,
// and which it is can be told by where its name is in memory, which is the same
// for the same object. To find it by the name itself, which nobody has read
// before, takes many times as long; that is left for the start of each run.
func (s *scorer) fill(scores fwk.NodeScoreList) bool {
	found, beaten := s.best == placement.Unknown, false
	var next [streams]int // positions
	oldest := 0
	for i := range scores {
		position := -1
		for stream, at := range next {
			if at < len(s.names) && isSame(s.names[at], scores[i].Name) {
				position = at
				next[stream]++
				break
			}
		}
		var place int
		if position >= 0 {
			place = int(s.places[position])
		} else {
			var ok bool
			if place, ok = s.nodes.Index(scores[i].Name); !ok {
				scores[i].Score = placement.UnknownScore
				continue
			}
			if at := s.positions[place]; at >= 0 {
				next[oldest] = int(at) + 1
				oldest = (oldest + 1) % streams
			}
		}
		score := s.rated[place]
		if score > int8(placement.MaxScore) {
			found, beaten = found || score == isBest, beaten || score == isBetter
			score = int8(placement.MaxScore)
		}
		scores[i].Score = int64(score)
	}
	return found && !beaten
}
