package placement

import (
	"math"
	"time"

	"github.com/netlatency/netlatency/pkg/latency"
)

// Unknown is the latency, and the cost, of which nothing is known. It is worse
// than every known one, so that a comparison alone puts it last.
const Unknown time.Duration = math.MaxInt64

// Aggregation makes one latency out of those to a target's replicas.
type Aggregation string

const (
	// Mean weighs every replica alike; it suits load that is spread over all
	// of them. It is also what any other value means.
	Mean Aggregation = "Mean"
	// Nearest is the smallest latency.
	Nearest Aggregation = "Nearest"
	// Worst is the largest latency.
	Worst Aggregation = "Worst"
)

// Replica is where a target runs: Count of it, at least 1, on Node.
type Replica struct {
	Node  string
	Count int
}

// Target is something a pod wants to be near, as it runs at one moment.
type Target struct {
	Name string
	// Weight is the target's share in the cost, relative to the sum over all
	// targets. Below 1 counts as 1.
	Weight      int
	Aggregation Aggregation
	Replicas    []Replica
	// Distribution is which of the replicas count for a node.
	Distribution Distribution
	// ZoneOf is the zone of a node, empty if it has none. Distribution alone
	// needs it; nil says that no node has one.
	ZoneOf func(node string) string
	// MaxRTT is the largest latency from a node that a pod may go to; 0 is no
	// limit.
	MaxRTT time.Duration
	// RejectUnknown extends MaxRTT to nodes from which the latency is unknown.
	RejectUnknown bool
}

// Latencies is the latency from every node to one target. It is immutable.
type Latencies struct {
	target   Target
	latency  []time.Duration // by node; Unknown where it is
	basis    []latency.Basis // by node; the weakest that the latency rests on
	byBasis  [latency.Local + 1]int
	informed bool
}

// MaxReplicaNodes is of how many nodes of a target the latencies are made. Of
// more, every so many-th counts: what a target costs to compute grows with its
// nodes, a pod may wait for it, and a mean over a few hundred is as good as one
// over thousands.
const MaxReplicaNodes = 256

// counted is the replicas of t that latencies are made of.
func (t *Target) counted() []Replica {
	n := len(t.Replicas)
	if n <= MaxReplicaNodes {
		return t.Replicas
	}
	some := make([]Replica, MaxReplicaNodes)
	for i := range some {
		some[i] = t.Replicas[i*n/MaxReplicaNodes]
	}
	return some
}

// NewLatencies computes the latency from every node to those replicas of target
// that it leads to, out of the estimates. Replicas without an estimate are left
// out, and where fewer than half of the replicas have one the latency is
// Unknown: a few near replicas that happen to be measured must not stand for
// all. Worst is Unknown where a single one has none, which may be the worst.
// estimates may be nil.
func NewLatencies(nodes *Nodes, target Target, estimates *latency.Estimator) *Latencies {
	target.Replicas = target.counted()
	l := &Latencies{
		target:  target,
		latency: make([]time.Duration, nodes.Len()),
		basis:   make([]latency.Basis, nodes.Len()),
	}
	sums, reaches := make([]sum, nodes.Len()), target.reaches(nodes)
	places := estimates.Places(nodes.names)
	var column []latency.Estimate
	for _, replica := range target.Replicas {
		column = estimates.To(replica.Node, places, column[:0])
		zone := target.zoneOf(replica.Node)
		for i, e := range column {
			if reaches != nil && !reaches[i].leadsTo(replica.Node, zone) {
				continue
			}
			sums[i].add(e, int64(max(replica.Count, 1)), target.Aggregation)
		}
	}
	for i, s := range sums {
		l.latency[i], l.basis[i] = s.aggregated(target.Aggregation)
		l.byBasis[l.basis[i]]++
		l.informed = l.informed || s.informed
	}
	return l
}

// sum is what the replicas seen so far add up to, for one node.
type sum struct {
	total, known int64 // replicas
	latency      time.Duration
	chosen       latency.Estimate // of Nearest and Worst
	weakest      latency.Basis
	informed     bool
}

func (s *sum) add(e latency.Estimate, count int64, aggregation Aggregation) {
	s.total += count
	if e.Basis == latency.Unknown {
		return
	}
	if s.known == 0 ||
		aggregation == Nearest && e.Latency < s.chosen.Latency ||
		aggregation == Worst && e.Latency > s.chosen.Latency {
		s.chosen = e
	}
	if s.known == 0 || e.Basis < s.weakest {
		s.weakest = e.Basis
	}
	s.known += count
	s.informed = s.informed || e.Basis != latency.Local
	s.latency += e.Latency * time.Duration(count)
}

func (s *sum) aggregated(aggregation Aggregation) (time.Duration, latency.Basis) {
	switch {
	case s.known == 0, 2*s.known < s.total, aggregation == Worst && s.known < s.total:
		return Unknown, latency.Unknown
	case aggregation == Nearest, aggregation == Worst:
		return s.chosen.Latency, s.chosen.Basis
	}
	return s.latency / time.Duration(s.known), s.weakest
}

// Target is what the latencies lead to.
func (l *Latencies) Target() Target { return l.target }

// At is the latency from node i and the weakest basis that it rests on;
// Unknown, both, where it is.
func (l *Latencies) At(i int) (time.Duration, latency.Basis) { return l.latency[i], l.basis[i] }

// ByBasis is the number of nodes of which the latency rests on basis.
func (l *Latencies) ByBasis(basis latency.Basis) int { return l.byBasis[basis] }

// Informed reports whether any pair of nodes is known. Without that only a
// replica's own node has a latency, 0 by definition, which is no ground to
// prefer it.
func (l *Latencies) Informed() bool { return l.informed }
