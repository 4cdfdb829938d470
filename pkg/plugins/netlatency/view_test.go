package netlatency

import (
	"strconv"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

func nearRedis(i int) *corev1.Pod {
	pod := worker()
	pod.Annotations = map[string]string{nearAnnotation: "qdrant; pods(app=redis) namespace=team-" + strconv.Itoa(i)}
	return pod
}

// demandOf is what pod wants, which must be something.
func (c *cluster) demandOf(pod *corev1.Pod) *demand {
	c.t.Helper()
	d, err := c.plugin.demandFor(pod)
	if d == nil || err != nil {
		c.t.Fatalf("the pod wants %v (%v)", d, err)
	}
	return d
}

func TestCostsAreComputedOnceForEachViewAndSet(t *testing.T) {
	c := newCluster(t, setting{args: newArgs(qdrantTarget(), gpuTarget()), objects: []runtime.Object{node("a"), gpuNode("g"), qdrant("q-0", "a")}})
	c.measure(rtts{{"a", "g"}: ms})
	d := c.demandOf(worker())
	view := c.plugin.view.Load()
	first, gpu := view.costsOf(d), view.latencies[d.wants[1]]
	if view.costsOf(d) != first {
		t.Error("costs were computed again although nothing has changed")
	}
	if _, err := c.client.CoreV1().Pods("search").Create(c.ctx, qdrant("q-1", "g"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the target runs on two nodes", func() bool { return len(d.wants[0].runs.Set().Replicas) == 2 })
	moved := view.costsOf(d)
	if moved == first {
		t.Error("costs are those from before the target moved")
	}
	if view.latencies[d.wants[1]] != gpu {
		t.Error("the latencies to a target that has not moved were computed again")
	}
	if c.measure(rtts{{"a", "g"}: 2 * ms}); c.plugin.view.Load().costsOf(d) == moved {
		t.Error("costs are those of the matrix before")
	}
}

func TestTheFirstPodAfterAChangeDoesNotWaitForCosts(t *testing.T) {
	c := newCluster(t, setting{args: newArgs(qdrantTarget()), objects: []runtime.Object{node("a"), qdrant("q-0", "a")}})
	known := func(d *demand) bool {
		v := c.plugin.view.Load()
		return v.costs[d] != nil && v.costs[d].current(d)
	}
	renew := func() {
		before := c.plugin.view.Load()
		c.plugin.renew().warm(before)
	}
	rule, own := c.demandOf(worker()), c.demandOf(nearRedis(1))
	c.score(nearRedis(1))
	renew()
	if !known(rule) || !known(own) {
		t.Error("a new view lacks costs that pods asked the one before for")
	}
	renew()
	if !known(rule) || known(own) {
		t.Error("want costs of the rule, and none that nobody has asked for since")
	}
	if _, err := c.client.CoreV1().Pods("search").Create(c.ctx, qdrant("q-1", "b"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the target has moved", func() bool { return len(rule.wants[0].runs.Set().Replicas) == 2 })
	c.clock.Step(viewSpacing) // admit may rest from what came before
	eventually(t, "the costs of the rule are those of where the target runs now, though no pod has asked", func() bool {
		view := c.plugin.view.Load()
		view.mu.Lock()
		defer view.mu.Unlock()
		return known(rule)
	})
}

func TestAViewKeepsWhatWasAskedForLast(t *testing.T) {
	c := newCluster(t, setting{args: newArgs(qdrantTarget()), objects: []runtime.Object{node("a"), qdrant("q-0", "a")}})
	view := c.plugin.view.Load()
	busy := c.demandOf(nearRedis(0))
	first := view.costsOf(busy)
	for i := range 2 * maxKept {
		view.costsOf(c.demandOf(nearRedis(1 + i)))
		if view.costsOf(busy) != first {
			t.Fatalf("after %d others the costs that are asked for all the time were computed again", i+1)
		}
	}
	if others := len(view.costs) - 1; others != maxKept { // that of the rule is kept besides
		t.Errorf("costs of %d demands are kept, want %d", others, maxKept)
	}
	if latencies := len(view.latencies); latencies > 2*maxKept+1 {
		t.Errorf("latencies of %d wants are kept of %d demands with two each", latencies, maxKept)
	}
}
