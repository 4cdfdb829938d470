package agent

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/klog/v2/ktesting"

	"github.com/netlatency/netlatency/pkg/exposition"
	"github.com/netlatency/netlatency/pkg/probe"
)

// targetSlice is one that the scheduler writes about a target; port 0 is none.
func targetSlice(name string, port int32) sliceBuilder {
	b := slice(name)
	b.Labels = map[string]string{discoveryv1.LabelServiceName: "netlatency-targets"}
	b.Ports = nil
	if port != 0 {
		b.Ports = []discoveryv1.EndpointPort{{Protocol: new(corev1.ProtocolTCP), Port: new(port)}}
	}
	return b
}

// bare is the peer on a node without an agent, whose target has a port.
func bare(node, address string, port uint16) peer {
	return peer{Node: node, Address: netip.MustParseAddr(address), TCPPort: port}
}

func TestNodesOfTargets(t *testing.T) {
	agents := []peer{agentOn("node-2", "10.0.0.2"), agentOn("node-3", "10.0.0.3")}
	udp := discoveryv1.EndpointPort{Protocol: new(corev1.ProtocolUDP), Port: new(int32(6333))}
	tests := map[string]struct {
		slices  []sliceBuilder
		bare    []peer
		targets map[string]string
	}{
		"where an agent is, it is probed": {
			slices:  []sliceBuilder{targetSlice("qdrant", 6333).ready("node-2", "10.1.0.2"), targetSlice("gpu", 0).ready("node-3", "192.0.2.3")},
			targets: map[string]string{"node-2": "qdrant", "node-3": "gpu"},
		},
		"where none is, what runs there is, if it has a port": {
			slices:  []sliceBuilder{targetSlice("qdrant", 6333).ready("node-4", "10.1.0.4"), targetSlice("gpu", 0).ready("node-5", "192.0.2.5")},
			bare:    []peer{bare("node-4", "10.1.0.4", 6333)},
			targets: map[string]string{"node-4": "qdrant"},
		},
		"a node of two targets is probed at the one with a port": {
			slices:  []sliceBuilder{targetSlice("gpu", 0).ready("node-4", "192.0.2.4"), targetSlice("qdrant", 6333).ready("node-4", "10.1.0.4")},
			bare:    []peer{bare("node-4", "10.1.0.4", 6333)},
			targets: map[string]string{"node-4": "qdrant"},
		},
		"the own node is no peer, a replica that is not ready no target": {
			slices: []sliceBuilder{targetSlice("qdrant", 6333).ready("node-1", "10.1.0.1").
				endpoint("node-2", "10.1.0.2", discoveryv1.EndpointConditions{Ready: new(false)})},
			targets: map[string]string{},
		},
		"an agent of this address family is a target's by either": {
			slices:  []sliceBuilder{targetSlice("qdrant", 6333).ipv6().ready("node-2", "fd00::2").ready("node-4", "fd00::4")},
			targets: map[string]string{"node-2": "qdrant"},
		},
		"addresses that lead nowhere, or home, are not probed": {
			slices: []sliceBuilder{targetSlice("qdrant", 6333).
				ready("node-4", "127.0.0.1").ready("node-5", "169.254.169.254").ready("node-6", "224.0.0.1").ready("node-7", "0.0.0.0").
				ready("node-8", "not an address").ready("node-9", "255.255.255.255").ready("node-10", "10.0.0.1")},
			targets: map[string]string{},
		},
		"an address that is another peer's is not taken from it": {
			slices: []sliceBuilder{targetSlice("qdrant", 6333).ready("node-4", "10.0.0.2").
				ready("node-5", "10.1.0.5").ready("node-6", "10.1.0.5").ready("node-7", "::ffff:10.1.0.5")},
			bare:    []peer{bare("node-5", "10.1.0.5", 6333)},
			targets: map[string]string{"node-5": "qdrant"},
		},
		"names and ports that cannot be": {
			slices: []sliceBuilder{
				targetSlice("a", 6333).ready("Node_4", "10.1.0.4").ready("", "10.1.0.5"),
				targetSlice("b", 70000).ready("node-6", "10.1.0.6"), targetSlice("c", -1).ready("node-7", "10.1.0.7"),
				targetSlice("d", 0).ports(udp).ready("node-8", "10.1.0.8"),
			},
			targets: map[string]string{},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			logger, _ := ktesting.NewTestContext(t)
			var from []*discoveryv1.EndpointSlice
			for _, s := range test.slices {
				from = append(from, s.EndpointSlice)
			}
			peers, targets := withTargets(slices.Clone(agents), from, "node-1", addresses{netip.MustParseAddr("10.0.0.1")}, true, logger)
			want := append(slices.Clone(agents), test.bare...)
			if diff := cmp.Diff(want, peers, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Errorf("peers (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.targets, targets); diff != "" {
				t.Errorf("targets (-want +got):\n%s", diff)
			}
		})
	}
}

func TestATargetIsProbedInTheFirstOfTheAgentsFamilies(t *testing.T) {
	logger, _ := ktesting.NewTestContext(t)
	ipv4, ipv6 := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")
	from := []*discoveryv1.EndpointSlice{
		targetSlice("a-ipv4", 6333).ready("node-2", "10.1.0.2").EndpointSlice,
		targetSlice("a-ipv6", 6333).ready("node-2", "fd01::2").ready("node-3", "fd01::3").EndpointSlice,
	}
	from[1].AddressType = discoveryv1.AddressTypeIPv6
	for want, own := range map[string]addresses{
		"10.1.0.2 fd01::3": {ipv4, ipv6},
		"fd01::2 fd01::3":  {ipv6, ipv4},
		"10.1.0.2":         {ipv4},
	} {
		var got []string
		peers, _ := withTargets(nil, from, "node-1", own, true, logger)
		for _, p := range peers {
			got = append(got, p.Address.String())
		}
		if strings.Join(got, " ") != want {
			t.Errorf("an agent at %v probes %q: want %q", own, got, want)
		}
	}
}

func TestTheNodesOfTargetsAreAmongTheChosen(t *testing.T) {
	var all []peer
	targets := make(map[string]string)
	for i := range 300 {
		p := peer{Node: fmt.Sprintf("node-%d", i), ProbePort: 9465}
		switch {
		case i < 100:
			targets[p.Node] = "gpu"
		case i < 103:
			targets[p.Node] = "qdrant"
		}
		all = append(all, p)
	}
	choice := func(from []peer, limit int) (counts map[string]int, leftOut int) {
		chosen, leftOut := choose(from, targets, "node-x", "", limit)
		counts = make(map[string]int)
		for _, p := range chosen {
			counts[targets[p.Node]]++
		}
		return counts, leftOut
	}

	t.Run("all of them, and a sample of the rest", func(t *testing.T) {
		counts, leftOut := choice(all, 128)
		if diff := cmp.Diff(map[string]int{"gpu": 100, "qdrant": 3, "": 25}, counts); diff != "" || leftOut != 172 {
			t.Errorf("%d left out: want 172; chosen by target (-want +got):\n%s", leftOut, diff)
		}
	})
	t.Run("of more than the limit, of each target alike", func(t *testing.T) {
		counts, _ := choice(all, 20)
		if diff := cmp.Diff(map[string]int{"gpu": 17, "qdrant": 3}, counts); diff != "" {
			t.Errorf("chosen by target (-want +got):\n%s", diff)
		}
	})
	t.Run("a list of nodes that have no agents takes half of the places at most", func(t *testing.T) {
		spoofed := slices.Clone(all)
		for i := range 100 {
			spoofed[i].ProbePort = 0
		}
		counts, leftOut := choice(spoofed, 128)
		if diff := cmp.Diff(map[string]int{"gpu": 64, "qdrant": 3, "": 61}, counts); diff != "" || leftOut != 172 {
			t.Errorf("%d left out: want 172; chosen by target (-want +got):\n%s", leftOut, diff)
		}
	})
}

func TestATargetWithoutAnAgentIsProbedByTCPUntilThereIsOne(t *testing.T) {
	o := testOptions()
	o.Methods = []string{"udp", "icmp", "tcp"}
	agents, qdrant := slice("a").ready("node-2", "10.0.0.2"), targetSlice("qdrant", 6333).ready("node-2", "10.1.0.2").ready("node-3", "10.1.0.3")
	f := newFixture(t, o, agents, qdrant)
	working := []probe.Method{probe.MethodUDP, probe.MethodICMP, probe.MethodTCP}
	methods := func() map[string]string {
		f.answers(working...)
		methods := make(map[string]string)
		for _, row := range f.Window(0).Rows {
			methods[row.Peer] = row.Method
		}
		return methods
	}

	f.probes(2 * o.Interval)
	if n := f.engines[probe.MethodTCP].sentTo("10.1.0.3:6333"); n == 0 {
		t.Error("what runs on node-3 is not probed")
	}
	if diff := cmp.Diff(map[string]string{"node-2": "udp", "node-3": "tcp"}, methods()); diff != "" {
		t.Errorf("methods (-want +got):\n%s", diff)
	}

	f.peersAre(slice("a").ready("node-2", "10.0.0.2").ready("node-3", "10.0.0.3"), qdrant)
	f.probes(2 * o.Interval)
	if n := f.engines[probe.MethodTCP].sentTo("10.1.0.3:6333"); n != 0 {
		t.Errorf("%d probes went to the target although there is an agent", n)
	}
	if diff := cmp.Diff(map[string]string{"node-2": "udp", "node-3": "udp"}, methods()); diff != "" {
		t.Errorf("methods once there is an agent (-want +got):\n%s", diff)
	}

	f.peersAre(agents, qdrant)
	f.probes(2 * o.Interval)
	if got := methods()["node-3"]; got != "tcp" {
		t.Errorf("after the agent went node-3 is probed by %q: want tcp", got)
	}
	f.wantSeries(exposition.AgentPeers, map[string]float64{"": 2})
}

func TestWithoutTheMethodTCPATargetWithoutAnAgentIsNoPeer(t *testing.T) {
	f := newFixture(t, testOptions(), slice("a").ready("node-2", "10.0.0.2"))
	f.probes(10*time.Second).answer("10.0.0.2:9465", probe.Outcome{RTT: ms})
	f.peersAre(targetSlice("qdrant", 6333).ready("node-2", "10.1.0.2"))
	if peers := f.pairs.PresentPeers(); len(peers) > 0 {
		t.Errorf("probes %v, which no method of this agent can", peers)
	}
}
