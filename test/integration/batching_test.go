package integration

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/test/sandbox"
	"github.com/netlatency/netlatency/test/sandbox/cluster"
)

// A burst of Ray workers that KubeRay makes, each as large as a node, as KubeRay
// advises: with the chart's profile the scheduler takes nearly all of them from
// the ranking of the one before (KEP-5598, opportunistic batching), and they
// are on the nearest nodes all the same.
func TestBatching(t *testing.T) {
	const (
		store      = "store"
		first, all = 2, 98
	)
	tiers := []struct {
		name  string
		nodes int
		rtt   time.Duration
	}{{"near", 60, 500 * time.Microsecond}, {"middle", 30, 2500 * time.Microsecond}, {"far", 20, 8 * time.Millisecond}}

	room := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("16Gi")}
	address := netip.AddrFrom4([4]byte{192, 0, 2, 1})
	nodes := []cluster.NodeSpec{{
		Name: store, Allocatable: room, InternalIP: address,
		Taints: []corev1.Taint{{Key: store, Effect: corev1.TaintEffectNoSchedule}},
	}}
	rtts, rooms, tierOf := make(map[latency.Pair]time.Duration), make(map[string]int), make(map[string]string)
	for _, tier := range tiers {
		rooms[tier.name] = tier.nodes
		for i := range tier.nodes {
			address = address.Next()
			name := fmt.Sprintf("%s-%02d", tier.name, i)
			nodes = append(nodes, cluster.NodeSpec{Name: name, Allocatable: room, InternalIP: address})
			rtts[latency.Pair{Node: name, Peer: store}] = tier.rtt
			tierOf[name] = tier.name
		}
	}
	p := startPlacementOn(t, cluster.Options{Nodes: nodes, KubeRay: true})
	p.recordRTTs(t, rtts)
	p.runQdrantOn(t, store)
	configuration, err := cluster.SchedulerConfiguration(filepath.Join("..", "..", "manifests", "chart", "netlatency"), map[string]any{
		"targets":   []any{map[string]any{"name": "qdrant", "pods": map[string]any{"labelSelector": map[string]any{"matchLabels": map[string]any{"app": "qdrant"}}}}},
		"scheduler": map[string]any{"args": map[string]any{"source": map[string]any{"file": map[string]any{"path": p.recording()}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	configuration["leaderElection"] = map[string]any{"leaderElect": false}
	configuration["clientConnection"].(map[string]any)["kubeconfig"] = p.kubeconfig()
	text, err := yaml.Marshal(configuration)
	if err != nil {
		t.Fatal(err)
	}
	s, _ := p.scheduleBy(t, string(text))
	s.knows(t, len(rtts))

	service, err := cluster.ReadRayService(filepath.Join("..", "sandbox", "cluster", "testdata", "rayservice.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	key := types.NamespacedName{Namespace: placementSpace, Name: "batch"}
	service.Rename(key)
	if err := service.SetSchedulerName(sandbox.SchedulerName); err != nil {
		t.Fatal(err)
	}
	// Two do not fit on a node, but one fits beside the head.
	whole := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("3"), corev1.ResourceMemory: resource.MustParse("12Gi")}
	if err := service.SetWorkerRequests(whole); err != nil {
		t.Fatal(err)
	}
	if err := p.ApplyRayService(t.Context(), service); err != nil {
		t.Fatal(err)
	}
	if _, err := p.WaitWorkersBound(t.Context(), key, first); err != nil {
		t.Fatal(err)
	}
	if err := p.WaitRayServiceRunning(t.Context(), key); err != nil {
		t.Fatal(err)
	}

	before := s.hints(t)
	if err := p.ScaleRayService(t.Context(), key, all); err != nil {
		t.Fatal(err)
	}
	workers, err := p.WaitWorkersBound(t.Context(), key, all)
	if err != nil {
		t.Fatal(err)
	}
	hints := s.hints(t) - before
	const burst = all - first
	t.Logf("%.0f of %d workers of a burst were placed by the ranking of the one before", hints, burst)
	if hints < 0.9*burst {
		t.Errorf("%.0f of %d workers were placed by the ranking of the one before, want nine of ten", hints, burst)
	}

	on, perNode := make(map[string]int), make(map[string]int)
	for _, w := range workers {
		on[tierOf[w.Spec.NodeName]]++
		if perNode[w.Spec.NodeName]++; perNode[w.Spec.NodeName] > 1 {
			t.Errorf("%s has more than one worker, each of which fills it", w.Spec.NodeName)
		}
	}
	if near, middle := on["near"], on["middle"]; near != rooms["near"] || middle != rooms["middle"] {
		t.Errorf("workers are on %v, want the nearest first, of which there are %v", on, rooms)
	}
}

// hints is how many pods were placed by the ranking of the one before.
func (s *scheduler) hints(t *testing.T) float64 {
	t.Helper()
	families, err := s.metrics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return sandbox.MetricValue(families, "scheduler_batch_attempts_total", map[string]string{"profile": s.profile, "result": "hint_used"})
}
