package agent

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2/ktesting"
)

// sliceBuilder builds the EndpointSlices of the agents' Service.
type sliceBuilder struct{ *discoveryv1.EndpointSlice }

func slice(name string) sliceBuilder {
	return sliceBuilder{&discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: "netlatency",
			Labels: map[string]string{discoveryv1.LabelServiceName: "netlatency-agent"},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports: []discoveryv1.EndpointPort{
			{Name: new("http"), Protocol: new(corev1.ProtocolTCP), Port: new(int32(8080))},
			{Name: new("probe"), Protocol: new(corev1.ProtocolUDP), Port: new(int32(9465))},
		},
	}}
}

func (b sliceBuilder) ipv6() sliceBuilder {
	b.AddressType = discoveryv1.AddressTypeIPv6
	return b
}

func (b sliceBuilder) ports(ports ...discoveryv1.EndpointPort) sliceBuilder {
	b.Ports = ports
	return b
}

func (b sliceBuilder) endpoint(node, address string, conditions discoveryv1.EndpointConditions) sliceBuilder {
	e := discoveryv1.Endpoint{Addresses: []string{address}, Conditions: conditions}
	if node != "" {
		e.NodeName = new(node)
	}
	b.Endpoints = append(b.Endpoints, e)
	return b
}

func (b sliceBuilder) ready(node, address string) sliceBuilder {
	return b.endpoint(node, address, discoveryv1.EndpointConditions{Ready: new(true)})
}

// agentOn is the peer whose agent has the ports of slice.
func agentOn(node, address string) peer {
	return peer{Node: node, Address: netip.MustParseAddr(address), ProbePort: 9465, TCPPort: 8080}
}

func at(address string) netip.AddrPort { return netip.MustParseAddrPort(address) }

func TestPeersAreTheReadyAgentsOfOtherNodes(t *testing.T) {
	address4, address6 := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")
	ipv4, ipv6 := []netip.Addr{address4}, []netip.Addr{address6}
	// Endpoints in the slices of either family, as in a dual-stack cluster.
	dual := []sliceBuilder{
		slice("a").ready("node-1", "10.0.0.1").ready("node-2", "10.0.0.2").ready("node-4", "10.0.0.4"),
		slice("b").ipv6().ready("node-1", "fd00::1").ready("node-2", "fd00::2").ready("node-3", "fd00::3"),
	}
	tests := map[string]struct {
		own    []netip.Addr
		slices []sliceBuilder
		want   []peer
	}{
		"ordered by node, with the port that is named probe": {
			own:    ipv4,
			slices: []sliceBuilder{slice("a").ready("node-3", "10.0.0.3"), slice("b").ready("node-2", "10.0.0.2")},
			want:   []peer{agentOn("node-2", "10.0.0.2"), agentOn("node-3", "10.0.0.3")},
		},
		"the own node is no peer": {
			own:    ipv4,
			slices: []sliceBuilder{slice("a").ready("node-1", "10.0.0.1").ready("node-2", "10.0.0.2")},
			want:   []peer{agentOn("node-2", "10.0.0.2")},
		},
		"who is not ready has no reflector yet, who terminates soon has none": {
			own: ipv4,
			slices: []sliceBuilder{slice("a").
				endpoint("node-2", "10.0.0.2", discoveryv1.EndpointConditions{Ready: new(false)}).
				endpoint("node-3", "10.0.0.3", discoveryv1.EndpointConditions{Ready: new(true), Terminating: new(true)})},
			want: nil,
		},
		"an unknown readiness is ready, as the API says": {
			own:    ipv4,
			slices: []sliceBuilder{slice("a").endpoint("node-2", "10.0.0.2", discoveryv1.EndpointConditions{})},
			want:   []peer{agentOn("node-2", "10.0.0.2")},
		},
		"in a dual-stack cluster, the family of the own address: IPv4": {
			own:    ipv4,
			slices: []sliceBuilder{slice("a").ready("node-2", "10.0.0.2"), slice("b").ipv6().ready("node-2", "fd00::2")},
			want:   []peer{agentOn("node-2", "10.0.0.2")},
		},
		"in a dual-stack cluster, the family of the own address: IPv6": {
			own:    ipv6,
			slices: []sliceBuilder{slice("a").ready("node-2", "10.0.0.2"), slice("b").ipv6().ready("node-2", "fd00::2")},
			want:   []peer{agentOn("node-2", "fd00::2")},
		},
		"of two own families, the first that a peer has: IPv4": {
			own:    []netip.Addr{address4, address6},
			slices: dual,
			want:   []peer{agentOn("node-2", "10.0.0.2"), agentOn("node-3", "fd00::3"), agentOn("node-4", "10.0.0.4")},
		},
		"of two own families, the first that a peer has: IPv6": {
			own:    []netip.Addr{address6, address4},
			slices: dual,
			want:   []peer{agentOn("node-2", "fd00::2"), agentOn("node-3", "fd00::3"), agentOn("node-4", "10.0.0.4")},
		},
		"of two own families, whatever the order of the slices": {
			own:    []netip.Addr{address4, address6},
			slices: []sliceBuilder{dual[1], dual[0]},
			want:   []peer{agentOn("node-2", "10.0.0.2"), agentOn("node-3", "fd00::3"), agentOn("node-4", "10.0.0.4")},
		},
		"in the second family if the agent of the first is not ready": {
			own: []netip.Addr{address4, address6},
			slices: []sliceBuilder{
				slice("a").endpoint("node-2", "10.0.0.2", discoveryv1.EndpointConditions{Ready: new(false)}),
				slice("b").ipv6().ready("node-2", "fd00::2"),
			},
			want: []peer{agentOn("node-2", "fd00::2")},
		},
		"two ready agents on a node: the same one whatever the order": {
			own:    ipv4,
			slices: []sliceBuilder{slice("a").ready("node-2", "10.0.0.9"), slice("b").ready("node-2", "10.0.0.2").ready("node-2", "10.0.0.5")},
			want:   []peer{agentOn("node-2", "10.0.0.2")},
		},
		"what cannot be probed is left out": {
			own: ipv4,
			slices: []sliceBuilder{
				slice("a").ready("", "10.0.0.2").ready("node-3", "not an address").ready("node-4", "0.0.0.0").ready("node-5", "224.0.0.1"),
				slice("b").ports(discoveryv1.EndpointPort{Name: new("probe")}).ready("node-6", "10.0.0.6"),
				slice("c").ports(discoveryv1.EndpointPort{Name: new("probe"), Port: new(int32(70000))}).ready("node-7", "10.0.0.7"),
				slice("d").ports(discoveryv1.EndpointPort{Name: new("other"), Port: new(int32(9465))}).ready("node-8", "10.0.0.8"),
			},
			want: nil,
		},
		"an endpoint without addresses": {
			own:    ipv4,
			slices: []sliceBuilder{{&discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4, Ports: slice("").Ports, Endpoints: []discoveryv1.Endpoint{{NodeName: new("node-2")}}}}},
			want:   nil,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			logger, _ := ktesting.NewTestContext(t)
			var from []*discoveryv1.EndpointSlice
			for _, s := range test.slices {
				from = append(from, s.EndpointSlice)
			}
			got, _ := peersIn(from, "node-1", test.own, logger)
			if diff := cmp.Diff(test.want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Errorf("peers (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAChoiceOfPeers(t *testing.T) {
	var all []peer
	for i := range 300 {
		all = append(all, peer{Node: fmt.Sprintf("node-%d", i), ProbePort: 9465})
	}
	chosenBy := func(node string, from []peer) map[string]bool {
		chosen, _ := choose(from, nil, node, "", 128)
		names := make(map[string]bool)
		for _, p := range chosen {
			names[p.Node] = true
		}
		return names
	}

	t.Run("is everyone up to the limit", func(t *testing.T) {
		chosen, leftOut := choose(all[:128], nil, "node-x", "", 128)
		if len(chosen) != 128 || leftOut != 0 {
			t.Errorf("%d chosen, %d left out: want 128 and 0", len(chosen), leftOut)
		}
	})
	t.Run("is cut to the limit, and says what it leaves out", func(t *testing.T) {
		chosen, leftOut := choose(all, nil, "node-x", "", 128)
		if len(chosen) != 128 || leftOut != 172 {
			t.Errorf("%d chosen, %d left out: want 128 and 172", len(chosen), leftOut)
		}
	})
	t.Run("is another on each node, so that together they cover the cluster", func(t *testing.T) {
		covered := make(map[string]bool)
		for i := range 10 {
			for name := range chosenBy(fmt.Sprintf("agent-%d", i), all) {
				covered[name] = true
			}
		}
		// Each is missed by all ten with probability 0.57^10, 0.4 %.
		if len(covered) < 295 {
			t.Errorf("ten agents cover %d of 300 peers", len(covered))
		}
	})
	t.Run("is half of the own zone, and of the other zones alike", func(t *testing.T) {
		zones := []string{"a", "a", "a", "a", "b", "b", "c"} // of 300 nodes: 172, 86, 42
		var zoned []peer
		for i, p := range all {
			p.Zone = zones[i%len(zones)]
			zoned = append(zoned, p)
		}
		of := func(zone string, limit int) map[string]int {
			chosen, _ := choose(zoned, nil, "node-x", zone, limit)
			counts := make(map[string]int)
			for _, p := range chosen {
				counts[p.Zone]++
			}
			return counts
		}
		for zone, want := range map[string]map[string]int{
			"a":       {"a": 64, "b": 32, "c": 32},
			"b":       {"a": 32, "b": 64, "c": 32},
			"c":       {"a": 43, "b": 43, "c": 42}, // which has no more
			"unknown": {"a": 43, "b": 43, "c": 42},
		} {
			if diff := cmp.Diff(want, of(zone, 128)); diff != "" {
				t.Errorf("peers by zone, chosen by a node of zone %s (-want +got):\n%s", zone, diff)
			}
		}
		if diff := cmp.Diff(map[string]int{"a": 132, "b": 86, "c": 42}, of("a", 260)); diff != "" {
			t.Errorf("peers by zone when the other zones have too few (-want +got):\n%s", diff)
		}
	})
	t.Run("changes in one place when a peer goes", func(t *testing.T) {
		before := chosenBy("node-x", all)
		for gone := range before {
			var rest []peer
			for _, p := range all {
				if p.Node != gone {
					rest = append(rest, p)
				}
			}
			after := chosenBy("node-x", rest)
			added := 0
			for name := range after {
				if !before[name] {
					added++
				}
			}
			if added != 1 {
				t.Errorf("without %s %d peers are new: want 1", gone, added)
			}
			break
		}
	})
	t.Run("does not gather in one part of the interval", func(t *testing.T) {
		var sum float64
		for name := range chosenBy("node-x", all) {
			sum += fraction("phase", "node-x", name)
		}
		if mean := sum / 128; mean < 0.4 || mean > 0.6 {
			t.Errorf("mean phase of the chosen is %.2f of the interval: want about 0.5", mean)
		}
	})
}
