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
// endpoints from elsewhere, and chooses no pods.
func podSelector(service *corev1.Service) labels.Selector {
	if len(service.Spec.Selector) == 0 {
		return labels.Nothing()
	}
	return labels.SelectorFromSet(service.Spec.Selector)
}

// distributionOf is to which of its endpoints kube-proxy leads who calls a
// Service. It has no say for a headless one, whose clients choose themselves.
// Where endpoints come from elsewhere than a selector, their hints would count,
// and the Service's own field does not.
func distributionOf(service *corev1.Service) placement.Distribution {
	if service.Spec.ClusterIP == corev1.ClusterIPNone || len(service.Spec.Selector) == 0 || service.Spec.TrafficDistribution == nil {
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

func (x *Index) placeService(service *corev1.Service) {
	x.reselect(service, podSelector(service), distributionOf(service))
}

func (x *Index) removeService(service *corev1.Service) {
	x.reselect(service, labels.Nothing(), placement.ToAll)
}

// reselect lets the targets that are about service choose by selector and lead
// to some of what is chosen, and counts the pods of its namespace again if the
// selector is another one.
func (x *Index) reselect(service *corev1.Service, selector labels.Selector, distribution placement.Distribution) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for t := range x.affected.services[types.NamespacedName{Namespace: service.Namespace, Name: service.Name}] {
		redistributed := t.distribution != distribution
		t.distribution = distribution
		if t.pods.String() != selector.String() {
			x.affected.remove(t)
			t.pods = selector
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
// connection's stream: Services without a selector are few, and pods may name
// as many as they like.
const maxWatches = 64

// watch is of the EndpointSlices of one Service.
type watch struct {
	stop      context.CancelFunc
	slices    cache.Store
	hasSynced cache.InformerSynced
}

// watchIfUnselected watches the EndpointSlices of the Service that t is about
// if that is there and has no selector.
func (x *Index) watchIfUnselected(t *Target) {
	service, err := x.services.Services(t.service.Namespace).Get(t.service.Name)
	if err != nil || len(service.Spec.Selector) > 0 {
		x.unwatch(t)
		return
	}
	if t.watch != nil {
		return
	}
	logger := klog.LoggerWithValues(klog.FromContext(x.ctx), "service", klog.KObj(service))
	if x.watches == maxWatches {
		logger.Error(nil, "Too many Services without a selector are targets; this one has no replicas", "most", maxWatches)
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
	x.watches++
	factory.StartWithContext(ctx)
}

// unwatch ends the watch of t, if it has one, and with it what it saw.
func (x *Index) unwatch(t *Target) {
	if t.watch == nil {
		return
	}
	t.watch.stop()
	t.watch = nil
	x.watches--
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

// follow takes over the endpoints that w has seen: those that are ready, each
// at the node that its slice names. An endpoint without a node is nowhere.
func (x *Index) follow(t *Target, w *watch) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if t.watch != w {
		return
	}
	stay := make(map[string]bool)
	changed := false
	for _, object := range w.slices.List() {
		slice, ok := object.(*discoveryv1.EndpointSlice)
		if !ok {
			continue
		}
		for _, endpoint := range slice.Endpoints {
			// No condition is to be taken as ready (API reference).
			ready := endpoint.Conditions.Ready == nil || *endpoint.Conditions.Ready
			if !ready || endpoint.NodeName == nil || *endpoint.NodeName == "" || len(endpoint.Addresses) == 0 {
				continue
			}
			// By address: the same endpoint may be in two slices while it moves
			// between them.
			key := endpointKey(endpoint.Addresses[0])
			stay[key] = true
			changed = x.place(t, key, *endpoint.NodeName) || changed
		}
	}
	if x.keepOnly(t, stay) || changed {
		x.changed(t)
	}
}
