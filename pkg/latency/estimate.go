package latency

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Basis says what an Estimate rests on, from nothing to the best.
type Basis uint8

const (
	// Unknown says that nothing is known of the pair; the estimate has no value.
	Unknown Basis = iota
	// Group is the median of the measured pairs between the groups of the two
	// nodes, plus the nodes' offsets: by how much each of them differs from its
	// group. The groups are those of the labels; for nodes without any they
	// are found from what was measured.
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

// Estimate is the answer for a pair. Latency and Error have no meaning when
// Basis is Unknown.
type Estimate struct {
	// Latency is the round-trip time in terms of the Estimator's Statistic.
	Latency time.Duration
	// Error is the error bar: the pair's latency is expected within Latency ±
	// Error in nine cases of ten. Of a Measured or Reverse estimate it tells
	// how sure the mean of so many samples is; of a Group estimate how far
	// pairs like this one were missed by groups and offsets when they were
	// held back. It is 0 for Local.
	Error time.Duration
	Basis Basis
}

// NodeGroup is what places a node in the network as far as its labels tell.
// Any part may be empty. Zone names repeat between providers, so the whole
// tuple is the group; the zero value is no group.
type NodeGroup struct{ Provider, Region, Zone string }

// Estimator answers for pairs of nodes from one Matrix, at one time, in terms
// of one Statistic. It is immutable, and safe for concurrent use. A nil
// *Estimator knows nothing but Local.
//
// What foresees pairs that were not measured is fitted when one of those is
// asked for, or with the Estimator if one was asked of that before it: where
// all that matters is measured, which is so where every node probes the nodes
// of targets, nobody pays for it.
type Estimator struct {
	matrix *Matrix
	links  *links
	model  func() *model // nil if nothing was measured
	asked  atomic.Bool   // for a pair that was not measured
	found  atomic.Pointer[found]
}

// NewEstimator prepares estimates from matrix as seen at now. A measurement
// whose newest sample is older than staleAfter does not count; staleAfter of
// 0 lets none grow stale. groups gives the group of each node by name and may
// be nil or lack nodes.
func NewEstimator(matrix *Matrix, statistic Statistic, staleAfter time.Duration, groups map[string]NodeGroup, now time.Time) *Estimator {
	return (*Estimator)(nil).Next(matrix, statistic, staleAfter, groups, now)
}

// Next prepares estimates as NewEstimator does, for less: the groups that e
// found for nodes without labels are kept, for up to five minutes, while the
// nodes and their labels are the same and the groups foresee what is measured
// now nearly as well. Nothing else of e has a part in the estimates. e may be
// nil; groups must not change any more.
func (e *Estimator) Next(matrix *Matrix, statistic Statistic, staleAfter time.Duration, groups map[string]NodeGroup, now time.Time) *Estimator {
	l := newLinks(matrix, statistic, groups, func(d *Distribution) bool {
		return d.Samples > 0 && (staleAfter == 0 || now.Sub(d.Newest) <= staleAfter)
	})
	next := &Estimator{matrix: matrix, links: l}
	if e != nil && slices.Equal(e.links.names, l.names) {
		next.found.Store(e.found.Load())
	}
	next.model = sync.OnceValue(func() *model {
		m := newModel(l, groups, next.found.Load(), now)
		if m != nil {
			next.found.Store(m.found)
		}
		return m
	})
	if e != nil && e.asked.Load() {
		next.model()
	}
	return next
}

// Matrix is the matrix behind the estimates, nil when there is none.
func (e *Estimator) Matrix() *Matrix {
	if e == nil {
		return nil
	}
	return e.matrix
}

// Estimate answers for a round trip from node to peer with the best basis
// there is. Who asks for many nodes asks To.
func (e *Estimator) Estimate(node, peer string) Estimate {
	if node == peer {
		return Estimate{Basis: Local}
	}
	if e == nil {
		return Estimate{}
	}
	i, known := e.links.index[node]
	if !known {
		return Estimate{}
	}
	j, known := e.links.index[peer]
	if !known {
		return Estimate{}
	}
	if k := e.links.out.find(i, j); k != nil {
		return k.estimate(Measured)
	}
	if k := e.links.out.find(j, i); k != nil {
		return k.estimate(Reverse)
	}
	return e.foreseen(i, j)
}

func (k *link) estimate(basis Basis) Estimate {
	return Estimate{Latency: time.Duration(k.value), Error: time.Duration(k.error), Basis: basis}
}

// foreseen is what the model says; Unknown if there is none.
func (e *Estimator) foreseen(i, j int32) Estimate {
	if !e.asked.Load() {
		e.asked.Store(true)
	}
	m := e.model()
	if m == nil {
		return Estimate{}
	}
	latency, deviation, ok := m.estimate(i, j)
	if !ok {
		return Estimate{}
	}
	return Estimate{
		Latency: time.Duration(math.Round(math.Min(latency, float64(MaxRTT)))),
		Error:   time.Duration(math.Round(math.Min(m.bar*deviation, float64(MaxRTT)))),
		Basis:   Group,
	}
}

// Places finds nodes by name once, for many calls of To.
func (e *Estimator) Places(nodes []string) Places {
	p := Places{names: nodes, at: make([]int32, len(nodes))}
	for k, name := range nodes {
		p.at[k] = -1
		if e != nil {
			if i, ok := e.links.index[name]; ok {
				p.at[k] = i
			}
		}
	}
	return p
}

// Places is where the nodes of a list are in an Estimator.
type Places struct {
	names []string
	at    []int32 // -1 for a node that the Estimator does not know
}

// To answers for the round trips from each of the nodes to peer, as Estimate
// does, but all at once: what is common to them is looked up once. The
// estimates come in the order of nodes, which must be places of e; they are
// appended to into.
func (e *Estimator) To(peer string, nodes Places, into []Estimate) []Estimate {
	start := len(into)
	into = append(into, make([]Estimate, len(nodes.at))...)
	estimates := into[start:]
	j, known := int32(-1), false
	if e != nil {
		j, known = e.links.index[peer]
	}
	if !known {
		for k, name := range nodes.names {
			if name == peer {
				estimates[k].Basis = Local
			}
		}
		return into
	}
	// Where what was measured is, one further than its place: above 0 in what
	// the nodes measured of the peer, below in what the peer measured of them.
	in, out := e.links.in.row(j), e.links.out.row(j)
	measured := make([]int32, len(e.links.names))
	for at := range out {
		measured[out[at].peer] = -int32(at) - 1
	}
	for at := range in {
		measured[in[at].peer] = int32(at) + 1
	}
	for k, i := range nodes.at {
		switch {
		case i == j:
			estimates[k].Basis = Local
		case i < 0:
		case measured[i] > 0:
			estimates[k] = in[measured[i]-1].estimate(Measured)
		case measured[i] < 0:
			estimates[k] = out[-measured[i]-1].estimate(Reverse)
		default:
			estimates[k] = e.foreseen(i, j)
		}
	}
	return into
}
