package netlatency

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	tf "k8s.io/kubernetes/pkg/scheduler/testing/framework"

	"github.com/netlatency/netlatency/apis/config"
	"github.com/netlatency/netlatency/pkg/latency"
)

// limited is a target with a maxRTT of 3 ms.
func limited(t config.Target, whenUnknown config.UnknownPolicy) config.Target {
	t.MaxRTT, t.WhenUnknown = &metav1.Duration{Duration: 3 * ms}, whenUnknown
	return t
}

func TestFilter(t *testing.T) {
	const beyond = "node(s) beyond maxRTT 3ms of target qdrant"
	const unknown = "node(s) with an unknown RTT to target qdrant, which has maxRTT 3ms"
	worst := limited(qdrantTarget(), config.UnknownAllow)
	worst.Aggregation = config.AggregationWorst
	objects := []runtime.Object{node("near"), node("far"), node("dark"), qdrant("q-0", "store")}
	some := rtts{{"near", "store"}: 3 * ms, {"far", "store"}: 3*ms + 1}
	tests := []struct {
		name     string
		targets  []config.Target
		objects  []runtime.Object
		measured rtts
		want     map[string]string // nil if Filter is not called
	}{
		{name: "no target has a limit", targets: []config.Target{qdrantTarget(), gpuTarget()}, objects: objects, measured: some},
		{name: "what is unknown is allowed", targets: []config.Target{limited(qdrantTarget(), config.UnknownAllow)}, objects: objects, measured: some,
			want: map[string]string{"far": beyond}},
		{name: "what is unknown is rejected", targets: []config.Target{limited(qdrantTarget(), config.UnknownReject)}, objects: objects, measured: some,
			want: map[string]string{"far": beyond, "dark": unknown}},
		{name: "nothing is known, and allowed", targets: []config.Target{limited(qdrantTarget(), config.UnknownAllow)}, objects: objects,
			want: map[string]string{}},
		{name: "nothing is known, and rejected", targets: []config.Target{limited(qdrantTarget(), config.UnknownReject)}, objects: objects,
			want: map[string]string{"near": unknown, "far": unknown, "dark": unknown}},
		{name: "a target that runs nowhere is unknown", targets: []config.Target{limited(gpuTarget(), config.UnknownReject)}, objects: []runtime.Object{node("near")}, measured: some,
			want: map[string]string{"near": "node(s) with an unknown RTT to target gpu, which has maxRTT 3ms"}},
		{name: "the limit is of what the target's replicas aggregate to", targets: []config.Target{worst}, measured: rtts{{"near", "store"}: 1 * ms, {"near", "other"}: 4 * ms},
			objects: []runtime.Object{node("near"), qdrant("q-0", "store"), qdrant("q-1", "other")}, want: map[string]string{"near": beyond}},
		{name: "a target without a limit refuses nothing", targets: []config.Target{gpuTarget(), limited(qdrantTarget(), config.UnknownReject)},
			objects: []runtime.Object{node("near"), qdrant("q-0", "store"), gpuNode("g")}, measured: rtts{{"near", "store"}: 1 * ms, {"near", "g"}: 90 * ms, {"g", "store"}: 9 * ms},
			want: map[string]string{"g": beyond}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newCluster(t, setting{args: newArgs(tt.targets...), objects: tt.objects})
			c.measure(tt.measured)
			if diff := cmp.Diff(tt.want, c.filter(worker())); diff != "" {
				t.Errorf("refused nodes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAStaleMeasurementIsUnknownToALimit(t *testing.T) {
	for policy, want := range map[config.UnknownPolicy]int{config.UnknownAllow: 0, config.UnknownReject: 2} {
		c := newCluster(t, setting{args: newArgs(limited(qdrantTarget(), policy)), objects: []runtime.Object{node("a"), node("b"), qdrant("q-0", "store")}})
		old := c.clock.Now().Add(-3 * time.Minute)
		d := latency.Distribution{Mean: 9 * ms, P50: 9 * ms, P90: 9 * ms, P99: 9 * ms, Min: 9 * ms, Samples: 100, Newest: old}
		c.publish(latency.NewMatrix(c.clock.Now(), map[latency.Pair]latency.Distribution{{Node: "a", Peer: "store"}: d, {Node: "b", Peer: "store"}: d}))
		if got := c.filter(worker()); len(got) != want {
			t.Errorf("%s: %d nodes are refused, want %d: %v", policy, len(got), want, got)
		}
	}
}

func TestReasonsDoNotGrowWithTheCluster(t *testing.T) {
	objects := []runtime.Object{qdrant("q-0", "store")}
	measured := rtts{}
	for i := range 200 {
		name := fmt.Sprintf("node-%d", i)
		objects = append(objects, node(name))
		measured[[2]string{name, "store"}] = time.Duration(4000+i) * time.Microsecond
	}
	c := newCluster(t, setting{args: newArgs(limited(qdrantTarget(), config.UnknownAllow)), objects: objects})
	c.measure(measured)
	reasons := map[string]int{}
	for _, reason := range c.filter(worker()) {
		reasons[reason]++
	}
	if len(reasons) != 1 {
		t.Errorf("200 nodes beyond a limit have the reasons %v, want one", reasons)
	}
}

// Preemption tries nodes on clones of the state, with pods taken away from
// them, after other cycles may have begun.
func TestFilterOnAClonedState(t *testing.T) {
	c := newCluster(t, setting{args: newArgs(limited(qdrantTarget(), config.UnknownAllow)), objects: []runtime.Object{node("far"), qdrant("q-0", "store")}})
	c.measure(rtts{{"far", "store"}: 9 * ms})
	state := framework.NewCycleState()
	if _, status := c.plugin.PreFilter(c.ctx, state, worker(), nil); !status.IsSuccess() {
		t.Fatal(status.AsError())
	}
	clone := state.Clone()
	c.measure(rtts{{"far", "store"}: 1 * ms})
	other := framework.NewCycleState()
	c.plugin.PreFilter(c.ctx, other, worker(), nil)
	far := tf.BuildNodeInfos(c.nodes)[0]
	for name, tt := range map[string]struct {
		state fwk.CycleState
		want  fwk.Code
	}{
		"the state":       {state, fwk.UnschedulableAndUnresolvable},
		"its clone":       {clone, fwk.UnschedulableAndUnresolvable},
		"the other cycle": {other, fwk.Success},
	} {
		if got := c.plugin.Filter(c.ctx, tt.state, worker(), far).Code(); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
	if c.plugin.PreFilterExtensions() != nil {
		t.Error("evicting pods would help a pod within a limit")
	}
}

func TestFilterAllocatesNothingForANodeThatItAdmits(t *testing.T) {
	c := newCluster(t, setting{args: newArgs(limited(qdrantTarget(), config.UnknownAllow)), objects: []runtime.Object{node("near"), node("dark"), qdrant("q-0", "store")}})
	c.measure(rtts{{"near", "store"}: 1 * ms})
	nodes, state, pod := tf.BuildNodeInfos(c.nodes), framework.NewCycleState(), worker()
	if _, status := c.plugin.PreFilter(c.ctx, state, pod, nodes); !status.IsSuccess() {
		t.Fatal(status.AsError())
	}
	allocs := testing.AllocsPerRun(100, func() {
		for _, n := range nodes {
			if status := c.plugin.Filter(c.ctx, state, pod, n); status != nil {
				t.Fatal(status)
			}
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations to filter %d nodes", allocs, len(nodes))
	}
}
