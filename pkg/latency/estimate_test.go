package latency_test

import (
	"testing"
	"time"

	"github.com/netlatency/netlatency/pkg/latency"
)

func TestEstimateTakesTheBestBasisThereIs(t *testing.T) {
	now := time.Unix(2000, 0)
	fresh := func(value time.Duration) latency.Distribution {
		d := steady(value, 50)
		d.Newest = now.Add(-time.Second)
		return d
	}
	stale := func(value time.Duration) latency.Distribution {
		d := fresh(value)
		d.Newest = now.Add(-time.Hour)
		return d
	}
	cpu := latency.NodeGroup{Provider: "hetzner", Zone: "1"}
	gpu := latency.NodeGroup{Provider: "neuralrack", Zone: "1"} // the same zone name elsewhere
	groups := map[string]latency.NodeGroup{"cpu-1": cpu, "cpu-2": cpu, "cpu-3": cpu, "gpu-1": gpu, "gpu-2": gpu, "gpu-3": gpu, "bare": {}}
	m := latency.NewMatrix(now, map[latency.Pair]latency.Distribution{
		{Node: "cpu-1", Peer: "gpu-1"}: fresh(2 * ms),
		{Node: "gpu-1", Peer: "cpu-1"}: fresh(3 * ms),
		{Node: "gpu-2", Peer: "cpu-1"}: fresh(4 * ms),
		{Node: "cpu-2", Peer: "gpu-1"}: stale(99 * ms),
		{Node: "gpu-1", Peer: "cpu-2"}: fresh(5 * ms),
		{Node: "cpu-2", Peer: "gpu-2"}: stale(99 * ms),
		{Node: "cpu-1", Peer: "gpu-3"}: fresh(6 * ms),
		{Node: "cpu-1", Peer: "bare"}:  fresh(7 * ms),
	})
	e := latency.NewEstimator(m, latency.Statistic{}, time.Minute, groups, now)
	for _, test := range []struct {
		name, node, peer string
		want             latency.Estimate
	}{
		{"a node to itself", "cpu-1", "cpu-1", latency.Estimate{Latency: 0, Basis: latency.Local}},
		{"a node to itself that nobody knows", "x", "x", latency.Estimate{Latency: 0, Basis: latency.Local}},
		{"measured", "cpu-1", "gpu-1", latency.Estimate{Latency: 2 * ms, Basis: latency.Measured}},
		{"measured the other way only", "cpu-1", "gpu-2", latency.Estimate{Latency: 4 * ms, Basis: latency.Reverse}},
		{"stale, so the other way", "cpu-2", "gpu-1", latency.Estimate{Latency: 5 * ms, Basis: latency.Reverse}},
		{"stale, so the lower median of the groups", "cpu-2", "gpu-2", latency.Estimate{Latency: 2 * ms, Basis: latency.Group}},
		{"never measured, the groups", "cpu-3", "gpu-3", latency.Estimate{Latency: 2 * ms, Basis: latency.Group}},
		{"never measured, the groups the other way", "gpu-3", "cpu-3", latency.Estimate{Latency: 4 * ms, Basis: latency.Group}},
		{"no pair between the groups was measured", "cpu-2", "cpu-3", latency.Estimate{}},
		{"measured without any label", "cpu-1", "bare", latency.Estimate{Latency: 7 * ms, Basis: latency.Measured}},
		{"not measured and without labels", "cpu-2", "bare", latency.Estimate{}},
		{"a node that nobody knows", "cpu-1", "x", latency.Estimate{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := e.Estimate(test.node, test.peer); got != test.want {
				t.Errorf("got %v %v, want %v %v", got.Latency, got.Basis, test.want.Latency, test.want.Basis)
			}
		})
	}
}

func TestGroupsAnswerForEachOtherInEitherDirection(t *testing.T) {
	now := time.Unix(2000, 0)
	a, b := latency.NodeGroup{Provider: "a"}, latency.NodeGroup{Provider: "b"}
	d := steady(3*ms, 50)
	d.Newest = now
	m := latency.NewMatrix(now, map[latency.Pair]latency.Distribution{{Node: "a-1", Peer: "b-1"}: d})
	e := latency.NewEstimator(m, latency.Statistic{}, 0, map[string]latency.NodeGroup{"a-1": a, "a-2": a, "b-1": b, "b-2": b}, now)
	if got := e.Estimate("b-2", "a-2"); got != (latency.Estimate{Latency: 3 * ms, Basis: latency.Group}) {
		t.Errorf("got %v %v", got.Latency, got.Basis)
	}
}

func TestANilEstimatorKnowsOnlyThatANodeIsNearItself(t *testing.T) {
	var e *latency.Estimator
	if got := e.Estimate("a", "a"); got.Basis != latency.Local {
		t.Errorf("a node to itself: %v", got.Basis)
	}
	if got := e.Estimate("a", "b"); got.Basis != latency.Unknown {
		t.Errorf("two nodes: %v", got.Basis)
	}
}
