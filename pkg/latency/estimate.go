package latency

import (
	"fmt"
	"slices"
	"time"
)

// Basis says what an Estimate rests on, from nothing to the best.
type Basis uint8

const (
	// Unknown says that nothing is known of the pair; the estimate has no value.
	Unknown Basis = iota
	// Group is the median of the measured pairs between the groups of the two
	// nodes.
	Group
	// Reverse is what was measured from the peer to the node. It is nearly
	// symmetric, because a round trip takes both directions whoever starts it.
	Reverse
	// Measured is what was freshly measured from the node to the peer.
	Measured
	// Local is a node to itself: 0 by definition.
	Local
)

// String names the basis as metrics and messages spell it.
func (b Basis) String() string {
	switch b {
	case Unknown:
		return "unknown"
	case Group:
		return "group"
	case Reverse:
		return "reverse"
	case Measured:
		return "measured"
	case Local:
		return "local"
	}
	return fmt.Sprintf("basis(%d)", uint8(b))
}

// Estimate is the answer for a pair. Latency has no meaning when Basis is
// Unknown.
type Estimate struct {
	Latency time.Duration
	Basis   Basis
}

// NodeGroup is what places a node in the network as far as its labels tell.
// Any part may be empty. Zone names repeat between providers, so the whole
// tuple is the group; the zero value is no group.
type NodeGroup struct{ Provider, Region, Zone string }

// Estimator answers for pairs of nodes from one Matrix, at one time, in terms
// of one Statistic. It is immutable. A nil *Estimator knows nothing but Local.
type Estimator struct {
	matrix     *Matrix
	statistic  Statistic
	staleAfter time.Duration
	now        time.Time
	groups     map[string]NodeGroup
	medians    map[groupPair]time.Duration
}

type groupPair struct{ node, peer NodeGroup }

// NewEstimator prepares estimates from matrix as seen at now. A measurement
// whose newest sample is older than staleAfter does not count; staleAfter of
// 0 lets none grow stale. groups gives the group of each node by name and may
// be nil or lack nodes.
func NewEstimator(matrix *Matrix, statistic Statistic, staleAfter time.Duration, groups map[string]NodeGroup, now time.Time) *Estimator {
	e := &Estimator{
		matrix:     matrix,
		statistic:  statistic,
		staleAfter: staleAfter,
		now:        now,
		groups:     groups,
		medians:    make(map[groupPair]time.Duration),
	}
	between := make(map[groupPair][]time.Duration)
	for pair, d := range matrix.All() {
		if !e.fresh(d) {
			continue
		}
		if key, ok := e.groupsOf(pair.Node, pair.Peer); ok {
			between[key] = append(between[key], statistic.Latency(d))
		}
	}
	for key, values := range between {
		slices.Sort(values)
		e.medians[key] = values[(len(values)-1)/2]
	}
	return e
}

// Matrix is the matrix behind the estimates, nil when there is none.
func (e *Estimator) Matrix() *Matrix {
	if e == nil {
		return nil
	}
	return e.matrix
}

// Estimate answers for a round trip from node to peer with the best basis
// there is.
func (e *Estimator) Estimate(node, peer string) Estimate {
	if node == peer {
		return Estimate{Basis: Local}
	}
	if e == nil {
		return Estimate{}
	}
	if d, ok := e.matrix.Measured(node, peer); ok && e.fresh(d) {
		return Estimate{e.statistic.Latency(d), Measured}
	}
	if d, ok := e.matrix.Measured(peer, node); ok && e.fresh(d) {
		return Estimate{e.statistic.Latency(d), Reverse}
	}
	if key, ok := e.groupsOf(node, peer); ok {
		if median, ok := e.medians[key]; ok {
			return Estimate{median, Group}
		}
		if median, ok := e.medians[groupPair{key.peer, key.node}]; ok {
			return Estimate{median, Group}
		}
	}
	return Estimate{}
}

func (e *Estimator) fresh(d Distribution) bool {
	return d.Samples > 0 && (e.staleAfter == 0 || e.now.Sub(d.Newest) <= e.staleAfter)
}

func (e *Estimator) groupsOf(node, peer string) (groupPair, bool) {
	key := groupPair{e.groups[node], e.groups[peer]}
	return key, key.node != NodeGroup{} && key.peer != NodeGroup{}
}
