package netlatency

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	fwk "k8s.io/kube-scheduler/framework"
	schedulerconfig "k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/feature"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/noderesources"
	st "k8s.io/kubernetes/pkg/scheduler/testing"
	tf "k8s.io/kubernetes/pkg/scheduler/testing/framework"
)

// BenchmarkCycleOfNodeResourcesFit is what BenchmarkCycle is measured against:
// the part in a cycle of a plugin that every scheduler runs, in its default
// configuration. It has no NormalizeScore.
func BenchmarkCycleOfNodeResourcesFit(b *testing.B) {
	plugin, err := noderesources.NewFit(b.Context(), &schedulerconfig.NodeResourcesFitArgs{
		ScoringStrategy: &schedulerconfig.ScoringStrategy{
			Type:      schedulerconfig.LeastAllocated,
			Resources: []schedulerconfig.ResourceSpec{{Name: "cpu", Weight: 1}, {Name: "memory", Weight: 1}},
		},
	}, nil, feature.Features{})
	if err != nil {
		b.Fatal(err)
	}
	fit := plugin.(*noderesources.Fit)
	pod := st.MakePod().Name("worker").Req(map[corev1.ResourceName]string{"cpu": "1", "memory": "1Gi"}).Obj()
	for _, size := range []int{100, 1000, 5000} {
		b.Run(fmt.Sprintf("%dnodes", size), func(b *testing.B) {
			nodes := make([]*corev1.Node, size)
			for i := range nodes {
				nodes[i] = st.MakeNode().Name(fmt.Sprintf("node-%04d.example.internal", i)).
					Capacity(map[corev1.ResourceName]string{"cpu": "32", "memory": "128Gi"}).Obj()
			}
			infos := tf.BuildNodeInfos(nodes)
			scores := make(fwk.NodeScoreList, size)
			b.ReportAllocs()
			for b.Loop() {
				state := framework.NewCycleState()
				if status := fit.PreScore(b.Context(), state, pod, infos); !status.IsSuccess() {
					b.Fatal(status)
				}
				for i, info := range infos {
					score, status := fit.Score(b.Context(), state, pod, info)
					if !status.IsSuccess() {
						b.Fatal(status)
					}
					scores[i].Score = score
				}
			}
			if scores[0].Score == 0 {
				b.Fatal("the nodes are rated as full")
			}
		})
	}
}
