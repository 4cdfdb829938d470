package placement

import "time"

// Explanation is why a pod is on its node, as far as latency goes.
type Explanation struct {
	Node string
	// Cost of the node, Unknown where it is, and the Parts it is made of.
	Cost  time.Duration
	Parts []Part
	// Best is the node with the lowest cost of all, whether the pod could go
	// there or not, the first by name among equals. It is empty where no cost
	// is known, and BestCost Unknown.
	Best     string
	BestCost time.Duration
	// Rank is 1 + the number of nodes that cost less, of the Of nodes that the
	// pod could go to. Both are 0 where these are not known.
	Rank, Of int
}

// Explain says what the node called name costs and how it stands against
// others: against all, and against feasible, the nodes that the pod could go
// to, which may be nil.
func (c *Costs) Explain(name string, feasible []string) Explanation {
	e := Explanation{Node: name, Cost: c.Of(name)}
	if i, ok := c.nodes.index[name]; ok {
		e.Parts = c.Parts(int(i))
	}
	e.Best, e.BestCost, _ = c.Best()
	if len(feasible) > 0 {
		e.Rank, e.Of = 1, len(feasible)
		for _, other := range feasible {
			if c.Of(other) < e.Cost {
				e.Rank++
			}
		}
	}
	return e
}

// Best is the node with the lowest cost and that cost; ok is false where no
// cost is known.
func (c *Costs) Best() (name string, cost time.Duration, ok bool) {
	if c.best < 0 {
		return "", Unknown, false
	}
	return c.nodes.names[c.best], c.cost[c.best], true
}
