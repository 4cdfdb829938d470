package placement

import (
	"slices"
	"time"

	"github.com/netlatency/netlatency/pkg/latency"
)

// Costs is what a pod with certain targets costs on every node:
//
//	cost(n) = Σ_t w_t · latency(n, t) / Σ_t w_t
//
// over the targets t that run somewhere. A node from which one of them is
// Unknown has an Unknown cost: a sum that lacks a part would make the node
// look near. Costs is immutable, and reading it allocates nothing.
type Costs struct {
	nodes   *Nodes
	targets []*Latencies // those that run somewhere
	missing []string
	cost    []time.Duration
	sorted  []time.Duration // cost in ascending order
	known   int
	best    int // the node with the lowest cost; -1 while none is known
	limits  limits
}

// NewCosts adds up what the pod's targets say, each computed for nodes.
func NewCosts(nodes *Nodes, targets []*Latencies) *Costs {
	c := &Costs{nodes: nodes, cost: make([]time.Duration, nodes.Len()), best: -1, limits: newLimits(nodes, targets)}
	var weights time.Duration
	for _, t := range targets {
		if len(t.target.Replicas) == 0 {
			c.missing = append(c.missing, t.target.Name)
			continue
		}
		c.targets = append(c.targets, t)
		weights += t.weight()
	}
	for i := range c.cost {
		c.cost[i] = c.sum(i, weights)
		if c.cost[i] == Unknown {
			continue
		}
		c.known++
		if c.best < 0 || c.cost[i] < c.cost[c.best] {
			c.best = i
		}
	}
	c.sorted = slices.Clone(c.cost)
	slices.Sort(c.sorted)
	return c
}

func (c *Costs) sum(i int, weights time.Duration) time.Duration {
	if len(c.targets) == 0 {
		return Unknown
	}
	var sum time.Duration
	for _, t := range c.targets {
		if t.latency[i] == Unknown {
			return Unknown
		}
		sum += t.weight() * t.latency[i]
	}
	return sum / weights
}

// weight has the type that multiplies a latency.
func (l *Latencies) weight() time.Duration { return time.Duration(max(l.target.Weight, 1)) }

// Nodes is what the costs are for.
func (c *Costs) Nodes() *Nodes { return c.nodes }

// At is the cost of node i, Unknown where it is.
func (c *Costs) At(i int) time.Duration { return c.cost[i] }

// Of is the cost of the node called name; Unknown where it is, and for a node
// that is not among the candidates.
func (c *Costs) Of(name string) time.Duration {
	i, ok := c.nodes.index[name]
	if !ok {
		return Unknown
	}
	return c.cost[i]
}

// Nearest is the cost of the n-th nearest node, from 1 to the number of nodes;
// Unknown where fewer are known.
func (c *Costs) Nearest(n int) time.Duration { return c.sorted[n-1] }

// Beyond is how many nodes cost more than limit, those of Unknown cost among them;
// none does more than Unknown.
func (c *Costs) Beyond(limit time.Duration) int {
	if limit == Unknown {
		return 0
	}
	within, _ := slices.BinarySearch(c.sorted, limit+1)
	return len(c.sorted) - within
}

// Known is the number of nodes of which the cost is known.
func (c *Costs) Known() int { return c.known }

// Missing names the targets that run nowhere and are left out of the cost, in
// the order in which they were given.
func (c *Costs) Missing() []string { return c.missing }

// Uninformed names the targets that run somewhere, but to which not one pair
// of nodes is known. Costs with such a target tell nodes apart only by
// whether the target happens to run on them.
func (c *Costs) Uninformed() []string {
	var names []string
	for _, t := range c.targets {
		if !t.informed {
			names = append(names, t.target.Name)
		}
	}
	return names
}

// Part is what one target adds to the cost of a node.
type Part struct {
	Target  string
	Weight  int
	Latency time.Duration
	Basis   latency.Basis
}

// Parts says out of what the cost of node i is made, target by target; those
// that run nowhere are not among them.
func (c *Costs) Parts(i int) []Part {
	parts := make([]Part, 0, len(c.targets))
	for _, t := range c.targets {
		parts = append(parts, Part{
			Target:  t.target.Name,
			Weight:  int(t.weight()),
			Latency: t.latency[i],
			Basis:   t.basis[i],
		})
	}
	return parts
}
