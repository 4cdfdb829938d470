package target

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/netlatency/netlatency/apis/config"
)

const (
	// ManagedBy is who writes the slices, in their label
	// endpointslice.kubernetes.io/managed-by: Kubernetes' own controllers leave
	// them alone.
	ManagedBy = "netlatency-scheduler"
	// MaxNodes is the number of nodes that agents are told of, over all
	// targets. Each change is sent to every agent, some 30 kB of 500 nodes, and
	// an agent takes no more than its --max-peers.
	MaxNodes = 500
)

// families are the address families with the ends of the names of their slices.
var families = []struct {
	addressType discoveryv1.AddressType
	suffix      string
}{{discoveryv1.AddressTypeIPv4, "-ipv4"}, {discoveryv1.AddressTypeIPv6, "-ipv6"}}

// sliceBase is what tells the slices of a target from those of others, also of
// one with the same name in another profile that chooses something else.
func sliceBase(service string, t config.Target) (string, error) {
	chosen, err := keyOf(t)
	if err != nil {
		return "", fmt.Errorf("target %q: %w", t.Name, err)
	}
	return fmt.Sprintf("%s-%s-%08x", service, t.Name, hash(chosen)), nil
}

func hash(text string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(text)) // never fails
	return h.Sum32()
}

// bound cuts the endpoints of targets down to most nodes, of each target as
// many as of the others, and returns how many nodes are left out. The choice
// rests on the names of nodes only.
func bound(targets map[string]reach, most int) (leftOut int) {
	all := make(map[string]bool)
	for _, r := range targets {
		for _, e := range r.endpoints {
			all[e.node] = true
		}
	}
	if len(all) <= most {
		return 0
	}
	order := make(map[string][]endpoint, len(targets))
	for name, r := range targets {
		order[name] = slices.SortedFunc(slices.Values(r.endpoints), func(a, b endpoint) int {
			return cmp.Or(cmp.Compare(hash(a.node), hash(b.node)), cmp.Compare(a.node, b.node))
		})
	}
	kept := make(map[string]bool, most)
	for i := 0; len(kept) < most; i++ {
		for _, name := range slices.Sorted(maps.Keys(order)) {
			if i < len(order[name]) && len(kept) < most {
				kept[order[name][i].node] = true
			}
		}
	}
	for name, r := range targets {
		r.endpoints = slices.DeleteFunc(r.endpoints, func(e endpoint) bool { return !kept[e.node] })
		targets[name] = r
	}
	return len(all) - most
}

// slicesOf is what is written about a target, one slice for each address family
// that it has. zone is that of a node, "" when it has none.
func slicesOf(namespace, service, base string, r reach, zone func(node string) string) []*discoveryv1.EndpointSlice {
	var made []*discoveryv1.EndpointSlice
	for _, family := range families {
		slice := &discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: namespace,
				Name:      base + family.suffix,
				Labels: map[string]string{
					discoveryv1.LabelServiceName: service,
					discoveryv1.LabelManagedBy:   ManagedBy,
					// Not for those who route traffic: kube-proxy and its like do
					// not even ask for slices with this label.
					corev1.IsHeadlessService: "",
					"app.kubernetes.io/name": "netlatency",
				},
			},
			AddressType: family.addressType,
		}
		if r.port != 0 {
			slice.Ports = []discoveryv1.EndpointPort{{Name: new(""), Protocol: new(corev1.ProtocolTCP), Port: new(int32(r.port))}}
		}
		for _, e := range r.endpoints {
			for _, address := range e.addresses {
				if address.Is4() != (family.addressType == discoveryv1.AddressTypeIPv4) {
					continue
				}
				to := discoveryv1.Endpoint{
					NodeName:   new(e.node),
					Addresses:  []string{address.String()},
					Conditions: discoveryv1.EndpointConditions{Ready: new(true)},
				}
				if z := zone(e.node); z != "" {
					to.Zone = new(z)
				}
				slice.Endpoints = append(slice.Endpoints, to)
			}
		}
		if len(slice.Endpoints) > 0 {
			made = append(made, slice)
		}
	}
	return made
}

// same reports whether a slice says what it should.
func same(have, want *discoveryv1.EndpointSlice) bool {
	for key, value := range want.Labels {
		if got, ok := have.Labels[key]; !ok || got != value {
			return false
		}
	}
	return apiequality.Semantic.DeepEqual(have.Endpoints, want.Endpoints) &&
		apiequality.Semantic.DeepEqual(have.Ports, want.Ports) &&
		apiequality.Semantic.DeepEqual(have.OwnerReferences, want.OwnerReferences)
}
