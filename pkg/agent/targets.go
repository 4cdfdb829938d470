package agent

import (
	"cmp"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
)

// withTargets adds to agents, the peers of node that have one, the nodes that
// targets run on without an agent: what runs there is probed itself, if tcp
// says that the agent has that method. targets gives for each peer that is the
// node of a target that target's name, which is its EndpointSlice's. All are
// ordered by node name.
//
// The slices may be anybody's. An address that another peer or this agent has
// is not taken from them: what it answers would count for the wrong node.
func withTargets(agents []peer, from []*discoveryv1.EndpointSlice, node string, own addresses, tcp bool, logger klog.Logger) (peers []peer, targets map[string]string) {
	peers, targets = agents, make(map[string]string)
	known := make(map[string]bool, len(agents))
	taken := make(map[netip.Addr]bool, len(own)+len(agents))
	for _, address := range own {
		taken[address] = true
	}
	for _, p := range agents {
		known[p.Node], taken[p.Address] = true, true
	}
	from = slices.Clone(from)
	slices.SortStableFunc(from, func(a, b *discoveryv1.EndpointSlice) int {
		return cmp.Compare(own.ofType(a.AddressType), own.ofType(b.AddressType))
	})
	for _, slice := range from {
		port := tcpPort(slice)
		for _, endpoint := range slice.Endpoints {
			name := ptr.Deref(endpoint.NodeName, "")
			if name == node || !usable(endpoint.Conditions) || len(endpoint.Addresses) == 0 {
				continue
			}
			if !known[name] {
				if !tcp || port == 0 || own.ofType(slice.AddressType) < 0 {
					continue // only an agent could answer
				}
				address, err := netip.ParseAddr(endpoint.Addresses[0])
				if err != nil || !address.IsGlobalUnicast() || address.Zone() != "" || own.rank(address.Unmap()) < 0 || taken[address.Unmap()] || len(validation.IsDNS1123Subdomain(name)) > 0 {
					logger.V(2).Info("Ignoring a target that cannot be probed", "endpointSlice", klog.KObj(slice), "peer", name, "address", endpoint.Addresses[0])
					continue
				}
				to := peer{Node: name, Zone: ptr.Deref(endpoint.Zone, ""), Address: address.Unmap(), TCPPort: port}
				peers = append(peers, to)
				known[name], taken[to.Address] = true, true
			}
			targets[name] = cmp.Or(targets[name], slice.Name)
		}
	}
	slices.SortFunc(peers, byNode)
	return peers, targets
}

// tcpPort is the first TCP port of a slice, 0 when there is none.
func tcpPort(slice *discoveryv1.EndpointSlice) uint16 {
	for _, port := range slice.Ports {
		number := ptr.Deref(port.Port, 0)
		// The API defines an absent protocol as TCP.
		if ptr.Deref(port.Protocol, corev1.ProtocolTCP) == corev1.ProtocolTCP && number > 0 && number <= 65535 {
			return uint16(number)
		}
	}
	return 0
}
