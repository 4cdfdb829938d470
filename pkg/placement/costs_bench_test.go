package placement_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/placement"
)

// BenchmarkCostsOfAllNodes reads the cost of every node by its name, as the
// cycle of a pod does. It is measured against BenchmarkLatencies of the same
// size: what each pod would pay if costs were not kept.
func BenchmarkCostsOfAllNodes(b *testing.B) {
	const replicas = 10
	for _, size := range []int{100, 1000, 5000} {
		b.Run(fmt.Sprintf("%dnodes/%dreplicas", size, replicas), func(b *testing.B) {
			names := make([]string, size)
			for i := range names {
				names[i] = fmt.Sprintf("node-%04d.example.internal", i)
			}
			target := placement.Target{Weight: 1, Aggregation: placement.Mean}
			rtts := map[latency.Pair]time.Duration{}
			for i := range replicas {
				peer := names[i*size/replicas]
				target.Replicas = append(target.Replicas, placement.Replica{Node: peer, Count: 1})
				for j, node := range names {
					rtts[latency.Pair{Node: node, Peer: peer}] = time.Duration(100+(i*31+j*17)%5000) * time.Microsecond
				}
			}
			kept := costs(names, measured(rtts), target)
			b.ReportAllocs()
			for b.Loop() {
				for _, name := range names {
					if kept.Of(name) == placement.Unknown {
						b.Fatalf("%s has no cost", name)
					}
				}
			}
		})
	}
}
