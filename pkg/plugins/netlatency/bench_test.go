package netlatency

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	tf "k8s.io/kubernetes/pkg/scheduler/testing/framework"

	"github.com/netlatency/netlatency/apis/config"
)

// BenchmarkCycle is what the plugin adds to a scheduling cycle: PreScore, the
// Score of every node and NormalizeScore, one after the other, which the
// framework spreads over its workers.
//
//   - filter: PreFilter and Filter of every node for a pod with a limit, which
//     others have not, all nodes within it; not part of the rest;
//   - score: the Score of every node and NormalizeScore, in a cycle that has
//     begun;
//   - warm: nothing has changed since the pod before;
//   - cold: nor has it, but other memory was used in between, as by all the rest of
//     a scheduler;
//   - target-moved: the target has, and this is the first pod after;
//   - matrix-changed: the view that a new matrix makes necessary, which is made
//     beside the cycles, and a cycle.
func BenchmarkCycle(b *testing.B) {
	for _, nodes := range []int{100, 1000, 5000} {
		for _, targets := range []int{1, 10, 50} {
			b.Run(fmt.Sprintf("%dnodes/%dtargets", nodes, targets), clusterSize{nodes, targets}.benchmarkCycle)
		}
	}
}

// asFiltered is nodes in an order in which two processors pass them: the first
// takes even parts of a hundred, the other odd ones, and each passes some before
// the other does.
func asFiltered(nodes []fwk.NodeInfo) []fwk.NodeInfo {
	const part = 100
	var halves [2][]fwk.NodeInfo
	for i := 0; i < len(nodes); i += part {
		half := i / part % 2
		halves[half] = append(halves[half], nodes[i:min(i+part, len(nodes))]...)
	}
	listed := make([]fwk.NodeInfo, 0, len(nodes))
	r := rand.New(rand.NewPCG(1, 1))
	for len(halves[0])+len(halves[1]) > 0 {
		half := &halves[r.IntN(2)]
		n := min(1+r.IntN(4), len(*half))
		listed, *half = append(listed, (*half)[:n]...), (*half)[n:]
	}
	return listed
}

// clusterSize is how large the cluster of a benchmark is.
type clusterSize struct{ nodes, targets int }

func (s clusterSize) benchmarkCycle(b *testing.B) {
	storage := &metav1.LabelSelector{MatchLabels: map[string]string{"role": "storage"}}
	args := newArgs(config.Target{Name: "storage", Weight: 1, Aggregation: config.AggregationMean, Nodes: &config.NodesTarget{LabelSelector: storage}})
	measured := rtts{}
	var objects []runtime.Object
	var peers []*corev1.Node
	for i := range s.nodes {
		n := node(fmt.Sprintf("node-%04d.example.internal", i))
		if i%(s.nodes/s.targets) == 0 && len(peers) < s.targets {
			n.Labels = map[string]string{"role": "storage"}
			peers = append(peers, n)
		}
		objects = append(objects, n)
	}
	for i, object := range objects {
		for j, peer := range peers {
			if from := object.(*corev1.Node).Name; from != peer.Name {
				measured[[2]string{from, peer.Name}] = time.Duration(100+(i*31+j*17)%5000) * time.Microsecond
			}
		}
	}
	c := newCluster(b, setting{args: args, objects: objects})
	eventually(b, "the targets are known", func() bool {
		sets := c.plugin.targets.Sets()
		return sets[0].Version > 0 && len(sets[0].Replicas) == s.targets
	})
	c.measure(measured)
	listed, err := c.plugin.nodes.List(labels.Everything())
	if err != nil {
		b.Fatal(err)
	}
	infos := tf.BuildNodeInfos(listed) // the informers' objects, as the scheduler has them
	pod, limited := worker(), worker()
	limited.Annotations = map[string]string{nearAnnotation: "storage maxRTT=1s"}
	inOrder := asFiltered(c.plugin.snapshot())
	scores := make(fwk.NodeScoreList, len(inOrder))
	score := func(state fwk.CycleState) {
		for i, info := range inOrder {
			scores[i].Name = info.Node().Name
			scores[i].Score, _ = c.plugin.Score(c.ctx, state, pod, info)
		}
		if status := c.plugin.NormalizeScore(c.ctx, state, pod, scores); !status.IsSuccess() {
			b.Fatal(status)
		}
	}
	cycle := func() {
		state := framework.NewCycleState()
		if status := c.plugin.PreScore(c.ctx, state, pod, inOrder); !status.IsSuccess() {
			b.Fatal(status)
		}
		score(state)
	}
	b.Run("filter", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			state := framework.NewCycleState()
			if _, status := c.plugin.PreFilter(c.ctx, state, limited, infos); !status.IsSuccess() {
				b.Fatal(status)
			}
			for _, info := range infos {
				if status := c.plugin.Filter(c.ctx, state, limited, info); !status.IsSuccess() {
					b.Fatal(status)
				}
			}
		}
	})
	b.Run("score", func(b *testing.B) {
		state := framework.NewCycleState()
		if status := c.plugin.PreScore(c.ctx, state, pod, infos); !status.IsSuccess() {
			b.Fatal(status)
		}
		b.ReportAllocs()
		for b.Loop() {
			score(state)
		}
	})
	b.Run("warm", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			cycle()
		}
	})
	b.Run("cold", func(b *testing.B) {
		others := make([]byte, 64<<20)
		b.ReportAllocs()
		for b.Loop() {
			b.StopTimer()
			for i := 0; i < len(others); i += 64 {
				others[i]++
			}
			b.StartTimer()
			cycle()
		}
	})
	b.Run("target-moved", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			clear(c.plugin.view.Load().latencies)
			clear(c.plugin.view.Load().costs)
			cycle()
		}
	})
	b.Run("matrix-changed", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			c.plugin.renew()
			cycle()
		}
	})
}
