package netlatency

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/netlatency/netlatency/apis/config"
)

func TestTheAgentsAreToldWhereTheTargetsOfRulesRun(t *testing.T) {
	replica := qdrant("q-0", "store")
	replica.Status.PodIPs = []corev1.PodIP{{IP: "10.0.0.1"}}
	args := newArgs(qdrantTarget(), gpuTarget())
	args.TargetSlices = config.TargetSlices{Namespace: "netlatency", Service: "netlatency-targets"}
	args.Rules = []config.Rule{{Targets: []string{"qdrant"}}}
	gpu := gpuNode("gpu")
	gpu.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.1"}}
	agents := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "netlatency", Name: "netlatency-agent"}}
	c := newCluster(t, setting{args: args, realClock: true, objects: []runtime.Object{node("store"), gpu, replica, agents}})

	var nodes []string
	eventually(t, "the agents are told", func() bool {
		list, err := c.client.DiscoveryV1().EndpointSlices("netlatency").List(c.ctx, metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=netlatency-targets"})
		if err != nil {
			t.Fatal(err)
		}
		for _, slice := range list.Items {
			for _, endpoint := range slice.Endpoints {
				nodes = append(nodes, *endpoint.NodeName)
			}
		}
		return len(nodes) > 0
	})
	if diff := cmp.Diff([]string{"store"}, nodes); diff != "" {
		t.Errorf("nodes (-want +got):\n%s", diff)
	}
	for _, want := range []string{"netlatency_target_nodes_left_out 0", "netlatency_target_slices_failures_total 0"} {
		if lines := exposed(t, c.plugin.metrics.profile); !slices.Contains(lines, want) {
			t.Errorf("the metrics lack %q:\n%s", want, strings.Join(lines, "\n"))
		}
	}
}

func TestProfilesShareAPublisher(t *testing.T) {
	told := func(namespace string) *config.NetLatencyArgs {
		args := newArgs(qdrantTarget())
		args.TargetSlices = config.TargetSlices{Namespace: namespace, Service: "netlatency-targets"}
		return args
	}
	c := newCluster(t, setting{args: newArgs()})
	factory := newFactory((&sources{}).open, c.clock)
	var publishers []any
	for name, args := range map[string]*config.NetLatencyArgs{"told": told("netlatency"), "told too": told("netlatency"), "told elsewhere": told("probes"), "not told": told("")} {
		if _, err := c.profile(name, args, factory); err != nil {
			t.Fatal(err)
		}
		states.mu.Lock()
		if p := states.plugins[name].publisher; p != nil && !slices.Contains(publishers, any(p)) {
			publishers = append(publishers, p)
		}
		states.mu.Unlock()
	}
	if len(publishers) != 2 {
		t.Errorf("%d publishers: want one for each namespace", len(publishers))
	}
}
