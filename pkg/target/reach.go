package target

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// reach is where a target can be reached.
type reach struct {
	// endpoints has one replica for each node, by node name.
	endpoints []endpoint
	// port is a TCP port, 0 when none is known.
	port uint16
	// grace says that no replica is ready any more; there are no endpoints.
	grace bool
}

// endpoint is a replica with its addresses, at most one of each family.
type endpoint struct {
	node      string
	addresses []netip.Addr
}

// reach is where the target at a place in the list can be reached. It is not
// known before the handlers have synced. Of several replicas on a node the
// first by name stands for all.
func (x *Index) reach(at int) (r reach, known bool) {
	t := x.configured[at]
	x.mu.Lock()
	known, r.grace = x.started, t.set.Grace
	nodes := maps.Clone(t.node)
	x.mu.Unlock()
	if !known {
		return reach{}, false
	}
	seen := make(map[string]bool, len(nodes))
	for _, key := range slices.Sorted(maps.Keys(nodes)) {
		node := nodes[key]
		if seen[node] {
			continue
		}
		addresses, port := x.replica(t, key)
		r.port = cmp.Or(r.port, port)
		if len(addresses) > 0 {
			seen[node] = true
			r.endpoints = append(r.endpoints, endpoint{node: node, addresses: addresses})
		}
	}
	slices.SortFunc(r.endpoints, func(a, b endpoint) int { return cmp.Compare(a.node, b.node) })
	return r, true
}

// replica is where the replica called key of a target can be reached: a node
// at its internal addresses, a pod at its own and the target's port.
func (x *Index) replica(t *Target, key string) (addresses []netip.Addr, port uint16) {
	if t.nodes != nil {
		node, err := x.nodes.Get(key)
		if err != nil {
			return nil, 0 // it has just gone, which the handler will hear of
		}
		var texts []string
		for _, a := range node.Status.Addresses {
			if a.Type == corev1.NodeInternalIP {
				texts = append(texts, a.Address)
			}
		}
		return oneOfEachFamily(texts), 0
	}
	if isEndpoint(key) {
		service, err := x.services.Services(t.service.Namespace).Get(t.service.Name)
		if err != nil {
			return nil, 0
		}
		return oneOfEachFamily([]string{strings.Trim(key, "[]")}), targetPort(service, &corev1.Pod{})
	}
	object, _, _ := x.pods.GetByKey(key) // the informer's store does not fail
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return nil, 0
	}
	var texts []string
	for _, ip := range pod.Status.PodIPs {
		texts = append(texts, ip.IP)
	}
	if t.service == nil {
		return oneOfEachFamily(texts), firstTCPPort(pod)
	}
	service, err := x.services.Services(t.service.Namespace).Get(t.service.Name)
	if err != nil {
		return nil, 0
	}
	return oneOfEachFamily(texts), targetPort(service, pod)
}

func oneOfEachFamily(texts []string) (addresses []netip.Addr) {
	var have4, have6 bool
	for _, text := range texts {
		a, err := netip.ParseAddr(text)
		// What the API server takes for an endpoint.
		if err != nil || !a.IsGlobalUnicast() || a.Zone() != "" {
			continue
		}
		a = a.Unmap()
		have := &have6
		if a.Is4() {
			have = &have4
		}
		if !*have {
			*have = true
			addresses = append(addresses, a)
		}
	}
	return addresses
}

// firstTCPPort is the first TCP port that the containers of a pod declare, 0
// when there is none.
func firstTCPPort(pod *corev1.Pod) uint16 {
	for _, container := range pod.Spec.Containers {
		for _, port := range container.Ports {
			if isTCP(port.Protocol) {
				return portNumber(port.ContainerPort)
			}
		}
	}
	return 0
}

// targetPort is where the first TCP port of a Service leads to in a pod, 0 when
// that is nowhere.
func targetPort(service *corev1.Service, pod *corev1.Pod) uint16 {
	for _, port := range service.Spec.Ports {
		switch {
		case !isTCP(port.Protocol):
			continue
		case port.TargetPort.Type == intstr.Int && port.TargetPort.IntVal == 0:
			return portNumber(port.Port)
		case port.TargetPort.Type == intstr.Int:
			return portNumber(port.TargetPort.IntVal)
		}
		for _, container := range pod.Spec.Containers {
			for _, p := range container.Ports {
				if p.Name == port.TargetPort.StrVal && isTCP(p.Protocol) {
					return portNumber(p.ContainerPort)
				}
			}
		}
		return 0
	}
	return 0
}

// An absent protocol is TCP (API reference).
func isTCP(protocol corev1.Protocol) bool { return protocol == corev1.ProtocolTCP || protocol == "" }

func portNumber(port int32) uint16 {
	if port < 1 || port > 65535 {
		return 0
	}
	return uint16(port)
}
