package agent

import (
	"fmt"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// EndpointSlices lists and watches the EndpointSlices of a Service in the
// cluster of config, which it does not change. The client knows no other kind:
// the clientset of client-go would add the types of the whole Kubernetes API to
// an agent that runs on every node.
func EndpointSlices(config *rest.Config, namespace, service string) (cache.ListerWatcher, error) {
	scheme := runtime.NewScheme()
	if err := discoveryv1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("register EndpointSlices: %w", err)
	}
	metav1.AddToGroupVersion(scheme, metav1.SchemeGroupVersion)

	config = rest.CopyConfig(config)
	config.APIPath = "/apis"
	config.GroupVersion = &discoveryv1.SchemeGroupVersion
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	// A third of the bytes of JSON; the EndpointSlices of a large cluster are
	// sent to every agent.
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("make a client of the cluster at %s: %w", config.Host, err)
	}
	return cache.NewFilteredListWatchFromClient(client, "endpointslices", namespace, ofService(service)), nil
}

// ofService selects the EndpointSlices of a Service.
func ofService(name string) func(*metav1.ListOptions) {
	selector := labels.Set{discoveryv1.LabelServiceName: name}.String()
	return func(o *metav1.ListOptions) { o.LabelSelector = selector }
}
