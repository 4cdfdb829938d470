package trial

import (
	"cmp"
	"slices"
	"time"
)

// Place is a node as a place for workers.
type Place struct {
	Node string
	// Slots is how many workers have room there.
	Slots int
	// Cost is the true cost of a worker there; Known is false where the
	// network tells nothing of it, and then nothing ought to be there.
	Cost  time.Duration
	Known bool
}

// Optimum is the cheapest way to place a number of like workers.
type Optimum struct {
	// Cost is the mean cost of a worker.
	Cost time.Duration
	// Near are the nodes that the optimum may use: those that cost no more
	// than its most expensive slot, give or take the band.
	Near map[string]bool
}

// Solve finds the optimum for workers on the places. Workers are alike, so
// filling the cheapest slots first solves the assignment problem exactly. ok
// is false when there are not enough slots.
func Solve(places []Place, workers int, band func(best time.Duration) time.Duration) (o Optimum, ok bool) {
	known := slices.DeleteFunc(slices.Clone(places), func(p Place) bool { return !p.Known || p.Slots <= 0 })
	slices.SortStableFunc(known, func(a, b Place) int { return cmp.Compare(a.Cost, b.Cost) })
	var sum, last time.Duration
	left := workers
	for _, p := range known {
		if left == 0 {
			break
		}
		n := min(left, p.Slots)
		sum += time.Duration(n) * p.Cost
		last = p.Cost
		left -= n
	}
	if left > 0 || workers == 0 {
		return Optimum{}, false
	}
	o = Optimum{Cost: sum / time.Duration(workers), Near: make(map[string]bool)}
	for _, p := range known {
		if p.Cost <= last+band(known[0].Cost) {
			o.Near[p.Node] = true
		}
	}
	return o, true
}

// MeanCost is the mean cost of workers at the given nodes. ok is false when
// there are none, or one is where the network tells nothing.
func MeanCost(places []Place, workers []string) (time.Duration, bool) {
	cost := make(map[string]time.Duration)
	for _, p := range places {
		if p.Known {
			cost[p.Node] = p.Cost
		}
	}
	var sum time.Duration
	for _, node := range workers {
		c, ok := cost[node]
		if !ok {
			return 0, false
		}
		sum += c
	}
	if len(workers) == 0 {
		return 0, false
	}
	return sum / time.Duration(len(workers)), true
}

// NearShare is the share of workers on the near nodes.
func (o Optimum) NearShare(workers []string) float64 {
	if len(workers) == 0 {
		return 0
	}
	near := 0
	for _, node := range workers {
		if o.Near[node] {
			near++
		}
	}
	return float64(near) / float64(len(workers))
}
