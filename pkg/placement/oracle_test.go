package placement_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/placement"
)

// world is a generated cluster, as plain as it can be written down: round
// trips by ordered pair, nodes, targets, each replica on its own line.
type world struct {
	nodes   []string
	zone    map[string]string
	rtt     map[latency.Pair]time.Duration
	stale   map[latency.Pair]bool
	targets []worldTarget
	band    placement.Band
}

type worldTarget struct {
	weight       int
	aggregation  placement.Aggregation
	distribution placement.Distribution
	replicas     []string // a node for each replica
	limit        time.Duration
	reject       bool // what is unknown
}

func generate(r *rand.Rand) world {
	w := world{zone: map[string]string{}, rtt: map[latency.Pair]time.Duration{}, stale: map[latency.Pair]bool{}}
	allZoned := r.IntN(3) > 0
	for i := range 2 + r.IntN(12) {
		node := fmt.Sprintf("node-%02d", i)
		w.nodes = append(w.nodes, node)
		if allZoned || r.IntN(4) > 0 {
			w.zone[node] = []string{"a", "b", "c"}[r.IntN(3)]
		}
	}
	density := r.Float64()
	// Few distinct values make ties.
	values := 1 + r.IntN(40)
	for _, from := range w.nodes {
		for _, to := range w.nodes {
			if from == to || r.Float64() > density {
				continue
			}
			pair := latency.Pair{Node: from, Peer: to}
			w.rtt[pair] = time.Duration(1+r.IntN(values)) * 137 * time.Microsecond
			w.stale[pair] = r.IntN(8) == 0
		}
	}
	for range 1 + r.IntN(3) {
		t := worldTarget{
			weight:       1 + r.IntN(5),
			aggregation:  []placement.Aggregation{placement.Mean, placement.Nearest, placement.Worst}[r.IntN(3)],
			distribution: []placement.Distribution{placement.ToAll, placement.ToAll, placement.PreferSameZone, placement.PreferSameNode}[r.IntN(4)],
		}
		if r.IntN(3) == 0 {
			// Halfway between two values, where rounding decides nothing.
			t.limit = time.Duration(r.IntN(values))*137*time.Microsecond + 68*time.Microsecond
			t.reject = r.IntN(2) == 0
		}
		for range r.IntN(6) {
			t.replicas = append(t.replicas, w.nodes[r.IntN(len(w.nodes))])
		}
		w.targets = append(w.targets, t)
	}
	w.band = placement.Band{Ratio: float64(r.IntN(4)) / 10, Floor: time.Duration(r.IntN(3)) * 100 * time.Microsecond}
	return w
}

// The oracle knows the definition and nothing of the implementation: it works
// with lists and floating point, a node at a time.

func (w world) latency(from, to string) (float64, bool) {
	if from == to {
		return 0, true
	}
	for _, pair := range []latency.Pair{{Node: from, Peer: to}, {Node: to, Peer: from}} {
		if rtt, ok := w.rtt[pair]; ok && !w.stale[pair] {
			return float64(rtt), true
		}
	}
	return 0, false
}

// led is the replicas of t that kube-proxy on node leads to.
func (w world) led(node string, t worldTarget) []string {
	var here, zone []string
	for _, replica := range t.replicas {
		if replica == node {
			here = append(here, replica)
		}
		if w.zone[replica] == w.zone[node] {
			zone = append(zone, replica)
		}
	}
	zoneless := slices.ContainsFunc(t.replicas, func(replica string) bool { return w.zone[replica] == "" })
	switch {
	case t.distribution == placement.PreferSameNode && len(here) > 0:
		return here
	case t.distribution != placement.ToAll && len(zone) > 0 && !zoneless:
		return zone
	}
	return t.replicas
}

// to is the latency from node to the replicas of t, aggregated.
func (w world) to(node string, t worldTarget) (float64, bool) {
	t.replicas = w.led(node, t)
	var known []float64
	for _, replica := range t.replicas {
		if l, ok := w.latency(node, replica); ok {
			known = append(known, l)
		}
	}
	if len(known) == 0 || float64(len(known))/float64(len(t.replicas)) < 0.5 {
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
	}[t.aggregation], true
}

func (w world) cost(node string) (float64, bool) {
	var sum, weights float64
	for _, t := range w.targets {
		if len(t.replicas) == 0 {
			continue
		}
		value, ok := w.to(node, t)
		if !ok {
			return 0, false
		}
		sum += float64(t.weight) * value
		weights += float64(t.weight)
	}
	return sum / weights, weights > 0
}

// refusal is the target that keeps a pod off the node, -1 if none does.
func (w world) refusal(node string) (target int, isUnknown bool) {
	for i, t := range w.targets {
		value, ok := w.to(node, t)
		switch {
		case t.limit == 0:
		case !ok && t.reject:
			return i, true
		case ok && math.Floor(value) > float64(t.limit):
			return i, false
		}
	}
	return -1, false
}

func (w world) scores() (map[string]float64, map[string]float64) {
	best := math.Inf(1)
	cost := map[string]float64{}
	for _, node := range w.nodes {
		if c, ok := w.cost(node); ok {
			cost[node] = c
			best = math.Min(best, c)
		}
	}
	near := best + math.Max(float64(w.band.Floor), w.band.Ratio*best)
	scores := map[string]float64{}
	for _, node := range w.nodes {
		c, ok := cost[node]
		switch {
		case !ok:
			scores[node] = 0
		case c <= near:
			scores[node] = 100
		default:
			scores[node] = math.Max(1, math.Min(100, 100*near/c))
		}
	}
	return cost, scores
}

func (w world) costs() *placement.Costs {
	observed := map[latency.Pair]latency.Distribution{}
	for pair, rtt := range w.rtt {
		d := latency.Distribution{Mean: rtt, P50: rtt, P90: rtt, P99: rtt, Min: rtt, Samples: 10, Newest: start}
		if w.stale[pair] {
			d.Newest = start.Add(-time.Hour)
		}
		observed[pair] = d
	}
	estimates := latency.NewEstimator(latency.NewMatrix(start, observed), latency.Statistic{}, time.Minute, nil, start)
	var targets []placement.Target
	for _, t := range w.targets {
		count := map[string]int{}
		for _, node := range t.replicas {
			count[node]++
		}
		var rs []placement.Replica
		for node, n := range count {
			rs = append(rs, placement.Replica{Node: node, Count: n})
		}
		targets = append(targets, placement.Target{
			Weight: t.weight, Aggregation: t.aggregation, Distribution: t.distribution, Replicas: rs,
			ZoneOf: func(node string) string { return w.zone[node] }, MaxRTT: t.limit, RejectUnknown: t.reject,
		})
	}
	return costs(w.nodes, estimates, targets...)
}

func TestScoresAgreeWithTheDefinition(t *testing.T) {
	const clusters = 10_000
	unknown, ties := 0, 0
	refused := map[bool]int{} // by whether the latency was unknown
	for seed := range uint64(clusters) {
		w := generate(rand.New(rand.NewPCG(seed, 1)))
		c := w.costs()
		best := placement.Unknown
		for i := range c.Nodes().Len() {
			best = min(best, c.At(i))
		}
		wantCost, wantScore := w.scores()
		// Whole nanoseconds round a quotient down once per target and once for
		// the sum.
		slack := float64(len(w.targets) + 1)
		got := map[string]int64{}
		for _, node := range append(w.nodes, "elsewhere") {
			target, isUnknown := c.Verdict(node).Refusal()
			wantTarget, wantUnknown := w.refusal(node)
			if target != wantTarget || isUnknown != wantUnknown {
				t.Fatalf("cluster %d: %s is refused by target %d (unknown: %t), want %d (%t)\n%+v", seed, node, target, isUnknown, wantTarget, wantUnknown, w)
			}
			if target >= 0 {
				refused[isUnknown]++
			}
		}
		for _, node := range w.nodes {
			cost := c.Of(node)
			got[node] = w.band.Score(cost, best)
			want, known := wantCost[node]
			if !known {
				unknown++
				if cost != placement.Unknown || got[node] != placement.UnknownScore {
					t.Fatalf("cluster %d: %s costs %v and scores %d, want Unknown\n%+v", seed, node, cost, got[node], w)
				}
				continue
			}
			if math.Abs(float64(cost)-want) > slack {
				t.Fatalf("cluster %d: %s costs %v, want %v\n%+v", seed, node, cost, time.Duration(want), w)
			}
			if score := float64(got[node]); score > wantScore[node]+0.01 || score < wantScore[node]-1.01 {
				t.Fatalf("cluster %d: %s scores %v, want %v rounded down\n%+v", seed, node, score, wantScore[node], w)
			}
		}
		for _, a := range w.nodes {
			for _, b := range w.nodes {
				costA, knownA := wantCost[a]
				costB, knownB := wantCost[b]
				switch {
				case knownA && !knownB && got[a] <= got[b]:
					t.Fatalf("cluster %d: %s is known and does not beat %s, which is not\n%+v", seed, a, b, w)
				case knownA && knownB && a != b && costA == costB:
					ties++
					if got[a] != got[b] {
						t.Fatalf("cluster %d: %s and %s cost the same and score %d and %d\n%+v", seed, a, b, got[a], got[b], w)
					}
				case knownA && knownB && costA < costB && got[a] < got[b]:
					t.Fatalf("cluster %d: %s is nearer than %s and scores less\n%+v", seed, a, b, w)
				}
			}
		}
	}
	if refused[true] < clusters || refused[false] < clusters {
		t.Errorf("the generator makes too few refusals to test them: %v by what is unknown", refused)
	}
	if unknown < clusters || ties < clusters {
		t.Errorf("the generator makes too few unknown nodes (%d) or ties (%d) to test them", unknown, ties)
	}
}
