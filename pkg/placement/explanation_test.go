package placement_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/placement"
)

func TestExplain(t *testing.T) {
	estimates := measured(map[latency.Pair]time.Duration{
		{Node: "a", Peer: "q"}: 1 * ms, {Node: "b", Peer: "q"}: 2 * ms, {Node: "c", Peer: "q"}: 2 * ms, {Node: "d", Peer: "q"}: 1 * ms,
	})
	c := costs([]string{"d", "a", "b", "c", "dark"}, estimates, placement.Target{Name: "qdrant", Weight: 2, Replicas: replicas("q")})
	part := func(latency time.Duration, basis latency.Basis) []placement.Part {
		return []placement.Part{{Target: "qdrant", Weight: 2, Latency: latency, Basis: basis}}
	}
	tests := []struct {
		name     string
		node     string
		feasible []string
		want     placement.Explanation
	}{
		{"equals share a rank, and nodes that were not feasible do not count", "c", []string{"a", "b", "c"}, placement.Explanation{
			Node: "c", Cost: 2 * ms, Parts: part(2*ms, latency.Measured), Best: "a", BestCost: ms, Rank: 2, Of: 3,
		}},
		{"a pod that was not scored has no rank", "a", nil, placement.Explanation{
			Node: "a", Cost: ms, Parts: part(ms, latency.Measured), Best: "a", BestCost: ms,
		}},
		{"a node of which nothing is known is the last", "dark", []string{"a", "dark"}, placement.Explanation{
			Node: "dark", Cost: placement.Unknown, Parts: part(placement.Unknown, latency.Unknown), Best: "a", BestCost: ms, Rank: 2, Of: 2,
		}},
		{"a node that is no candidate has no parts", "elsewhere", nil, placement.Explanation{
			Node: "elsewhere", Cost: placement.Unknown, Best: "a", BestCost: ms,
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, c.Explain(tt.node, tt.feasible)); diff != "" {
				t.Errorf("explanation (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("nothing is known of any node", func(t *testing.T) {
		got := costs([]string{"a"}, nil, placement.Target{Name: "qdrant", Replicas: replicas("q")}).Explain("a", []string{"a"})
		if got.Best != "" || got.BestCost != placement.Unknown || got.Rank != 1 {
			t.Errorf("explanation is %+v", got)
		}
	})
}
