package source

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

// agent is the probe agent of one node, at the addresses under which it may be
// read: one as a rule, two with two address families or while a rollout starts
// the next pod beside the old one.
type agent struct {
	node      string
	addresses []netip.AddrPort
}

// maxAddresses bounds how many addresses of one agent are tried in a round.
const maxAddresses = 4

// discovery knows the agents from the EndpointSlices of their Service. Its
// informer comes from a factory of its own, so that nobody waits for it when
// the API server refuses or is away: it tries again with client-go's backoff,
// and what was known stays.
type discovery struct {
	namespace, service, port string

	factory  informers.SharedInformerFactory
	informer cache.SharedIndexInformer
	errors   atomic.Uint64
	clock    clock.PassiveClock
	// lastError is when the last of errors was, in unix nanoseconds.
	lastError atomic.Int64
}

func newDiscovery(client kubernetes.Interface, namespace, service, port string, clock clock.PassiveClock) (*discovery, error) {
	d := &discovery{namespace: namespace, service: service, port: port, clock: clock}
	selector := labels.Set{discoveryv1.LabelServiceName: service}.String()
	d.factory = informers.NewSharedInformerFactoryWithOptions(client, 0,
		informers.WithNamespace(namespace),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = selector }),
	)
	d.informer = d.factory.Discovery().V1().EndpointSlices().Informer()
	if err := d.informer.SetWatchErrorHandlerWithContext(d.failed); err != nil {
		return nil, fmt.Errorf("watch endpoint slices: %w", err)
	}
	return d, nil
}

// start lists and watches until ctx ends; stop waits for the end.
func (d *discovery) start(ctx context.Context) (stop func()) {
	d.factory.StartWithContext(ctx)
	return d.factory.Shutdown
}

// recovered is the time without a failure after which the next one is a new
// story. It is longer than client-go's longest backoff, 30 s, and than the time
// that a list may take.
const recovered = 5 * time.Minute

// failed counts an attempt that client-go will repeat. One line tells of many
// in a row: when the API server is away, everybody's log says so.
func (d *discovery) failed(ctx context.Context, _ *cache.Reflector, err error) {
	if ctx.Err() != nil {
		return // the watch ended because we do
	}
	d.errors.Add(1)
	now := d.clock.Now()
	last := time.Unix(0, d.lastError.Swap(now.UnixNano()))
	logger := klog.LoggerWithValues(klog.FromContext(ctx), "namespace", d.namespace, "service", d.service)
	if now.Sub(last) > recovered {
		logger.Error(err, "Cannot list and watch the agents' EndpointSlices; trying again, with the agents that are known. A role with get, list and watch on endpointslices in the namespace is needed")
		return
	}
	logger.V(4).Info("Still cannot list and watch the agents' EndpointSlices", "err", err)
}

func (d *discovery) hasSynced() bool { return d.informer.HasSynced() }

// synced is closed once the slices have been listed.
func (d *discovery) synced() <-chan struct{} { return d.informer.HasSyncedChecker().Done() }

// agents are the nodes that have a ready agent now, by name.
func (d *discovery) agents() []agent {
	nodes := make(map[string][]netip.AddrPort)
	for _, object := range d.informer.GetStore().List() {
		slice, ok := object.(*discoveryv1.EndpointSlice)
		if !ok {
			continue
		}
		port, hasPort := portOf(slice, d.port)
		for _, endpoint := range slice.Endpoints {
			node, ready := endpoint.NodeName, endpoint.Conditions.Ready
			// Without a node nobody could check whom the agent speaks for. No
			// condition is to be taken as ready (API reference).
			if node == nil || *node == "" || ready != nil && !*ready {
				continue
			}
			// An agent that cannot be read for lack of the port is still an
			// agent: it shows up as a failure.
			addresses := nodes[*node]
			for _, address := range endpoint.Addresses {
				// Names, of slices of type FQDN, are not for a scheduler to
				// resolve.
				if ip, err := netip.ParseAddr(address); err == nil && hasPort {
					addresses = append(addresses, netip.AddrPortFrom(ip, port))
				}
			}
			nodes[*node] = addresses
		}
	}
	agents := make([]agent, 0, len(nodes))
	for node, addresses := range nodes {
		// The same endpoint may be in two slices while it moves between them.
		slices.SortFunc(addresses, netip.AddrPort.Compare)
		addresses = slices.Compact(addresses)
		agents = append(agents, agent{node, addresses[:min(len(addresses), maxAddresses)]})
	}
	slices.SortFunc(agents, func(a, b agent) int { return cmp.Compare(a.node, b.node) })
	return agents
}

func portOf(slice *discoveryv1.EndpointSlice, name string) (uint16, bool) {
	for _, p := range slice.Ports {
		if p.Name != nil && *p.Name == name && p.Port != nil && *p.Port > 0 && *p.Port <= 65535 {
			return uint16(*p.Port), true
		}
	}
	return 0, false
}
