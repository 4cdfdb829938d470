package peers

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/scheduler/framework"

	"github.com/netlatency/netlatency/pkg/placement"
)

// BenchmarkPlacement is where a burst of workers goes, one to a node, when
// nothing but latency decides: their mean true round trip to Qdrant
// (true-cost-ms). In slow-uplinks one node in five is a millisecond farther from
// everything than others of its zone. Run it with -benchtime 1x.
func BenchmarkPlacement(b *testing.B) {
	b.Run("healthy", func(b *testing.B) { benchmarkPlacement(b, 0) })
	b.Run("slow-uplinks", func(b *testing.B) { benchmarkPlacement(b, 5) })
}

func benchmarkPlacement(b *testing.B, slow int) {
	b.Helper()
	const nodes, targets, workers = 5000, 50, 100
	c := newCluster(nodes, targets, slow)
	report := func(b *testing.B, sum time.Duration) {
		b.Helper()
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(sum.Seconds()*1e3/workers, "true-cost-ms")
	}
	size := fmt.Sprintf("/%dnodes/%dtargets/%dworkers", nodes, targets, workers)

	b.Run("best"+size, func(b *testing.B) {
		report(b, workers*c.best(workers))
	})
	b.Run("random"+size, func(b *testing.B) {
		var sum time.Duration
		for _, i := range rand.New(rand.NewPCG(seed, 3)).Perm(nodes)[:workers] {
			sum += c.trueCost[c.network.Names[i]]
		}
		report(b, sum)
	})
	b.Run("netlatency"+size, func(b *testing.B) {
		costs := c.costs()
		band := placement.Band{Ratio: 0.1, Floor: 100 * time.Microsecond}
		report(b, c.burst(workers, func(free []*corev1.Node) []int64 {
			best := placement.Unknown
			for _, node := range free {
				best = min(best, costs.Of(node.Name))
			}
			scores := make([]int64, len(free))
			for i, node := range free {
				scores[i] = band.Score(costs.Of(node.Name), best)
			}
			return scores
		}, nil))
	})
	b.Run("networkoverhead"+size, func(b *testing.B) {
		o := newNetworkOverhead(b, c)
		worker := pod("worker", "worker", "")
		place := make(map[string]int, nodes)
		for i, node := range o.nodes {
			place[node.Node().Name] = i
		}
		all := make(framework.NodeScoreList, nodes)
		report(b, c.burst(workers, func(free []*corev1.Node) []int64 {
			o.cycle(b, worker, all)
			scores := make([]int64, len(free))
			for i, node := range free {
				scores[i] = all[place[node.Name]].Score
			}
			return scores
		}, func(i int, node string) {
			o.add(b, pod(fmt.Sprintf("worker-%d", i), "worker", node))
		}))
	})
}

// burst places workers by the scores of the nodes that are still free, and
// returns the sum of their true costs. placed, if not nil, hears of each.
func (c *cluster) burst(workers int, score func(free []*corev1.Node) []int64, placed func(i int, node string)) time.Duration {
	r := rand.New(rand.NewPCG(seed, 4))
	free := append([]*corev1.Node(nil), c.nodes...)
	var sum time.Duration
	for i := range workers {
		at := highest(r, score(free))
		node := free[at].Name
		sum += c.trueCost[node]
		free[at] = free[len(free)-1]
		free = free[:len(free)-1]
		if placed != nil {
			placed(i, node)
		}
	}
	return sum
}
