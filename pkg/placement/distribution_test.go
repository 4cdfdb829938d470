package placement_test

import (
	"testing"
	"time"

	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/placement"
)

// What kube-proxy does (topologyModeFromHints in its pkg/proxy/topology.go):
// one replica without a zone, or none in the client's, and zones say nothing.
func TestOnlyReplicasThatANodeLeadsToCount(t *testing.T) {
	zones := map[string]string{"a1": "a", "a2": "a", "b1": "b", "b2": "b", "c1": "c"}
	rtts := map[latency.Pair]time.Duration{}
	nodes := []string{"a1", "a2", "b1", "b2", "c1", "zoneless"}
	for _, from := range nodes {
		for _, to := range nodes {
			// To a node in the zone 1 ms, to any other 5 ms; from b2 to b1, which
			// are far apart, 9 ms.
			rtt := 5 * ms
			if zones[from] != "" && zones[from] == zones[to] {
				rtt = 1 * ms
			}
			if from[0] == 'b' && to[0] == 'b' {
				rtt = 9 * ms
			}
			if from != to {
				rtts[latency.Pair{Node: from, Peer: to}] = rtt
			}
		}
	}
	estimates := measured(rtts)
	for _, test := range []struct {
		name         string
		distribution placement.Distribution
		replicas     []string
		want         map[string]time.Duration
	}{
		{"to all", placement.ToAll, []string{"a1", "b1"}, map[string]time.Duration{
			"a1": 2500 * time.Microsecond, "a2": 3 * ms, "b2": 7 * ms, "c1": 5 * ms, "zoneless": 5 * ms,
		}},
		{"to the zone, though it be far", placement.PreferSameZone, []string{"a1", "b1"}, map[string]time.Duration{
			"a1": 0, "a2": 1 * ms, "b2": 9 * ms, "c1": 5 * ms, "zoneless": 5 * ms,
		}},
		{"to all of the zone", placement.PreferSameZone, []string{"a1", "a2", "b1"}, map[string]time.Duration{
			"a1": 500 * time.Microsecond, "b2": 9 * ms,
		}},
		{"to the node, and else to the zone", placement.PreferSameNode, []string{"a1", "a2", "b1"}, map[string]time.Duration{
			"a1": 0, "b1": 0, "b2": 9 * ms, "c1": 5 * ms,
		}},
		{"a replica without a zone: to all", placement.PreferSameZone, []string{"a1", "zoneless"}, map[string]time.Duration{
			"a1": 2500 * time.Microsecond, "a2": 3 * ms, "zoneless": 2500 * time.Microsecond,
		}},
		{"a replica without a zone: to the node, and else to all", placement.PreferSameNode, []string{"a1", "zoneless"}, map[string]time.Duration{
			"a1": 0, "a2": 3 * ms, "zoneless": 0,
		}},
		{"no replicas", placement.PreferSameZone, nil, map[string]time.Duration{"a1": placement.Unknown}},
	} {
		t.Run(test.name, func(t *testing.T) {
			candidates := placement.NewNodes(nodes)
			l := placement.NewLatencies(candidates, placement.Target{
				Weight: 1, Aggregation: placement.Mean, Distribution: test.distribution, Replicas: replicas(test.replicas...),
				ZoneOf: func(node string) string { return zones[node] },
			}, estimates)
			for node, want := range test.want {
				i, _ := candidates.Index(node)
				if got, _ := l.At(i); got != want {
					t.Errorf("from %s: %v, want %v", node, got, want)
				}
			}
		})
	}
}

func TestWithoutZonesATargetLeadsToAll(t *testing.T) {
	estimates := measured(map[latency.Pair]time.Duration{{Node: "a", Peer: "q1"}: 1 * ms, {Node: "a", Peer: "q2"}: 3 * ms})
	target := placement.Target{Weight: 1, Distribution: placement.PreferSameZone, Replicas: replicas("q1", "q2")}
	if got := costs([]string{"a"}, estimates, target).Of("a"); got != 2*ms {
		t.Errorf("cost is %v, want 2ms", got)
	}
}
