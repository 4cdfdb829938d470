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
}

// Latencies is the latency from every node to one target. It is immutable.
type Latencies struct {
	target   Target
	latency  []time.Duration // by node; Unknown where it is
	basis    []latency.Basis // by node; the weakest that the latency rests on
	informed bool
}

// NewLatencies computes the latency from every node to target out of the
// estimates. Replicas without an estimate are left out, and where fewer than
// half of the replicas have one the latency is Unknown: a few near replicas
// that happen to be measured must not stand for all. estimates may be nil.
func NewLatencies(nodes *Nodes, target Target, estimates *latency.Estimator) *Latencies {
	l := &Latencies{
		target:  target,
		latency: make([]time.Duration, nodes.Len()),
		basis:   make([]latency.Basis, nodes.Len()),
	}
	for i, node := range nodes.names {
		l.latency[i], l.basis[i] = l.from(node, estimates)
	}
	return l
}

func (l *Latencies) from(node string, estimates *latency.Estimator) (time.Duration, latency.Basis) {
	var (
		total, known int64
		sum          time.Duration
		chosen       latency.Estimate // of Nearest and Worst
		weakest      = latency.Local
	)
	for _, replica := range l.target.Replicas {
		count := int64(max(replica.Count, 1))
		total += count
		e := estimates.Estimate(node, replica.Node)
		if e.Basis == latency.Unknown {
			continue
		}
		first := known == 0
		known += count
		l.informed = l.informed || e.Basis != latency.Local
		weakest = min(weakest, e.Basis)
		sum += e.Latency * time.Duration(count)
		if first ||
			l.target.Aggregation == Nearest && e.Latency < chosen.Latency ||
			l.target.Aggregation == Worst && e.Latency > chosen.Latency {
			chosen = e
		}
	}
	if known == 0 || 2*known < total {
		return Unknown, latency.Unknown
	}
	switch l.target.Aggregation {
	case Nearest, Worst:
		return chosen.Latency, chosen.Basis
	}
	return sum / time.Duration(known), weakest
}

// Target is what the latencies lead to.
func (l *Latencies) Target() Target { return l.target }

// At is the latency from node i and the weakest basis that it rests on;
// Unknown, both, where it is.
func (l *Latencies) At(i int) (time.Duration, latency.Basis) { return l.latency[i], l.basis[i] }

// Informed reports whether any pair of nodes is known. Without that only a
// replica's own node has a latency, 0 by definition, which is no ground to
// prefer it.
func (l *Latencies) Informed() bool { return l.informed }
