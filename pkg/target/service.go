package target

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/netlatency/netlatency/pkg/placement"
)

func serviceName(t *Target) types.NamespacedName {
	return types.NamespacedName{Namespace: t.service.Namespace, Name: t.service.Name}
}

// podSelector is the selector of a Service. One without a selector has its
// endpoints from elsewhere, and chooses no pods; one of type ExternalName is
// but a name, and its selector has no say (Kubernetes' controller for slices
// passes it over).
func podSelector(service *corev1.Service) labels.Selector {
	if len(service.Spec.Selector) == 0 || isName(service) {
		return labels.Nothing()
	}
	return labels.SelectorFromSet(service.Spec.Selector)
}

func isName(service *corev1.Service) bool {
	return service.Spec.Type == corev1.ServiceTypeExternalName
}

// distributionOf is to which of its endpoints kube-proxy leads who calls a
// Service. It has no say for a headless one, whose clients choose themselves.
// Where endpoints come from elsewhere than a selector, their hints would count,
// and the Service's own field does not. Nor does it where the Service asks for
// topology aware hints: Kubernetes' controller then hands these out instead, or
// none, by the CPUs of the zones.
func distributionOf(service *corev1.Service) placement.Distribution {
	if service.Spec.ClusterIP == corev1.ClusterIPNone || len(service.Spec.Selector) == 0 || isName(service) ||
		service.Spec.TrafficDistribution == nil || wantsHints(service.Annotations) {
		return placement.ToAll
	}
	switch *service.Spec.TrafficDistribution {
	case corev1.ServiceTrafficDistributionPreferSameZone, corev1.ServiceTrafficDistributionPreferClose:
		return placement.PreferSameZone
	case corev1.ServiceTrafficDistributionPreferSameNode:
		return placement.PreferSameNode
	}
	return placement.ToAll
}

// wantsHints is hintsEnabled of k8s.io/endpointslice: the deprecated annotation
// goes first, and no other values are known.
func wantsHints(annotations map[string]string) bool {
	value, ok := annotations[corev1.DeprecatedAnnotationTopologyAwareHints]
	if !ok {
		value = annotations[corev1.AnnotationTopologyMode]
	}
	return value == "Auto" || value == "auto"
}

func (x *Index) placeService(service *corev1.Service) {
	x.reselect(service, podSelector(service), distributionOf(service), service.Spec.PublishNotReadyAddresses)
}

func (x *Index) removeService(service *corev1.Service) {
	x.reselect(service, labels.Nothing(), placement.ToAll, false)
}

// reselect lets the targets that are about service choose by selector, those
// that are not ready too or not, and lead to some of what is chosen. It counts
// the pods of its namespace again if others may be chosen now.
func (x *Index) reselect(service *corev1.Service, selector labels.Selector, distribution placement.Distribution, notReady bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for t := range x.affected.services[types.NamespacedName{Namespace: service.Namespace, Name: service.Name}] {
		redistributed := t.distribution != distribution
		t.distribution = distribution
		if t.pods.String() != selector.String() || t.notReady != notReady {
			x.affected.remove(t)
			t.pods, t.notReady = selector, notReady
			x.affected.add(t)
			redistributed = !x.recount(t) && redistributed
		}
		if redistributed && len(t.count) > 0 {
			x.changed(t)
		}
		x.watchIfUnselected(t)
	}
}

// recount counts all pods of t again. The lister may be ahead of the handler
// for pods, whose events then change nothing, or something for the moment until
// it has caught up. It reports whether there is a new set.
func (x *Index) recount(t *Target) bool {
	stay := make(map[string]bool)
	for key := range t.node {
		stay[key] = isEndpoint(key) // unwatch drops them when they are due
	}
	changed := false
	x.eachPod(t, func(pod *corev1.Pod) {
		key, node := podKey(pod), t.placeOfPod(pod)
		stay[key] = node != ""
		changed = x.place(t, key, node) || changed
	})
	changed = x.keepOnly(t, stay) || changed
	if changed {
		x.changed(t)
	}
	return changed
}

// keepOnly drops the replicas of t that are not among stay.
func (x *Index) keepOnly(t *Target, stay map[string]bool) (changed bool) {
	for key := range t.node {
		if !stay[key] {
			changed = x.place(t, key, "") || changed
		}
	}
	return changed
}

// maxWatches bounds the watches of EndpointSlices, each of which is a
// connection's stream, for Services that only pods name: they may name as many
// as they like. Those of the configuration are as many as its author wants, and
// are watched besides.
const maxWatches = 64

// watch is of the EndpointSlices of one Service.
type watch struct {
	stop      context.CancelFunc
	slices    cache.Store
	hasSynced cache.InformerSynced
}

// watchIfUnselected watches the EndpointSlices of the Service that t is about
// if that is there, has no selector and is more than a name.
func (x *Index) watchIfUnselected(t *Target) {
	service, err := x.services.Services(t.service.Namespace).Get(t.service.Name)
	if err != nil || len(service.Spec.Selector) > 0 || isName(service) {
		x.unwatch(t)
		return
	}
	if t.watch != nil {
		x.takeOver(t, service) // of another address family, perhaps
		return
	}
	logger := klog.LoggerWithValues(klog.FromContext(x.ctx), "service", klog.KObj(service))
	if x.watches == maxWatches && !t.ofConfiguration {
		logger.Error(nil, "Too many Services without a selector are targets of pods' annotations; this one has no replicas until another is no longer one", "most", maxWatches)
		return
	}
	selector := labels.Set{discoveryv1.LabelServiceName: service.Name}.String()
	// A factory of its own: nobody waits for it when the API server refuses. It
	// tries again with client-go's backoff, and what was known stays.
	factory := informers.NewSharedInformerFactoryWithOptions(x.client, 0,
		informers.WithNamespace(service.Namespace),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = selector }),
	)
	informer := factory.Discovery().V1().EndpointSlices().Informer()
	told := false
	if err := informer.SetWatchErrorHandlerWithContext(func(ctx context.Context, _ *cache.Reflector, err error) {
		if ctx.Err() == nil && !told { // the reflector's goroutine alone is here
			told = true
			logger.Error(err, "Cannot list and watch the EndpointSlices of a Service without a selector that is a target; trying again. A role with get, list and watch on endpointslices in its namespace is needed")
		}
	}); err != nil {
		logger.Error(err, "Cannot watch the EndpointSlices of a target")
		return
	}
	w := &watch{slices: informer.GetStore()}
	follow := func(*discoveryv1.EndpointSlice) { x.follow(t, w) }
	registration, err := informer.AddEventHandler(handler(x, "endpointslices", follow, follow))
	if err != nil {
		logger.Error(err, "Cannot watch the EndpointSlices of a target")
		return
	}
	w.hasSynced = registration.HasSynced
	ctx, stop := context.WithCancel(x.ctx)
	w.stop, t.watch = stop, w
	if !t.ofConfiguration {
		x.watches++
	}
	factory.StartWithContext(ctx)
}

// stopWatch ends the watch of t, if it has one, and lets those have it that
// were refused.
func (x *Index) stopWatch(t *Target) {
	if t.watch == nil {
		return
	}
	t.watch.stop()
	t.watch = nil
	if t.ofConfiguration {
		return
	}
	x.watches--
	for _, targets := range x.affected.services {
		for other := range targets {
			if x.watches == maxWatches {
				return
			}
			if other.watch == nil {
				x.watchIfUnselected(other)
			}
		}
	}
}

// unwatch ends the watch of t, if it has one, and with it what it saw.
func (x *Index) unwatch(t *Target) {
	if t.watch == nil {
		return
	}
	x.stopWatch(t)
	stay := make(map[string]bool)
	for key := range t.node {
		stay[key] = !isEndpoint(key)
	}
	if x.keepOnly(t, stay) {
		x.changed(t)
	}
}

// An endpoint's key is told from a pod's by having no namespace.
func endpointKey(address string) string { return fmt.Sprintf("[%s]", address) }
func isEndpoint(key string) bool        { return key[0] == '[' }

// follow takes over the endpoints that w has seen.
func (x *Index) follow(t *Target, w *watch) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if t.watch != w {
		return
	}
	service, err := x.services.Services(t.service.Namespace).Get(t.service.Name)
	if err != nil {
		return // it has just gone, which its handler will hear of
	}
	x.takeOver(t, service)
}

// takeOver counts the endpoints that the watch of t has seen, and those only.
func (x *Index) takeOver(t *Target, service *corev1.Service) {
	stay := make(map[string]bool)
	changed := false
	for key, endpoint := range t.watch.endpoints(service) {
		stay[key] = true
		changed = x.place(t, key, endpoint.node) || changed
	}
	if x.keepOnly(t, stay) || changed {
		x.changed(t)
	}
}

// serving is where an endpoint is, and its TCP port, 0 when none is known.
type serving struct {
	node string
	port uint16
}

// endpoints is the endpoints of service that w has seen, by key. An endpoint of
// two families has an address in the slices of each, and nothing says that the
// two are one: the first of the Service's families that has any counts, as for
// a client that prefers it.
func (w *watch) endpoints(service *corev1.Service) map[string]serving {
	if len(service.Spec.IPFamilies) == 0 {
		return w.endpointsIf(service, func(discoveryv1.AddressType) bool { return true })
	}
	for _, family := range service.Spec.IPFamilies {
		found := w.endpointsIf(service, func(t discoveryv1.AddressType) bool { return t == discoveryv1.AddressType(family) })
		if len(found) > 0 {
			return found
		}
	}
	return nil
}

// endpointsIf is those of slices whose type is taken: those that are ready, each
// at the node that its slice names. An endpoint without a node is nowhere.
func (w *watch) endpointsIf(service *corev1.Service, taken func(discoveryv1.AddressType) bool) map[string]serving {
	found := make(map[string]serving)
	for _, object := range w.slices.List() {
		slice, ok := object.(*discoveryv1.EndpointSlice)
		if !ok || !taken(slice.AddressType) {
			continue
		}
		port := slicePort(service, slice)
		for _, endpoint := range slice.Endpoints {
			// No condition is to be taken as ready (API reference).
			ready := endpoint.Conditions.Ready == nil || *endpoint.Conditions.Ready
			if !ready || endpoint.NodeName == nil || *endpoint.NodeName == "" || len(endpoint.Addresses) == 0 {
				continue
			}
			// By address: the same endpoint may be in two slices while it moves
			// between them.
			found[endpointKey(endpoint.Addresses[0])] = serving{*endpoint.NodeName, port}
		}
	}
	return found
}
