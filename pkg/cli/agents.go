package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	configv1 "github.com/netlatency/netlatency/apis/config/v1"
	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/source"
	"github.com/netlatency/netlatency/pkg/topology"
)

// oldest is how old a pair may be to be read: older than any scheduler uses,
// for who looks for what went wrong.
const oldest = time.Hour

// readAgents reads all agents once.
func (c *cluster) readAgents(ctx context.Context, timeout time.Duration) (*latency.Matrix, source.Stats, error) {
	proxy, err := c.newPodProxy(ctx)
	if err != nil {
		return nil, source.Stats{}, reasonOf(ctx, err)
	}
	matrix, stats, err := first(ctx, func(publish func(*latency.Matrix)) (runner, error) {
		return source.NewAgents(source.AgentsOptions{
			Client: c.client, Namespace: c.namespace, Service: c.service, Port: configv1.DefaultAgentsPort, Transport: proxy,
			Interval: timeout, Timeout: timeout, StaleAfter: timeout + oldest, Publish: publish,
		})
	})
	switch {
	case err != nil:
		return nil, stats, fmt.Errorf("read the agents: %w", reasonOf(ctx, err))
	case stats.Agents == 0:
		return nil, stats, fmt.Errorf("there is no ready agent behind Service %s/%s", c.namespace, c.service)
	case stats.Answered == 0:
		return nil, stats, fmt.Errorf("none of %d agents answered: %v; -v=2 says more. Reading them takes the permission to get pods/proxy in namespace %s", stats.Agents, stats.Failures, c.namespace)
	}
	return matrix, stats, nil
}

// runner is a source of matrices.
type runner interface {
	Run(context.Context)
	Stats() source.Stats
}

// first runs a source until its first matrix.
func first(ctx context.Context, open func(publish func(*latency.Matrix)) (runner, error)) (*latency.Matrix, source.Stats, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	matrices := make(chan *latency.Matrix, 1)
	s, err := open(func(m *latency.Matrix) {
		select {
		case matrices <- m:
			cancel()
		default:
		}
	})
	if err != nil {
		return nil, source.Stats{}, err
	}
	s.Run(ctx)
	select {
	case m := <-matrices:
		return m, s.Stats(), nil
	default:
		return nil, source.Stats{}, errors.New("there was no answer in time")
	}
}

// podProxy carries requests to pods' addresses through the API server, by
// which a program outside of the cluster reaches them.
type podProxy struct {
	http.RoundTripper
	server    *url.URL
	namespace string
	pods      map[string]string // by address
}

func (c *cluster) newPodProxy(ctx context.Context) (*podProxy, error) {
	list, err := c.client.DiscoveryV1().EndpointSlices(c.namespace).List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + c.service})
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
	transport, err := rest.TransportFor(c.config)
	if err != nil {
		return nil, fmt.Errorf("reach the API server: %w", err)
	}
	server, _, err := rest.DefaultServerUrlFor(c.config)
	if err != nil {
		return nil, fmt.Errorf("reach the API server: %w", err)
	}
	if server.Path == "" {
		server.Path = "/" // JoinPath would make a relative one
	}
	return &podProxy{RoundTripper: transport, server: server, namespace: c.namespace, pods: pods}, nil
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

// groupsOf is what groups the nodes, by name.
func groupsOf(nodes []corev1.Node, providerLabels []string) map[string]latency.NodeGroup {
	groups := make(map[string]latency.NodeGroup)
	for i := range nodes {
		if group := topology.GroupOf(&nodes[i], providerLabels); group != (latency.NodeGroup{}) {
			groups[nodes[i].Name] = group
		}
	}
	return groups
}
