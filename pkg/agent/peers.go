package agent

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	"github.com/netlatency/netlatency/pkg/probe"
)

// Names of the ports of the agents' Service: where their reflectors listen, and
// their HTTP servers.
const (
	probePort = "probe"
	httpPort  = "http"
)

// peer is a node that can be probed: at its agent, or without one at the
// target that runs there.
type peer struct {
	Node string
	// Zone as the EndpointSlice has it, "" when it has none.
	Zone    string
	Address netip.Addr
	// ProbePort is the UDP port of the agent, 0 where there is no agent.
	ProbePort uint16
	// TCPPort is the agent's HTTP port, or the target's own; 0 when there is
	// none.
	TCPPort uint16
}

// address is where the peer is probed by a method, the zero value when it
// cannot be.
func (p peer) address(method probe.Method) netip.AddrPort {
	switch {
	case method == probe.MethodUDP && p.ProbePort != 0:
		return netip.AddrPortFrom(p.Address, p.ProbePort)
	case method == probe.MethodTCP && p.TCPPort != 0:
		return netip.AddrPortFrom(p.Address, p.TCPPort)
	case p.ProbePort != 0 && (method == probe.MethodICMP || method == probe.MethodPortable):
		return netip.AddrPortFrom(p.Address, 0)
	}
	return netip.AddrPort{}
}

// discovery follows the EndpointSlices of the agents' own headless Service, and
// those that tell where targets are. They give node names with the addresses,
// and watching them takes no more rights than to read EndpointSlices in the
// agents' own namespace.
type discovery struct {
	informer cache.SharedIndexInformer
	// Changed gets a value whenever Slices may give something else.
	Changed chan struct{}
}

func newDiscovery(slices cache.ListerWatcher) (*discovery, error) {
	d := &discovery{
		informer: cache.NewSharedIndexInformer(slices, &discoveryv1.EndpointSlice{}, 0, nil),
		Changed:  make(chan struct{}, 1),
	}
	_, err := d.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { d.notify() },
		UpdateFunc: func(any, any) { d.notify() },
		DeleteFunc: func(any) { d.notify() },
	})
	if err != nil {
		return nil, fmt.Errorf("prepare the EndpointSlice informer: %w", err)
	}
	return d, nil
}

// notify wakes the run loop. One pending value is enough: it reads all slices.
func (d *discovery) notify() {
	select {
	case d.Changed <- struct{}{}:
	default:
	}
}

// Run follows the EndpointSlices until ctx ends. It does not wait for the
// informer to end too: while the API server cannot be reached, client-go's
// reflector sleeps out its backoff, up to 30 s, whatever its context says, and
// an agent is to stop at once.
func (d *discovery) Run(ctx context.Context) {
	go d.informer.RunWithContext(ctx)
	if cache.WaitForCacheSync(ctx.Done(), d.informer.HasSynced) {
		d.notify() // there may be no slice whose arrival would do so
	}
	<-ctx.Done()
}

// Synced reports whether the EndpointSlices have been read once. Without them
// the agent knows no peers, which is not the same as having none.
func (d *discovery) Synced() bool { return d.informer.HasSynced() }

// Slices are the EndpointSlices of a Service as of now, by name.
func (d *discovery) Slices(service string) []*discoveryv1.EndpointSlice {
	var found []*discoveryv1.EndpointSlice
	for _, object := range d.informer.GetStore().List() {
		if slice, ok := object.(*discoveryv1.EndpointSlice); ok && slice.Labels[discoveryv1.LabelServiceName] == service {
			found = append(found, slice)
		}
	}
	slices.SortFunc(found, func(a, b *discoveryv1.EndpointSlice) int { return cmp.Compare(a.Name, b.Name) })
	return found
}

// peersIn returns the peers of node that are ready to be probed, ordered by
// node name, and the zone of node, "" when it is not known. In a dual-stack
// cluster an agent is in a slice of either family; its address is of the first
// of own's that it has one of. For a node with several ready agents, as in a
// rollout with surge, the lowest address is taken, so that the order in which
// slices are read does not matter.
func peersIn(from []*discoveryv1.EndpointSlice, node string, own addresses, logger klog.Logger) (peers []peer, zone string) {
	found := make(map[string]peer)
	for _, slice := range from {
		probes, http := portOf(slice, probePort), portOf(slice, httpPort)
		if slice.AddressType == discoveryv1.AddressTypeFQDN || probes == 0 {
			continue
		}
		for _, endpoint := range slice.Endpoints {
			name := ptr.Deref(endpoint.NodeName, "")
			if name == node {
				zone = cmp.Or(ptr.Deref(endpoint.Zone, ""), zone)
				continue
			}
			if name == "" || !usable(endpoint.Conditions) || len(endpoint.Addresses) == 0 {
				continue
			}
			// Only the first address is meaningful (discovery/v1 API).
			address, err := netip.ParseAddr(endpoint.Addresses[0])
			if err != nil || address.IsUnspecified() || address.IsMulticast() {
				logger.V(2).Info("Ignoring an endpoint whose address cannot be probed", "endpointSlice", klog.KObj(slice), "peer", name, "address", endpoint.Addresses[0])
				continue
			}
			address = address.Unmap()
			if own.rank(address) < 0 {
				continue
			}
			to := peer{Node: name, Zone: ptr.Deref(endpoint.Zone, ""), Address: address, ProbePort: probes, TCPPort: http}
			if before, ok := found[name]; !ok || own.prefer(address, before.Address) {
				found[name] = to
			}
		}
	}
	return slices.SortedFunc(maps.Values(found), byNode), zone
}

// addresses are an agent's own, at most one of each family, that in which peers
// are rather probed first.
type addresses []netip.Addr

// rank is the place of the one that has the family of a, -1 if none has.
func (own addresses) rank(a netip.Addr) int {
	return slices.IndexFunc(own, func(o netip.Addr) bool { return o.Is4() == a.Is4() })
}

// ofType is rank for the addresses of an EndpointSlice.
func (own addresses) ofType(t discoveryv1.AddressType) int {
	return slices.IndexFunc(own, func(o netip.Addr) bool {
		return o.Is4() && t == discoveryv1.AddressTypeIPv4 || o.Is6() && t == discoveryv1.AddressTypeIPv6
	})
}

// prefer reports whether a peer is rather probed at a than at b.
func (own addresses) prefer(a, b netip.Addr) bool {
	return cmp.Or(cmp.Compare(own.rank(a), own.rank(b)), a.Compare(b)) < 0
}

// usable reports whether an endpoint is to be probed. An agent that is not
// ready has no reflector yet, one that terminates soon has none.
func usable(c discoveryv1.EndpointConditions) bool {
	// The API defines an absent ready as true, an absent terminating as false.
	return ptr.Deref(c.Ready, true) && !ptr.Deref(c.Terminating, false)
}

// portOf finds a port by its name, for the chart may give it any number. It is
// 0 when there is none.
func portOf(slice *discoveryv1.EndpointSlice, name string) uint16 {
	for _, port := range slice.Ports {
		number := ptr.Deref(port.Port, 0)
		if ptr.Deref(port.Name, "") == name && number > 0 && number <= 65535 {
			return uint16(number)
		}
	}
	return 0
}

func byNode(a, b peer) int { return cmp.Compare(a.Node, b.Node) }

// choose returns the peers that a node probes: all of them up to limit, and of
// more those that targets names, with a sample of the rest, and the number of
// those left out. Half of a sample is of the node's own zone and the rest of
// all other zones alike, as far as they have that many: what is not measured is
// estimated from what is between the same groups, so each needs its witnesses.
// Where there are more than limit in targets, which gives the target of a node,
// each target has as many as the others.
//
// The choice rests on the names of node and peer only, so that it is the same
// after every restart and rollout, and a peer that comes or goes changes one
// place in it.
func choose(peers []peer, targets map[string]string, node, zone string, limit int) (chosen []peer, leftOut int) {
	if len(peers) <= limit {
		return peers, 0
	}
	rank := make(map[string]float64, len(peers))
	for _, p := range peers {
		rank[p.Node] = fraction("choice", node, p.Node)
	}
	ranked := slices.SortedFunc(slices.Values(peers), func(a, b peer) int { return cmp.Compare(rank[a.Node], rank[b.Node]) })

	byTarget, byZone := make(map[string][]peer), make(map[string][]peer)
	withoutAgent := 0
	for _, p := range ranked {
		if p.ProbePort == 0 {
			// No list of targets, whoever wrote it, is to take the place of all
			// agents.
			if withoutAgent++; withoutAgent > limit/2 {
				continue
			}
		}
		if target, ok := targets[p.Node]; ok {
			byTarget[target] = append(byTarget[target], p)
		} else {
			byZone[p.Zone] = append(byZone[p.Zone], p)
		}
	}
	take := func(from map[string][]peer, stratum string, n int) {
		n = min(n, limit-len(chosen), len(from[stratum]))
		chosen = append(chosen, from[stratum][:n]...)
		from[stratum] = from[stratum][n:]
	}
	// One of each at a time, so that those with few are all in.
	takeAlike := func(from map[string][]peer, strata []string) {
		for before := -1; before < len(chosen); {
			before = len(chosen)
			for _, stratum := range strata {
				take(from, stratum, 1)
			}
		}
	}
	takeAlike(byTarget, slices.Sorted(maps.Keys(byTarget)))
	take(byZone, zone, (limit-len(chosen))/2)
	takeAlike(byZone, slices.DeleteFunc(slices.Sorted(maps.Keys(byZone)), func(z string) bool { return z == zone }))
	take(byZone, zone, limit) // the others have no more
	slices.SortFunc(chosen, byNode)
	return chosen, len(peers) - len(chosen)
}
