package placement_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/placement"
)

const ms = time.Millisecond

var start = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

// measured makes estimates out of round trips between nodes. The statistic is
// the mean alone, so that a latency is exactly the round trip that is given.
func measured(rtts map[latency.Pair]time.Duration) *latency.Estimator {
	observed := make(map[latency.Pair]latency.Distribution, len(rtts))
	for pair, rtt := range rtts {
		observed[pair] = latency.Distribution{Mean: rtt, P50: rtt, P90: rtt, P99: rtt, Min: rtt, Samples: 100, Newest: start}
	}
	return latency.NewEstimator(latency.NewMatrix(start, observed), latency.Statistic{}, 0, nil, start)
}

func replicas(nodes ...string) []placement.Replica {
	var rs []placement.Replica
	for _, node := range nodes {
		rs = append(rs, placement.Replica{Node: node, Count: 1})
	}
	return rs
}

func costs(nodes []string, estimates *latency.Estimator, targets ...placement.Target) *placement.Costs {
	candidates := placement.NewNodes(nodes)
	var columns []*placement.Latencies
	for _, t := range targets {
		columns = append(columns, placement.NewLatencies(candidates, t, estimates))
	}
	return placement.NewCosts(candidates, columns)
}

func TestCostOfANode(t *testing.T) {
	estimates := measured(map[latency.Pair]time.Duration{
		{Node: "a", Peer: "q1"}: 1 * ms, {Node: "a", Peer: "q2"}: 2 * ms, {Node: "a", Peer: "q3"}: 6 * ms, {Node: "a", Peer: "g"}: 10 * ms,
		{Node: "b", Peer: "q1"}: 4 * ms, {Node: "b", Peer: "g"}: 1 * ms,
	})
	qdrant := func(aggregation placement.Aggregation, nodes ...string) placement.Target {
		return placement.Target{Name: "qdrant", Weight: 1, Aggregation: aggregation, Replicas: replicas(nodes...)}
	}
	tests := []struct {
		name    string
		node    string
		targets []placement.Target
		want    time.Duration
	}{
		{"the mean weighs every replica alike", "a", []placement.Target{qdrant(placement.Mean, "q1", "q2", "q3")}, 3 * ms},
		{"the nearest replica", "a", []placement.Target{qdrant(placement.Nearest, "q2", "q1", "q3")}, 1 * ms},
		{"the worst replica", "a", []placement.Target{qdrant(placement.Worst, "q2", "q3", "q1")}, 6 * ms},
		{
			"replicas that share a node count each",
			"a",
			[]placement.Target{{Weight: 1, Replicas: []placement.Replica{{Node: "q1", Count: 3}, {Node: "q3", Count: 1}}}},
			9 * ms / 4,
		},
		{"a replica on the node itself costs nothing", "q1", []placement.Target{qdrant(placement.Mean, "q1")}, 0},
		{
			"targets by their weights",
			"a",
			[]placement.Target{
				{Name: "qdrant", Weight: 3, Replicas: replicas("q1")},
				{Name: "gpu", Weight: 1, Replicas: replicas("g")},
			},
			13 * ms / 4,
		},
		{
			"a target that runs nowhere is left out",
			"a",
			[]placement.Target{qdrant(placement.Mean, "q2"), {Name: "gpu", Weight: 9}},
			2 * ms,
		},
		{"half of the replicas known is enough", "b", []placement.Target{qdrant(placement.Mean, "q1", "q2")}, 4 * ms},
		{"the worst of those of which one is unknown may be any", "b", []placement.Target{qdrant(placement.Worst, "q1", "q2")}, placement.Unknown},
		{"under half known is Unknown", "b", []placement.Target{qdrant(placement.Nearest, "q1", "q2", "q3")}, placement.Unknown},
		{
			"the half is of replicas, not of nodes",
			"b",
			[]placement.Target{{Weight: 1, Replicas: []placement.Replica{{Node: "q1", Count: 2}, {Node: "q2", Count: 1}, {Node: "q3", Count: 1}}}},
			4 * ms,
		},
		{
			"one Unknown target makes the cost Unknown",
			"b",
			[]placement.Target{{Name: "gpu", Weight: 1, Replicas: replicas("g")}, qdrant(placement.Mean, "q3")},
			placement.Unknown,
		},
		{"no target runs anywhere", "a", []placement.Target{{Name: "gpu", Weight: 1}}, placement.Unknown},
		{"a node that is not a candidate", "elsewhere", []placement.Target{qdrant(placement.Mean, "q1")}, placement.Unknown},
		{"a weight of 0 counts as 1", "a", []placement.Target{{Replicas: replicas("q2")}}, 2 * ms},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := costs([]string{"b", "a", "q1"}, estimates, tt.targets...)
			if got := c.Of(tt.node); got != tt.want {
				t.Errorf("cost of %s is %v, want %v", tt.node, got, tt.want)
			}
		})
	}
}

func TestCostsSayWhatTheyRestOn(t *testing.T) {
	estimates := measured(map[latency.Pair]time.Duration{
		{Node: "a", Peer: "q"}: 1 * ms,
		{Node: "g", Peer: "a"}: 3 * ms,
	})
	c := costs([]string{"a", "q", "a"}, estimates,
		placement.Target{Name: "qdrant", Weight: 2, Replicas: replicas("q")},
		placement.Target{Name: "gpu", Weight: 1, Replicas: replicas("g", "unmeasured")},
		placement.Target{Name: "cache", Weight: 5},
		placement.Target{Name: "dark", Weight: 1, Replicas: replicas("a")},
	)
	i, ok := c.Nodes().Index("a")
	if !ok || c.Nodes().Len() != 2 || c.Nodes().Name(i) != "a" {
		t.Fatalf("node a is at %d, %t, of %d", i, ok, c.Nodes().Len())
	}
	want := []placement.Part{
		{Target: "qdrant", Weight: 2, Latency: 1 * ms, Basis: latency.Measured},
		{Target: "gpu", Weight: 1, Latency: 3 * ms, Basis: latency.Reverse},
		{Target: "dark", Weight: 1, Latency: 0, Basis: latency.Local},
	}
	if diff := cmp.Diff(want, c.Parts(i)); diff != "" {
		t.Errorf("parts of a (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"cache"}, c.Missing()); diff != "" {
		t.Errorf("missing (-want +got):\n%s", diff)
	}
	if c.Known() != 1 {
		t.Errorf("%d nodes are known, want a alone", c.Known())
	}
}

func TestWithoutMeasurementsATargetsOwnNodeIsNoReason(t *testing.T) {
	c := costs([]string{"a", "q"}, nil, placement.Target{Name: "qdrant", Weight: 1, Replicas: replicas("q")})
	if got := c.Of("q"); got != 0 {
		t.Errorf("cost on the target's own node is %v, want 0", got)
	}
	if diff := cmp.Diff([]string{"qdrant"}, c.Uninformed()); diff != "" {
		t.Errorf("uninformed targets (-want +got):\n%s", diff)
	}
	c = costs([]string{"a", "q"}, measured(map[latency.Pair]time.Duration{{Node: "a", Peer: "q"}: ms}),
		placement.Target{Name: "qdrant", Weight: 1, Replicas: replicas("q")})
	if got := c.Uninformed(); len(got) > 0 {
		t.Errorf("uninformed targets are %q although a pair is measured", got)
	}
}

func TestBasisOfAnAggregation(t *testing.T) {
	estimates := measured(map[latency.Pair]time.Duration{
		{Node: "a", Peer: "near"}: 1 * ms,
		{Node: "far", Peer: "a"}:  9 * ms,
	})
	tests := []struct {
		aggregation placement.Aggregation
		want        latency.Basis
	}{
		{placement.Mean, latency.Reverse}, // of all that went in, the weakest
		{placement.Nearest, latency.Measured},
		{placement.Worst, latency.Reverse},
	}
	for _, tt := range tests {
		t.Run(string(tt.aggregation), func(t *testing.T) {
			for _, rs := range [][]placement.Replica{replicas("near", "far"), replicas("far", "near")} {
				l := placement.NewLatencies(placement.NewNodes([]string{"a"}), placement.Target{Aggregation: tt.aggregation, Replicas: rs}, estimates)
				if _, got := l.At(0); got != tt.want {
					t.Errorf("basis is %v, want %v", got, tt.want)
				}
			}
		})
	}
}

func TestReadingACostAllocatesNothing(t *testing.T) {
	nodes := []string{"a", "b", "c"}
	c := costs(nodes, measured(map[latency.Pair]time.Duration{{Node: "a", Peer: "b"}: ms}), placement.Target{Replicas: replicas("b")})
	band := placement.Band{Ratio: 0.1, Floor: ms / 10}
	var sum int64
	allocs := testing.AllocsPerRun(100, func() {
		for _, node := range nodes {
			sum += band.Score(c.Of(node), 0)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations to read and score %d nodes (%d)", allocs, len(nodes), sum)
	}
}

func TestNodesKeepTheirNamesToThemselves(t *testing.T) {
	names := []string{"c", "a", "b"}
	nodes := placement.NewNodes(names)
	names[0] = "z"
	var got []string
	for i := range nodes.Len() {
		got = append(got, nodes.Name(i))
	}
	if want := []string{"a", "b", "c"}; !slices.Equal(got, want) {
		t.Errorf("nodes are %q, want %q", got, want)
	}
}

func TestHowManyNodesAreHowFar(t *testing.T) {
	c := costs([]string{"a", "b", "c", "store", "dark"}, measured(map[latency.Pair]time.Duration{
		{Node: "a", Peer: "store"}: 3 * ms, {Node: "b", Peer: "store"}: 1 * ms, {Node: "c", Peer: "store"}: 3 * ms,
	}), placement.Target{Name: "qdrant", Replicas: replicas("store")})
	for i, want := range []time.Duration{0, 1 * ms, 3 * ms, 3 * ms, placement.Unknown} {
		if got := c.Nearest(i + 1); got != want {
			t.Errorf("Nearest(%d) is %v, want %v", i+1, got, want)
		}
	}
	for limit, want := range map[time.Duration]int{-1: 5, 0: 4, 1 * ms: 3, 3*ms - 1: 3, 3 * ms: 1, placement.Unknown: 0} {
		if got := c.Beyond(limit); got != want {
			t.Errorf("%d nodes are beyond %v, want %d", got, limit, want)
		}
	}
}
