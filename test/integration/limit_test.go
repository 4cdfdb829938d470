package integration

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/netlatency/netlatency/pkg/placement"
	"github.com/netlatency/netlatency/test/sandbox"
	"github.com/netlatency/netlatency/test/sandbox/scenario"
)

// A limit holds while the network changes, and those who wait for a nearer
// node go as soon as there is one.
func TestLimit(t *testing.T) {
	s := start(t, "metro.yaml", nil)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	values := s.Values()
	qdrant := values["targets"].([]any)[0].(map[string]any)
	qdrant["maxRTT"], qdrant["whenUnknown"] = "3ms", "Reject"
	values["targets"] = []any{qdrant}
	values["scheduler"].(map[string]any)["args"].(map[string]any)["annotatePlacement"] = true
	if err := s.InstallChart(ctx, values); err != nil {
		t.Fatal(err)
	}
	if _, err := s.StartQdrant(ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.Cluster.CreateNamespace(ctx, sandbox.WorkerNamespace, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.SchedulersKnow(ctx, 2, len(s.Nodes)*(len(s.Nodes)-1)); err != nil {
		t.Fatal(err)
	}
	// From Hetzner to Qdrant it is 0.5 ms at first, from Neuralrack 8 ms.
	const near, far, store = "hetzner", "neuralrack", "gthost"
	createWorkers(ctx, t, s, "first", 20)
	waitBound(ctx, t, s, "first", 20)
	boundOn(ctx, t, s, "first", near, store)
	annotated(ctx, t, s, "first")
	deleteWorkers(ctx, t, s, "first")

	// More than the storage nodes have room for, while no other is near.
	change(ctx, t, s, near, store, func(p *scenario.Path) { p.RTT = metav1.Duration{Duration: 12 * time.Millisecond} })
	// Those who come meanwhile go by what is measured at their moment.
	const meanwhile = 20
	for i := range meanwhile {
		if _, err := s.Cluster.Client().CoreV1().Pods(sandbox.WorkerNamespace).Create(ctx, worker("meanwhile", i), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		sleep(ctx, t, sandbox.SourceInterval/8)
	}
	waitBound(ctx, t, s, "meanwhile", meanwhile)
	boundOn(ctx, t, s, "meanwhile", near, store)
	annotated(ctx, t, s, "meanwhile")
	deleteWorkers(ctx, t, s, "meanwhile")
	waitLatency(ctx, t, s, near, store, func(mean time.Duration) bool { return mean > 5*time.Millisecond })
	sleep(ctx, t, 2*sandbox.SourceInterval)
	const pods = 150
	createWorkers(ctx, t, s, "limited", pods)
	bound := 0
	waitFor(ctx, t, "the storage nodes to be full", func() (bool, error) {
		before := bound
		bound = boundOn(ctx, t, s, "limited", store)
		return bound >= 100 && bound == before, nil
	})
	sleep(ctx, t, time.Second) // until the last has been tried
	attempts := unschedulable(ctx, t, s)
	sleep(ctx, t, 5*sandbox.SourceInterval)
	if now := boundOn(ctx, t, s, "limited", store); now >= pods {
		t.Fatalf("all %d pods are bound: none had to wait", now)
	}
	if more := unschedulable(ctx, t, s) - attempts; more > 0 {
		t.Errorf("waiting pods were tried %v times in five reads of the agents that changed nothing", more)
	}
	saysWhy(ctx, t, s, "limited", "node(s) beyond maxRTT 3ms of target qdrant")

	change(ctx, t, s, near, store, func(*scenario.Path) {})
	waitLatency(ctx, t, s, near, store, func(mean time.Duration) bool { return mean < 2*time.Millisecond })
	measured := time.Now()
	_, last := waitBound(ctx, t, s, "limited", pods)
	boundOn(ctx, t, s, "limited", near, store)
	took := last.Sub(measured)
	t.Logf("%d pods that had waited were bound %.1f s after the agents had measured the better path", pods-bound, took.Seconds())
	if rounds := 2 * sandbox.SourceInterval * 11 / 10; took > rounds+time.Second { // a second to see it
		t.Errorf("waiting pods were bound %v after the path was measured, want two reads of the agents, %v", took, rounds)
	}
	annotated(ctx, t, s, "limited")
	deleteWorkers(ctx, t, s, "limited")

	// Qdrant moves to Neuralrack, from where everything else is beyond 3 ms.
	s.Scenario.Applications.Qdrant.Places = []string{far}
	waitFor(ctx, t, "Qdrant to have moved", func() (bool, error) {
		nodes, err := s.StartQdrant(ctx)
		for _, node := range nodes {
			if providerOf(s, node) != far {
				return false, err
			}
		}
		return len(nodes) == s.Scenario.Applications.Qdrant.Replicas, err
	})
	createWorkers(ctx, t, s, "moved", 30)
	waitBound(ctx, t, s, "moved", 30)
	boundOn(ctx, t, s, "moved", far)
	annotated(ctx, t, s, "moved")
}

func providerOf(s *sandbox.Sandbox, node string) string {
	for _, n := range s.Scenario.NodeList() {
		if n.Name == node {
			return n.Provider
		}
	}
	return ""
}

func workersOf(ctx context.Context, t *testing.T, s *sandbox.Sandbox, group string) []corev1.Pod {
	t.Helper()
	pods, err := s.Cluster.Client().CoreV1().Pods(sandbox.WorkerNamespace).List(ctx, metav1.ListOptions{LabelSelector: "group=" + group})
	if err != nil {
		t.Fatal(err)
	}
	return pods.Items
}

// boundOn counts the pods of a group that are bound, which may be only to
// nodes of providers.
func boundOn(ctx context.Context, t *testing.T, s *sandbox.Sandbox, group string, providers ...string) int {
	t.Helper()
	bound := 0
	for _, pod := range workersOf(ctx, t, s, group) {
		if pod.Spec.NodeName == "" {
			continue
		}
		bound++
		if provider := providerOf(s, pod.Spec.NodeName); !slices.Contains(providers, provider) {
			t.Errorf("%s is bound to %s of %s, want one of %v", pod.Name, pod.Spec.NodeName, provider, providers)
		}
	}
	return bound
}

func saysWhy(ctx context.Context, t *testing.T, s *sandbox.Sandbox, group, reason string) {
	t.Helper()
	for _, pod := range workersOf(ctx, t, s, group) {
		for _, condition := range pod.Status.Conditions {
			if pod.Spec.NodeName == "" && condition.Type == corev1.PodScheduled && !strings.Contains(condition.Message, reason) {
				t.Errorf("%s waits because of %q, want %q in it", pod.Name, condition.Message, reason)
			}
		}
	}
}

// annotated checks what the scheduler wrote on the pods of a group: their node,
// and that by what was measured then it was within the limit.
func annotated(ctx context.Context, t *testing.T, s *sandbox.Sandbox, group string) {
	t.Helper()
	for _, pod := range workersOf(ctx, t, s, group) {
		var record placement.Record
		text := pod.Annotations["netlatency.io/placement"]
		if err := json.Unmarshal([]byte(text), &record); err != nil || record.Node != pod.Spec.NodeName || len(record.Targets) != 1 || record.Targets[0].Name != "qdrant" {
			t.Errorf("%s on %s is annotated with %q (%v)", pod.Name, pod.Spec.NodeName, text, err)
			continue
		}
		if ms := record.Targets[0].MS; ms == nil || *ms > 3 {
			t.Errorf("%s was bound to %s beyond its limit of 3 ms: %s", pod.Name, pod.Spec.NodeName, text)
		}
	}
}

// unschedulable is how often the schedulers found no node for a pod.
func unschedulable(ctx context.Context, t *testing.T, s *sandbox.Sandbox) float64 {
	t.Helper()
	pods, err := s.SchedulerPods(ctx)
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for i := range pods {
		families, err := s.SchedulerMetrics(ctx, &pods[i])
		if err != nil {
			t.Fatal(err)
		}
		sum += sandbox.MetricValue(families, "scheduler_schedule_attempts_total", map[string]string{"profile": sandbox.SchedulerName, "result": "unschedulable"})
	}
	return sum
}

// waitLatency waits until the agents have measured of all pairs between two
// providers what holds accepts.
func waitLatency(ctx context.Context, t *testing.T, s *sandbox.Sandbox, a, b string, holds func(mean time.Duration) bool) {
	t.Helper()
	pairs := between(s, a, b)
	waitFor(ctx, t, "the agents to measure the path as it is", func() (bool, error) {
		known := rows(ctx, t, s, pairs)
		for _, d := range known {
			if !holds(d.Mean) {
				return false, nil
			}
		}
		return len(known) == len(pairs), nil
	})
}
