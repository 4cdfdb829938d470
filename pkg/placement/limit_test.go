package placement_test

import (
	"testing"
	"time"

	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/placement"
)

// limited is qdrant, at most 3 ms away.
func limited(reject bool, nodes ...string) placement.Target {
	return placement.Target{Name: "qdrant", Weight: 1, Replicas: replicas(nodes...), MaxRTT: 3 * ms, RejectUnknown: reject}
}

func TestVerdictOnANode(t *testing.T) {
	estimates := measured(map[latency.Pair]time.Duration{
		{Node: "near", Peer: "q"}: 3 * ms, {Node: "far", Peer: "q"}: 3*ms + 1, {Node: "far", Peer: "g"}: 9 * ms,
		{Node: "mixed", Peer: "q"}: 1 * ms, {Node: "mixed", Peer: "q2"}: 5 * ms,
	})
	gpu := placement.Target{Name: "gpu", Weight: 1, Replicas: replicas("g"), MaxRTT: 5 * ms}
	tests := []struct {
		name        string
		node        string
		targets     []placement.Target
		wantTarget  int
		wantUnknown bool
	}{
		{"no limit", "far", []placement.Target{{Replicas: replicas("q")}}, -1, false},
		{"exactly at the limit", "near", []placement.Target{limited(false, "q")}, -1, false},
		{"beyond it by a nanosecond", "far", []placement.Target{limited(false, "q")}, 0, false},
		{"unknown is allowed", "dark", []placement.Target{limited(false, "q")}, -1, false},
		{"unknown is rejected", "dark", []placement.Target{limited(true, "q")}, 0, true},
		{"the target's own node is always near", "q", []placement.Target{limited(true, "q")}, -1, false},
		{"the limit is of what the replicas aggregate to", "mixed", []placement.Target{limited(false, "q", "q2")}, -1, false},
		{"a target that runs nowhere is unknown", "near", []placement.Target{limited(true)}, 0, true},
		{"a target that runs nowhere is allowed", "near", []placement.Target{limited(false)}, -1, false},
		{"the first that refuses, in the given order", "far", []placement.Target{{Replicas: replicas("q")}, gpu, limited(false, "q")}, 1, false},
		{"a node that is no candidate is unknown", "elsewhere", []placement.Target{limited(true, "q")}, 0, true},
		{"a node that is no candidate is allowed", "elsewhere", []placement.Target{limited(false, "q")}, -1, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := costs([]string{"near", "far", "mixed", "dark", "q"}, estimates, tt.targets...)
			target, isUnknown := c.Verdict(tt.node).Refusal()
			if target != tt.wantTarget || isUnknown != tt.wantUnknown {
				t.Errorf("refused by target %d, unknown %t; want %d, %t", target, isUnknown, tt.wantTarget, tt.wantUnknown)
			}
		})
	}
}

func TestWhetherMoreIsAdmittedThanBefore(t *testing.T) {
	at := func(reject bool, nodes []string, rtts map[string]time.Duration) *placement.Costs {
		pairs := map[latency.Pair]time.Duration{{Node: "other", Peer: "q"}: 9 * ms}
		for node, rtt := range rtts {
			pairs[latency.Pair{Node: node, Peer: "q"}] = rtt
		}
		return costs(nodes, measured(pairs), limited(reject, "q"))
	}
	ab := []string{"a", "b"}
	before := at(true, ab, map[string]time.Duration{"a": 2 * ms, "b": 5 * ms})
	tests := []struct {
		name          string
		before, after *placement.Costs
		want          bool
	}{
		{"nothing has changed", before, at(true, ab, map[string]time.Duration{"a": 2 * ms, "b": 5 * ms}), false},
		{"a node moved, on its side of the limit", before, at(true, ab, map[string]time.Duration{"a": 1 * ms, "b": 9 * ms}), false},
		{"a node crossed the limit", before, at(true, ab, map[string]time.Duration{"a": 2 * ms, "b": 3 * ms}), true},
		{"one crossed inwards, another outwards", before, at(true, ab, map[string]time.Duration{"a": 4 * ms, "b": 3 * ms}), true},
		{"a node crossed outwards", before, at(true, ab, map[string]time.Duration{"a": 4 * ms, "b": 5 * ms}), false},
		{"a node joined that is near", before, at(true, []string{"a", "b", "c"}, map[string]time.Duration{"a": 2 * ms, "b": 5 * ms, "c": 1 * ms}), true},
		{"a node joined that is unknown, and was allowed before it was there", at(false, ab, nil), at(false, []string{"a", "b", "c"}, nil), false},
		{"nothing was admitted before", nil, before, true},
		{"and nothing is now", nil, at(true, ab, nil), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.after.AdmitsMore(tt.before); got != tt.want {
				t.Errorf("admits more: %t, want %t", got, tt.want)
			}
		})
	}
}
