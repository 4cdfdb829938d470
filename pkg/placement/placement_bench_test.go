package placement_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/placement"
)

// BenchmarkLatencies is the price of a change: of the matrix for every target,
// of a target for itself.
func BenchmarkLatencies(b *testing.B) {
	for _, size := range []int{100, 1000, 5000} {
		names := make([]string, size)
		for i := range names {
			names[i] = fmt.Sprintf("node-%04d.example.internal", i)
		}
		for _, replicas := range []int{1, 10, 50} {
			target := placement.Target{Weight: 1, Aggregation: placement.Mean}
			rtts := map[latency.Pair]time.Duration{}
			for i := range replicas {
				peer := names[i*size/replicas]
				target.Replicas = append(target.Replicas, placement.Replica{Node: peer, Count: 1})
				for j, node := range names {
					rtts[latency.Pair{Node: node, Peer: peer}] = time.Duration(100+(i*31+j*17)%5000) * time.Microsecond
				}
			}
			estimates := measured(rtts)
			nodes := placement.NewNodes(names)
			b.Run(fmt.Sprintf("%dnodes/%dreplicas", size, replicas), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					placement.NewLatencies(nodes, target, estimates)
				}
			})
		}
	}
}
