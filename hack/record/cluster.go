package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	configv1 "github.com/netlatency/netlatency/apis/config/v1"
	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/source"
)

func readAgents(ctx context.Context, o options, client kubernetes.Interface, config *rest.Config) (*latency.Matrix, error) {
	proxy, err := newPodProxy(ctx, o, client, config)
	if err != nil {
		return nil, err
	}
	matrix, stats, err := first(ctx, func(publish func(*latency.Matrix)) (runner, error) {
		return source.NewAgents(source.AgentsOptions{
			Client: client, Namespace: o.namespace, Service: o.service, Port: o.port, Transport: proxy,
			Interval: o.timeout, Timeout: o.timeout, StaleAfter: o.timeout + recordedAge, Publish: publish,
		})
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the agents: %w", err)
	case stats.Agents == 0:
		return nil, fmt.Errorf("there is no ready agent behind Service %s/%s", o.namespace, o.service)
	case stats.Answered == 0:
		return nil, fmt.Errorf("none of %d agents answered: %v; -v=2 says more. Reading them takes the permission to get pods/proxy in namespace %s", stats.Agents, stats.Failures, o.namespace)
	}
	return matrix, nil
}

// podProxy carries requests to pods' addresses through the API server, by
// which a program outside of the cluster reaches them.
type podProxy struct {
	http.RoundTripper
	server    *url.URL
	namespace string
	pods      map[string]string // by address
}

func newPodProxy(ctx context.Context, o options, client kubernetes.Interface, config *rest.Config) (*podProxy, error) {
	list, err := client.DiscoveryV1().EndpointSlices(o.namespace).List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + o.service})
	if err != nil {
		return nil, fmt.Errorf("list the EndpointSlices of the agents: %w", err)
	}
	pods := make(map[string]string)
	for _, slice := range list.Items {
		for _, endpoint := range slice.Endpoints {
			for _, address := range endpoint.Addresses {
				if endpoint.TargetRef != nil && endpoint.TargetRef.Kind == "Pod" {
					pods[address] = endpoint.TargetRef.Name
				}
			}
		}
	}
	transport, err := rest.TransportFor(config)
	if err != nil {
		return nil, fmt.Errorf("reach the API server: %w", err)
	}
	server, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, fmt.Errorf("reach the API server: %w", err)
	}
	if server.Path == "" {
		server.Path = "/" // JoinPath would make a relative one
	}
	return &podProxy{RoundTripper: transport, server: server, namespace: o.namespace, pods: pods}, nil
}

// RoundTrip implements http.RoundTripper.
func (p *podProxy) RoundTrip(request *http.Request) (*http.Response, error) {
	address, port, err := net.SplitHostPort(request.URL.Host)
	if err != nil {
		return nil, err
	}
	pod, ok := p.pods[address]
	if !ok {
		return nil, fmt.Errorf("no pod has the address %s", address)
	}
	request = request.Clone(request.Context())
	path := p.server.JoinPath("api/v1/namespaces", p.namespace, "pods", "http:"+pod+":"+port, "proxy", request.URL.Path)
	path.RawQuery = request.URL.RawQuery
	request.URL, request.Host = path, ""
	return p.RoundTripper.RoundTrip(request)
}

// nodeGroups is what groups the nodes, by the provider labels that are the
// default.
func nodeGroups(ctx context.Context, client kubernetes.Interface) (map[string]latency.NodeGroup, error) {
	if client == nil {
		return nil, nil
	}
	nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	defaults := &configv1.NetLatencyArgs{}
	configv1.SetDefaults_NetLatencyArgs(defaults)
	groups := make(map[string]latency.NodeGroup)
	for _, node := range nodes.Items {
		provider, _, found := strings.Cut(node.Spec.ProviderID, "://")
		if !found {
			provider = ""
		}
		for _, key := range slices.Backward(defaults.ProviderLabels) { // the first that there is counts
			if label := node.Labels[key]; label != "" {
				provider = label
			}
		}
		group := latency.NodeGroup{Provider: provider, Region: node.Labels[corev1.LabelTopologyRegion], Zone: node.Labels[corev1.LabelTopologyZone]}
		if group != (latency.NodeGroup{}) {
			groups[node.Name] = group
		}
	}
	return groups, nil
}
