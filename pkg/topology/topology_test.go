package topology

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"github.com/netlatency/netlatency/pkg/latency"
)

func TestGroupOf(t *testing.T) {
	providerID := func(n *corev1.Node, id string) *corev1.Node {
		n.Spec.ProviderID = id
		return n
	}
	labels := []string{"netlatency.io/provider", "claudie.io/provider"}
	tests := []struct {
		name string
		node *corev1.Node
		want latency.NodeGroup
	}{
		{"no labels at all", st.MakeNode().Name("n").Obj(), latency.NodeGroup{}},
		{
			"everything",
			st.MakeNode().Name("n").Label("netlatency.io/provider", "hetzner").Label("topology.kubernetes.io/region", "eu").Label("topology.kubernetes.io/zone", "fsn1").Obj(),
			latency.NodeGroup{Provider: "hetzner", Region: "eu", Zone: "fsn1"},
		},
		{
			"the first provider label that the node has",
			st.MakeNode().Name("n").Label("claudie.io/provider", "gthost").Obj(),
			latency.NodeGroup{Provider: "gthost"},
		},
		{
			"an earlier provider label wins over a later one and over the provider ID",
			providerID(st.MakeNode().Name("n").Label("claudie.io/provider", "b").Label("netlatency.io/provider", "a").Obj(), "hcloud://1"),
			latency.NodeGroup{Provider: "a"},
		},
		{"the scheme of the provider ID", providerID(st.MakeNode().Name("n").Obj(), "hcloud://12345"), latency.NodeGroup{Provider: "hcloud"}},
		{"a provider ID without a scheme", providerID(st.MakeNode().Name("n").Obj(), "12345"), latency.NodeGroup{}},
		{"a zone alone", st.MakeNode().Name("n").Label("topology.kubernetes.io/zone", "a").Obj(), latency.NodeGroup{Zone: "a"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, GroupOf(tt.node, labels)); diff != "" {
				t.Errorf("group (-want +got):\n%s", diff)
			}
		})
	}
}
