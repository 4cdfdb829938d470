package agent

import (
	"fmt"
	"slices"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// EndpointSlices lists and watches the EndpointSlices of Services in the
// cluster of config, which it does not change. Names that are empty are of no
// Service. The client knows no other kind:
// the clientset of client-go would add the types of the whole Kubernetes API to
// an agent that runs on every node.
func EndpointSlices(config *rest.Config, namespace string, services ...string) (cache.ListerWatcher, error) {
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
	return cache.NewFilteredListWatchFromClient(client, "endpointslices", namespace, ofServices(services...)), nil
}

// ofServices selects the EndpointSlices of Services.
func ofServices(names ...string) func(*metav1.ListOptions) {
	names = slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name == "" })
	selector := metav1.FormatLabelSelector(&metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
		{Key: discoveryv1.LabelServiceName, Operator: metav1.LabelSelectorOpIn, Values: names},
	}})
	return func(o *metav1.ListOptions) { o.LabelSelector = selector }
}
