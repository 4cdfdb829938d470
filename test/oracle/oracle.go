// Package oracle generates small clusters and says what nodes cost and score in
// them, by the definition and nothing else: it works with lists and floating
// point, a node at a time, and knows nothing of how pkg/placement and the plugin
// go about it, which are tested against it.
package oracle

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/placement"
)

// World is a generated cluster, as plain as it can be written down: round trips
// by ordered pair, nodes, targets, each replica on its own line.
type World struct {
	Nodes   []string
	Zone    map[string]string
	RTT     map[latency.Pair]time.Duration
	Stale   map[latency.Pair]bool
	Targets []Target
	Band    placement.Band
}

// Target is what a pod of the World wants to be near.
type Target struct {
	Weight        int
	Aggregation   placement.Aggregation
	Distribution  placement.Distribution
	Replicas      []string      // a node for each replica
	Limit         time.Duration // 0 is none
	RejectUnknown bool
}

// Generate makes a World. Few distinct round trips make ties.
func Generate(r *rand.Rand) World {
	w := World{Zone: map[string]string{}, RTT: map[latency.Pair]time.Duration{}, Stale: map[latency.Pair]bool{}}
	allZoned := r.IntN(3) > 0
	for i := range 2 + r.IntN(12) {
		node := fmt.Sprintf("node-%02d", i)
		w.Nodes = append(w.Nodes, node)
		if allZoned || r.IntN(4) > 0 {
			w.Zone[node] = []string{"a", "b", "c"}[r.IntN(3)]
		}
	}
	density := r.Float64()
	values := 1 + r.IntN(40)
	for _, from := range w.Nodes {
		for _, to := range w.Nodes {
			if from == to || r.Float64() > density {
				continue
			}
			pair := latency.Pair{Node: from, Peer: to}
			w.RTT[pair] = time.Duration(1+r.IntN(values)) * 137 * time.Microsecond
			w.Stale[pair] = r.IntN(8) == 0
		}
	}
	for range 1 + r.IntN(3) {
		t := Target{
			Weight:       1 + r.IntN(5),
			Aggregation:  []placement.Aggregation{placement.Mean, placement.Nearest, placement.Worst}[r.IntN(3)],
			Distribution: []placement.Distribution{placement.ToAll, placement.ToAll, placement.PreferSameZone, placement.PreferSameNode}[r.IntN(4)],
		}
		if r.IntN(3) == 0 {
			// Halfway between two values, where rounding decides nothing.
			t.Limit = time.Duration(r.IntN(values))*137*time.Microsecond + 68*time.Microsecond
			t.RejectUnknown = r.IntN(2) == 0
		}
		for range r.IntN(6) {
			t.Replicas = append(t.Replicas, w.Nodes[r.IntN(len(w.Nodes))])
		}
		w.Targets = append(w.Targets, t)
	}
	w.Band = placement.Band{Ratio: float64(r.IntN(4)) / 10, Floor: time.Duration(r.IntN(3)) * 100 * time.Microsecond}
	return w
}

// Matrix is what was measured of the World by now; what is stale is an hour old.
func (w World) Matrix(now time.Time) *latency.Matrix {
	observed := map[latency.Pair]latency.Distribution{}
	for pair, rtt := range w.RTT {
		d := latency.Distribution{Mean: rtt, P50: rtt, P90: rtt, P99: rtt, Min: rtt, Samples: 10, Sent: 10, Newest: now}
		if w.Stale[pair] {
			d.Newest = now.Add(-time.Hour)
		}
		observed[pair] = d
	}
	return latency.NewMatrix(now, observed)
}

func (w World) latency(from, to string) (float64, bool) {
	if from == to {
		return 0, true
	}
	for _, pair := range []latency.Pair{{Node: from, Peer: to}, {Node: to, Peer: from}} {
		if rtt, ok := w.RTT[pair]; ok && !w.Stale[pair] {
			return float64(rtt), true
		}
	}
	return 0, false
}

// led is the replicas of t that kube-proxy on node leads to.
func (w World) led(node string, t Target) []string {
	var here, zone []string
	for _, replica := range t.Replicas {
		if replica == node {
			here = append(here, replica)
		}
		if w.Zone[replica] == w.Zone[node] {
			zone = append(zone, replica)
		}
	}
	zoneless := slices.ContainsFunc(t.Replicas, func(replica string) bool { return w.Zone[replica] == "" })
	switch {
	case t.Distribution == placement.PreferSameNode && len(here) > 0:
		return here
	case t.Distribution != placement.ToAll && len(zone) > 0 && !zoneless:
		return zone
	}
	return t.Replicas
}

// to is the latency from node to the replicas of t, aggregated.
func (w World) to(node string, t Target) (float64, bool) {
	replicas := w.led(node, t)
	var known []float64
	for _, replica := range replicas {
		if l, ok := w.latency(node, replica); ok {
			known = append(known, l)
		}
	}
	enough := 0.5
	if t.Aggregation == placement.Worst {
		enough = 1
	}
	if len(known) == 0 || float64(len(known))/float64(len(replicas)) < enough {
		return 0, false
	}
	var total float64
	least, most := math.Inf(1), math.Inf(-1)
	for _, l := range known {
		total += l
		least, most = math.Min(least, l), math.Max(most, l)
	}
	return map[placement.Aggregation]float64{
		placement.Mean: total / float64(len(known)), placement.Nearest: least, placement.Worst: most,
	}[t.Aggregation], true
}

// Cost is what a node costs, in nanoseconds; ok is false where it is unknown.
func (w World) Cost(node string) (cost float64, ok bool) {
	var sum, weights float64
	for _, t := range w.Targets {
		if len(t.Replicas) == 0 {
			continue
		}
		value, ok := w.to(node, t)
		if !ok {
			return 0, false
		}
		sum += float64(t.Weight) * value
		weights += float64(t.Weight)
	}
	return sum / weights, weights > 0
}

// Refusal is the target that keeps a pod off the node by its limit, or because
// the latency is unknown; -1 if none does.
func (w World) Refusal(node string) (target int, isUnknown bool) {
	for i, t := range w.Targets {
		value, ok := w.to(node, t)
		switch {
		case t.Limit == 0:
		case !ok && t.RejectUnknown:
			return i, true
		case ok && math.Floor(value) > float64(t.Limit):
			return i, false
		}
	}
	return -1, false
}

// Scores is the cost of each of the nodes of which it is known, and the score of
// each, not rounded, where these are all that a pod can go to.
func (w World) Scores(nodes []string) (costs, scores map[string]float64) {
	best := math.Inf(1)
	costs, scores = map[string]float64{}, map[string]float64{}
	for _, node := range nodes {
		if c, ok := w.Cost(node); ok {
			costs[node] = c
			best = math.Min(best, c)
		}
	}
	near := best + math.Max(float64(w.Band.Floor), w.Band.Ratio*best)
	for _, node := range nodes {
		c, ok := costs[node]
		switch {
		case !ok:
			scores[node] = 0
		case c <= near:
			scores[node] = 100
		default:
			scores[node] = math.Max(1, 100-10*math.Log2(c/near))
		}
	}
	return costs, scores
}

// Silent reports whether nothing can be said of where among nodes a pod should
// go: no target runs anywhere, one runs of which no way to it is known, or no
// node's cost is known.
func (w World) Silent(nodes []string) bool {
	for _, t := range w.Targets {
		if len(t.Replicas) > 0 && !w.informed(t) {
			return true
		}
	}
	costs, _ := w.Scores(nodes)
	return len(costs) == 0
}

// informed reports whether any way to t is known but that from a node to itself.
func (w World) informed(t Target) bool {
	for _, node := range w.Nodes {
		for _, replica := range w.led(node, t) {
			if _, ok := w.latency(node, replica); ok && node != replica {
				return true
			}
		}
	}
	return false
}

// Disagreement compares the scores of nodes, which are all that a pod can go
// to, with the definition: their values, that known ones beat unknown ones, and
// that no node is rated above a nearer one nor unlike an equally near one. It is
// empty where they agree.
func (w World) Disagreement(nodes []string, got map[string]int64) string {
	costs, want := w.Scores(nodes)
	for _, node := range nodes {
		// Scores are rounded down.
		if score := float64(got[node]); score > want[node]+0.01 || score < want[node]-1.01 {
			return fmt.Sprintf("%s scores %v, want %v rounded down", node, score, want[node])
		}
	}
	for _, a := range nodes {
		for _, b := range nodes {
			costA, knownA := costs[a]
			costB, knownB := costs[b]
			switch {
			case knownA && !knownB && got[a] <= got[b]:
				return fmt.Sprintf("%s is known and does not beat %s, which is not", a, b)
			case knownA && knownB && costA == costB && got[a] != got[b]:
				return fmt.Sprintf("%s and %s cost the same and score %d and %d", a, b, got[a], got[b])
			case knownA && knownB && costA < costB && got[a] < got[b]:
				return fmt.Sprintf("%s is nearer than %s and scores less", a, b)
			}
		}
	}
	return ""
}
