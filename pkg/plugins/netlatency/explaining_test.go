package netlatency

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	st "k8s.io/kubernetes/pkg/scheduler/testing"
	tf "k8s.io/kubernetes/pkg/scheduler/testing/framework"

	"github.com/netlatency/netlatency/apis/config"
)

// place runs the cycle of a pod that comes to node, of the nodes called
// feasible: with PreScore if there are several, as the scheduler does.
func (c *cluster) place(pod *corev1.Pod, node string, feasible ...string) *corev1.Binding {
	c.t.Helper()
	state := framework.NewCycleState()
	if _, status, _ := c.fwk.RunPreFilterPlugins(c.ctx, state, pod); !status.IsSuccess() {
		c.t.Fatal(status.AsError())
	}
	nodes := slices.DeleteFunc(slices.Clone(c.nodes), func(n *corev1.Node) bool { return !slices.Contains(feasible, n.Name) })
	if len(nodes) > 1 {
		if status := c.fwk.RunPreScorePlugins(c.ctx, state, pod, tf.BuildNodeInfos(nodes)); !status.IsSuccess() {
			c.t.Fatal(status.AsError())
		}
	}
	assumed := pod.DeepCopy()
	assumed.Spec.NodeName = node
	if status := c.fwk.RunReservePluginsReserve(c.ctx, state, assumed, node); !status.IsSuccess() {
		c.t.Fatal(status.AsError())
	}
	var binding *corev1.Binding
	c.client.PrependReactor("create", "pods/binding", func(action clienttesting.Action) (bool, runtime.Object, error) {
		binding = action.(clienttesting.CreateAction).GetObject().(*corev1.Binding)
		return true, binding, nil
	})
	if status := c.fwk.RunBindPlugins(c.ctx, state, assumed, node); !status.IsSuccess() {
		c.t.Fatal(status.AsError())
	}
	c.fwk.RunPostBindPlugins(c.ctx, state, assumed, node)
	return binding
}

func TestWhyAPodIsWhereItIs(t *testing.T) {
	objects := []runtime.Object{node("near"), node("middle"), node("far"), node("dark"), qdrant("q-0", "store")}
	measured := rtts{{"near", "store"}: 1 * ms, {"middle", "store"}: 1500 * ms / 1000, {"far", "store"}: 9 * ms}
	tainted := st.MakeNode().Name("tainted").Taints([]corev1.Taint{{Key: "gpu", Effect: corev1.TaintEffectNoSchedule}}).Obj()
	limit := limited(qdrantTarget(), config.UnknownAllow)
	limit.MaxRTT.Duration = ms / 2
	all := []string{"near", "middle", "far", "dark"}
	const qdrantAt = `"targets":[{"name":"qdrant","ms":`
	tests := []struct {
		name     string
		target   config.Target
		node     string
		feasible []string
		want     string
		counted  string
		event    string
	}{
		{"the nearest node", qdrantTarget(), "near", all,
			`{"node":"near","costMs":1,` + qdrantAt + `1,"weight":1,"basis":"measured"}],"best":"near","bestMs":1,"rank":1,"of":4,"matrixAgeSeconds":0}`,
			"basis=measured kept_by= 1", ""},
		{"another was better rated by others", qdrantTarget(), "far", all,
			`{"node":"far","costMs":9,` + qdrantAt + `9,"weight":1,"basis":"measured"}],"best":"near","bestMs":1,"keptBy":"scores","rank":3,"of":4,"matrixAgeSeconds":0}`,
			"basis=measured kept_by=scores 1", ""},
		{"a filter keeps the pod from the nearest", limit, "far", []string{"far"},
			`{"node":"far","costMs":9,` + qdrantAt + `9,"weight":1,"basis":"measured"}],"best":"near","bestMs":1,"keptBy":"NetLatency","matrixAgeSeconds":0}`,
			"basis=measured kept_by=NetLatency 1",
			"Warning NetLatencyFar Placed on far, 9ms from its targets on average; near would have been 1ms but for the scheduler plugin NetLatency."},
		{"a filter keeps the pod from one that is hardly nearer", limit, "middle", []string{"middle"},
			`{"node":"middle","costMs":1.5,` + qdrantAt + `1.5,"weight":1,"basis":"measured"}],"best":"near","bestMs":1,"keptBy":"NetLatency","matrixAgeSeconds":0}`,
			"basis=measured kept_by=NetLatency 1", ""},
		{"nothing is known of the node", qdrantTarget(), "dark", []string{"dark"},
			`{"node":"dark","targets":[{"name":"qdrant","weight":1,"basis":"unknown"}],"best":"near","bestMs":1,"matrixAgeSeconds":0}`,
			"basis=unknown kept_by= 1", ""},
	}
	t.Run("the nearest is none that the pod could ever go to", func(t *testing.T) {
		c := newCluster(t, setting{args: newArgs(qdrantTarget()), objects: append(objects, tainted)})
		measured := maps.Clone(measured)
		measured[[2]string{"tainted", "store"}] = ms / 10
		c.measure(measured)
		c.place(worker(), "near", all...)
		metrics := exposed(t, c.plugin.metrics.profile)
		if want := "netlatency_placements_total basis=measured kept_by=TaintToleration 1"; !slices.Contains(metrics, want) {
			t.Errorf("%q is not among the metrics\n%s", want, strings.Join(metrics, "\n"))
		}
		if n := len(c.events.Events); n > 0 {
			t.Errorf("%d events, want none", n)
		}
		if cost, excess := observed(t, c.plugin.metrics.cost), observed(t, c.plugin.metrics.excess); cost != 1 || excess != 0 {
			t.Errorf("%d costs and %d excesses are counted, want 1 and 0", cost, excess)
		}
	})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			args := newArgs(tt.target)
			args.AnnotatePlacement = true
			c := newCluster(t, setting{args: args, objects: objects})
			c.measure(measured)
			binding := c.place(worker(), tt.node, tt.feasible...)
			if diff := cmp.Diff(tt.want, binding.Annotations[PlacementAnnotation]); diff != "" {
				t.Errorf("annotation (-want +got):\n%s", diff)
			}
			if binding.Target.Name != tt.node || binding.UID != "worker" {
				t.Errorf("bound by %+v", binding)
			}
			if metrics := exposed(t, c.plugin.metrics.profile); !slices.Contains(metrics, "netlatency_placements_total "+tt.counted) {
				t.Errorf("%q is not among the metrics\n%s", tt.counted, strings.Join(metrics, "\n"))
			}
			event := ""
			select {
			case event = <-c.events.Events:
			default:
			}
			if event != tt.event {
				t.Errorf("event is %q, want %q", event, tt.event)
			}
		})
	}
}

func TestWhatIsReservedAndNotBoundIsNotCounted(t *testing.T) {
	c := newCluster(t, setting{args: newArgs(qdrantTarget()), objects: []runtime.Object{node("a"), qdrant("q-0", "store")}})
	c.measure(rtts{{"a", "store"}: 1 * ms})
	state, assumed := framework.NewCycleState(), worker()
	assumed.Spec.NodeName = "a"
	if status := c.fwk.RunReservePluginsReserve(c.ctx, state, assumed, "a"); !status.IsSuccess() {
		t.Fatal(status.AsError())
	}
	c.fwk.RunReservePluginsUnreserve(c.ctx, state, assumed, "a")
	if n := observed(t, c.plugin.metrics.cost); n != 0 {
		t.Errorf("%d placements are counted, want none", n)
	}
	if c.place(worker(), "a", "a"); observed(t, c.plugin.metrics.cost) != 1 || observed(t, c.plugin.metrics.excess) != 1 {
		t.Error("a pod that was bound is not counted once")
	}
}

func TestBindIsLeftToOthersUnlessAsked(t *testing.T) {
	c := newCluster(t, setting{args: newArgs(qdrantTarget()), objects: []runtime.Object{node("a"), node("b"), qdrant("q-0", "store")}})
	c.measure(rtts{{"a", "store"}: 1 * ms, {"b", "store"}: 2 * ms})
	if binding := c.place(worker(), "a", "a", "b"); binding.Target.Name != "a" || len(binding.Annotations) > 0 {
		t.Errorf("bound by %+v, want no annotation", binding)
	}
}

func TestAPodWithoutTargetsIsNotExplained(t *testing.T) {
	args := newArgs()
	args.AnnotatePlacement = true
	c := newCluster(t, setting{args: args, objects: []runtime.Object{node("a"), node("b")}})
	if binding := c.place(worker(), "a", "a", "b"); len(binding.Annotations) > 0 {
		t.Errorf("annotated with %v", binding.Annotations)
	}
}
