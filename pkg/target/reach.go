package target

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
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
	nodes, watch := maps.Clone(t.node), t.watch
	x.mu.Unlock()
	if !known {
		return reach{}, false
	}
	var watched map[string]serving
	if watch != nil {
		if service, err := x.services.Services(t.service.Namespace).Get(t.service.Name); err == nil {
			watched = watch.endpoints(service)
		}
	}
	seen := make(map[string]bool, len(nodes))
	for _, key := range slices.Sorted(maps.Keys(nodes)) {
		node := nodes[key]
		if seen[node] {
			continue
		}
		var addresses []netip.Addr
		var port uint16
		if isEndpoint(key) {
			addresses, port = oneOfEachFamily([]string{strings.Trim(key, "[]")}), watched[key].port
		} else {
			addresses, port = x.replica(t, key)
		}
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

// tcpPort is the first TCP port of a Service.
func tcpPort(service *corev1.Service) (port corev1.ServicePort, ok bool) {
	i := slices.IndexFunc(service.Spec.Ports, func(p corev1.ServicePort) bool { return isTCP(p.Protocol) })
	if i < 0 {
		return port, false
	}
	return service.Spec.Ports[i], true
}

// targetPort is where the first TCP port of a Service leads to in a pod, 0 when
// that is nowhere.
func targetPort(service *corev1.Service, pod *corev1.Pod) uint16 {
	port, ok := tcpPort(service)
	switch {
	case !ok:
		return 0
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

// slicePort is where the first TCP port of a Service leads to at the endpoints
// of a slice, 0 when that is nowhere. As for kube-proxy it is the port of that
// name: whoever writes slices for a Service without a selector decides, and
// nobody looks at targetPort.
func slicePort(service *corev1.Service, slice *discoveryv1.EndpointSlice) uint16 {
	port, ok := tcpPort(service)
	if !ok {
		return 0
	}
	for _, p := range slice.Ports {
		if ptr.Deref(p.Name, "") == port.Name && isTCP(ptr.Deref(p.Protocol, corev1.ProtocolTCP)) {
			return portNumber(ptr.Deref(p.Port, 0))
		}
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
