package placement_test

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/placement"
	"github.com/netlatency/netlatency/test/oracle"
)

func costsIn(w oracle.World) *placement.Costs {
	estimates := latency.NewEstimator(w.Matrix(start), latency.Statistic{}, time.Minute, nil, start)
	var targets []placement.Target
	for _, t := range w.Targets {
		count := map[string]int{}
		for _, node := range t.Replicas {
			count[node]++
		}
		var rs []placement.Replica
		for node, n := range count {
			rs = append(rs, placement.Replica{Node: node, Count: n})
		}
		targets = append(targets, placement.Target{
			Weight: t.Weight, Aggregation: t.Aggregation, Distribution: t.Distribution, Replicas: rs,
			ZoneOf: func(node string) string { return w.Zone[node] }, MaxRTT: t.Limit, RejectUnknown: t.RejectUnknown,
		})
	}
	return costs(w.Nodes, estimates, targets...)
}

func TestScoresAgreeWithTheDefinition(t *testing.T) {
	const clusters = 10_000
	unknown, ties := 0, 0
	refused := map[bool]int{} // by whether the latency was unknown
	for seed := range uint64(clusters) {
		w := oracle.Generate(rand.New(rand.NewPCG(seed, 1)))
		c := costsIn(w)
		for _, node := range append(w.Nodes, "elsewhere") {
			target, isUnknown := c.Verdict(node).Refusal()
			wantTarget, wantUnknown := w.Refusal(node)
			if target != wantTarget || isUnknown != wantUnknown {
				t.Fatalf("cluster %d: %s is refused by target %d (unknown: %t), want %d (%t)\n%+v", seed, node, target, isUnknown, wantTarget, wantUnknown, w)
			}
			if target >= 0 {
				refused[isUnknown]++
			}
		}
		best := placement.Unknown
		for i := range c.Nodes().Len() {
			best = min(best, c.At(i))
		}
		// Whole nanoseconds round a quotient down once per target and once for
		// the sum.
		slack := float64(len(w.Targets) + 1)
		got, seen := map[string]int64{}, map[float64]int{}
		for _, node := range w.Nodes {
			cost := c.Of(node)
			got[node] = w.Band.Score(cost, best)
			want, known := w.Cost(node)
			if !known {
				unknown++
				if cost != placement.Unknown || got[node] != placement.UnknownScore {
					t.Fatalf("cluster %d: %s costs %v and scores %d, want Unknown\n%+v", seed, node, cost, got[node], w)
				}
				continue
			}
			ties += seen[want]
			seen[want]++
			if math.Abs(float64(cost)-want) > slack {
				t.Fatalf("cluster %d: %s costs %v, want %v\n%+v", seed, node, cost, time.Duration(want), w)
			}
		}
		if wrong := w.Disagreement(w.Nodes, got); wrong != "" {
			t.Fatalf("cluster %d: %s\n%+v", seed, wrong, w)
		}
	}
	if refused[true] < clusters || refused[false] < clusters {
		t.Errorf("the generator makes too few refusals to test them: %v by what is unknown", refused)
	}
	if unknown < clusters || ties < clusters {
		t.Errorf("the generator makes too few unknown nodes (%d) or ties (%d) to test them", unknown, ties)
	}
}
