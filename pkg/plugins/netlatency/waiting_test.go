package netlatency

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"github.com/netlatency/netlatency/apis/config"
)

// pending is a pod of the cluster's profile that waits for a node.
func (c *cluster) pending(name string) *corev1.Pod {
	c.t.Helper()
	pod := st.MakePod().Namespace("ray").Name(name).UID(name).SchedulerName(c.plugin.metrics.profile).Obj()
	if _, err := c.client.CoreV1().Pods("ray").Create(c.ctx, pod, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
	eventually(c.t, "the plugin knows the pod", func() bool {
		_, err := c.plugin.pods.Pods("ray").Get(name)
		return err == nil
	})
	return pod
}

// wakes looks through the waiting pods as admit does, and says whom it woke.
func (c *cluster) wakes() []string {
	c.t.Helper()
	c.plugin.activate(c.ctx)
	return c.woken()
}

func TestAWaitingPodIsTriedWhenANodeCrossesItsLimit(t *testing.T) {
	c := newCluster(t, setting{args: newArgs(limited(qdrantTarget(), config.UnknownReject)), objects: []runtime.Object{node("a"), node("b"), qdrant("q-0", "store")}})
	at := func(a, b time.Duration) {
		c.measure(rtts{{"a", "store"}: a, {"b", "store"}: b, {"c", "store"}: 1 * ms})
	}
	at(2*ms, 5*ms)
	w0, w1 := c.pending("w-0"), c.pending("w-1")
	c.filter(w0)
	c.filter(w1)
	waits := func(what string, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, c.wakes()); diff != "" {
			t.Errorf("%s: pods that are tried again (-want +got):\n%s", what, diff)
		}
	}
	waits("nothing has changed")
	at(1*ms, 9*ms)
	waits("nodes moved, each on its side")
	at(4*ms, 9*ms)
	waits("a node crossed outwards")
	at(2*ms, 9*ms)
	waits("and back", "w-0", "w-1")
	waits("they were told already")
	c.filter(w0)
	at(2*ms, 3*ms)
	waits("another crossed, for the one that was tried and for the one that was not", "w-0", "w-1")
	for range 10 {
		at(2*ms, 3*ms)
		waits("another read of the same")
	}

	t.Run("a target that moves", func(t *testing.T) {
		at(9*ms, 9*ms)
		c.filter(w0)
		c.filter(w1)
		c.wakes()
		pods := c.client.CoreV1().Pods("search")
		if _, err := pods.Create(c.ctx, qdrant("q-1", "b"), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := pods.Delete(c.ctx, "q-0", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		tried := map[string]bool{} // the target may move between the one and the other
		eventually(t, "both are tried again", func() bool {
			for _, name := range c.wakes() {
				tried[name] = true
			}
			return len(tried) == 2
		})
	})
	t.Run("data that grows stale counts as unknown, and then again", func(t *testing.T) {
		c.plugin.renew()
		c.filter(w0)
		c.filter(w1)
		c.clock.Step(time.Hour)
		c.plugin.renew()
		waits("only b, where the target is itself, is known to be near")
	})
}

func TestWhoeverLeavesDoesNotWait(t *testing.T) {
	c := newCluster(t, setting{args: newArgs(limited(qdrantTarget(), config.UnknownAllow)), objects: []runtime.Object{node("a"), qdrant("q-0", "store")}})
	c.measure(rtts{{"a", "store"}: 9 * ms})
	bound, deleted, missed, replaced := c.pending("bound"), c.pending("deleted"), c.pending("missed"), c.pending("replaced")
	for _, pod := range []*corev1.Pod{bound, deleted, missed, replaced} {
		c.filter(pod)
	}
	// In its cycle while the informer has said already that it is gone.
	ghost := missed.DeepCopy()
	ghost.Name, ghost.UID = "ghost", "ghost"
	c.filter(ghost)
	imposter := replaced.DeepCopy()
	imposter.UID = "earlier"
	c.filter(imposter)
	if got := len(c.plugin.waiting.all()); got != 6 {
		t.Fatalf("%d pods wait, want 6", got)
	}
	pods := c.client.CoreV1().Pods("ray")
	bound.Spec.NodeName = "a"
	if _, err := pods.Update(c.ctx, bound, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := pods.Delete(c.ctx, "deleted", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "two have left", func() bool { return len(c.plugin.waiting.all()) == 4 })
	c.measure(rtts{{"a", "store"}: 1 * ms})
	if diff := cmp.Diff([]string{"missed", "replaced"}, c.wakes()); diff != "" {
		t.Errorf("pods that are tried again (-want +got):\n%s", diff)
	}
	if got := len(c.plugin.waiting.all()); got != 2 {
		t.Errorf("%d pods wait, want those of which the informers know", got)
	}
}

// A view that is published between the moments in which PreFilter enters the
// pod and has its costs must not be missed.
func TestAPodInItsCycleIsNotMissed(t *testing.T) {
	c := newCluster(t, setting{args: newArgs(limited(qdrantTarget(), config.UnknownAllow)), objects: []runtime.Object{node("a"), qdrant("q-0", "store")}})
	c.measure(rtts{{"a", "store"}: 9 * ms})
	pod := c.pending("w-0")
	c.plugin.waiting.enter(pod)
	d, _ := c.plugin.demandFor(pod)
	old := c.plugin.current().costsOf(d)
	c.measure(rtts{{"a", "store"}: 1 * ms})
	if diff := cmp.Diff([]string{"w-0"}, c.wakes()); diff != "" {
		t.Errorf("pods that are tried again (-want +got):\n%s", diff)
	}
	c.plugin.waiting.saw(pod.UID, old)
	c.plugin.renew()
	if diff := cmp.Diff([]string{"w-0"}, c.wakes()); diff != "" {
		t.Errorf("pods that are tried again after they saw the old view (-want +got):\n%s", diff)
	}
}

func TestWaitingPodsAreWokenByThemselves(t *testing.T) {
	args := newArgs(limited(qdrantTarget(), config.UnknownAllow))
	args.Source.Agents.Interval.Duration = time.Minute
	c := newCluster(t, setting{realClock: true, args: args, objects: []runtime.Object{node("a"), qdrant("q-0", "store")}})
	c.measure(rtts{{"a", "store"}: 9 * ms})
	pod := c.pending("w-0")
	eventually(t, "the node is too far", func() bool { return len(c.filter(pod)) == 1 })
	c.woken()
	c.measure(rtts{{"a", "store"}: 1 * ms})
	eventually(t, "the pod is tried again when the node is near", func() bool { return len(c.woken()) == 1 })
	eventually(t, "it is counted", func() bool { return counted(t, c.plugin.metrics.activations) >= 1 })
}

func TestHints(t *testing.T) {
	pod := st.MakePod().Name("w-0").UID("w-0").Label("a", "b").Obj()
	annotated := pod.DeepCopy()
	annotated.Annotations = map[string]string{nearAnnotation: "none"}
	other := annotated.DeepCopy()
	other.UID = "w-1"
	relabelled := pod.DeepCopy()
	relabelled.Labels = nil
	touched := pod.DeepCopy()
	touched.Annotations = map[string]string{"other": "x"}
	n := node("a")
	tests := []struct {
		name          string
		hint          fwk.QueueingHintFn
		before, after any
		want          fwk.QueueingHint
	}{
		{"a node joins", afterNode, nil, n, fwk.Queue},
		{"a node changes its taints", afterNode, n, n, fwk.QueueSkip},
		{"the pod is annotated", afterPod, pod, annotated, fwk.Queue},
		{"the pod loses its annotation", afterPod, annotated, pod, fwk.Queue},
		{"the pod changes its labels", afterPod, pod, relabelled, fwk.Queue},
		{"the pod changes something else", afterPod, pod, touched, fwk.QueueSkip},
		{"another pod is annotated", afterPod, pod, other, fwk.QueueSkip},
		{"what is no pod", afterPod, nil, n, fwk.QueueSkip},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := tt.hint(klog.Background(), pod, tt.before, tt.after); err != nil || got != tt.want {
				t.Errorf("hint is %v (%v), want %v", got, err, tt.want)
			}
		})
	}
}
