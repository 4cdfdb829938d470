package source_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"

	"github.com/netlatency/netlatency/pkg/exposition"
	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/source"
)

const (
	namespace = "netlatency"
	service   = "netlatency-agent"

	interval   = 10 * time.Second
	staleAfter = 2 * time.Minute

	// patience is far beyond what anything here takes.
	patience = 20 * time.Second
)

// fakeAgent is the HTTP side of an agent. Its clock is the year 2030: the
// reader's clock is another one.
type fakeAgent struct {
	*httptest.Server
	node string

	mu          sync.Mutex
	rows        map[string]latency.Distribution // Newest is unset; age below
	ages        map[string]time.Duration
	handler     http.HandlerFunc // instead of serving the rows
	requests    []*http.Request
	connections atomic.Int32
}

func newFakeAgent(t *testing.T, node string) *fakeAgent {
	t.Helper()
	return newFakeAgentOn(t, node, "127.0.0.1:0")
}

func newFakeAgentOn(t *testing.T, node, address string) *fakeAgent {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatalf("listen for the agent of %s: %v", node, err)
	}
	a := &fakeAgent{node: node, rows: make(map[string]latency.Distribution), ages: make(map[string]time.Duration)}
	a.Server = &httptest.Server{Listener: listener, Config: &http.Server{Handler: a}}
	a.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			a.connections.Add(1)
		}
	}
	a.Start()
	t.Cleanup(func() {
		a.CloseClientConnections() // requests that hang
		a.Close()
	})
	return a
}

// measures makes rtt, of that age, the agent's measurement to peer.
func (a *fakeAgent) measures(peer string, rtt, age time.Duration) *fakeAgent {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rows[peer] = latency.Distribution{Min: rtt, P50: rtt, P90: rtt, P99: rtt, Mean: rtt, Samples: 100, Method: "udp"}
	a.ages[peer] = age
	return a
}

// forgets empties the window, as a restart does.
func (a *fakeAgent) forgets() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.rows)
}

// answers replaces the agent's answers by those of a handler; nil restores
// them.
func (a *fakeAgent) answers(h http.HandlerFunc) *fakeAgent {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.handler = h
	return a
}

// pretends makes the agent speak in the name of another node.
func (a *fakeAgent) pretends(node string) *fakeAgent {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.node = node
	return a
}

func (a *fakeAgent) received() []*http.Request {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]*http.Request(nil), a.requests...)
}

func (a *fakeAgent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	a.requests = append(a.requests, r)
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	window := exposition.Window{Node: a.node, Version: "v1.0.0", Now: now}
	for peer, d := range a.rows {
		d.Newest = now.Add(-a.ages[peer])
		window.Rows = append(window.Rows, exposition.Row{Peer: peer, Distribution: d})
	}
	handler := a.handler
	a.mu.Unlock()
	if handler != nil {
		handler(w, r)
		return
	}
	families := func() ([]*dto.MetricFamily, error) { return exposition.Families(window), nil }
	promhttp.HandlerFor(prometheus.GathererFunc(families), promhttp.HandlerOpts{}).ServeHTTP(w, r)
}

func (a *fakeAgent) addrPort() netip.AddrPort {
	return netip.MustParseAddrPort(a.Listener.Addr().String())
}

// sliceOf is an EndpointSlice of the agents' Service with one endpoint, named
// after its node.
func sliceOf(node string, address netip.AddrPort, edits ...func(*discoveryv1.EndpointSlice)) *discoveryv1.EndpointSlice {
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: service + "-" + node,
			Labels: map[string]string{discoveryv1.LabelServiceName: service},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints: []discoveryv1.Endpoint{{
			Addresses:  []string{address.Addr().String()},
			NodeName:   new(node),
			Conditions: discoveryv1.EndpointConditions{Ready: new(true)},
		}},
		Ports: []discoveryv1.EndpointPort{
			{Name: new("probe"), Port: ptr.To[int32](1)},
			{Name: new("http"), Port: new(int32(address.Port()))},
		},
	}
	for _, edit := range edits {
		edit(slice)
	}
	return slice
}

func (a *fakeAgent) slice(edits ...func(*discoveryv1.EndpointSlice)) *discoveryv1.EndpointSlice {
	return sliceOf(a.node, a.addrPort(), edits...)
}

// running is a source that runs, by a fake clock.
type running struct {
	t         *testing.T
	clock     *clocktesting.FakeClock
	published chan *latency.Matrix
	done      <-chan struct{}
	stop      func() // ends Run and waits for it
}

// run runs the source that open makes to publish to r.publish and with r.clock,
// which begins at now.
func run[S interface{ Run(context.Context) }](t *testing.T, now time.Time, open func(r *running) (S, error)) (*running, S) {
	t.Helper()
	ctx, cancel := context.WithCancel(klog.NewContext(context.Background(), ktesting.NewLogger(t, ktesting.NewConfig())))
	r := &running{t: t, clock: clocktesting.NewFakeClock(now), published: make(chan *latency.Matrix), done: ctx.Done()}
	source, err := open(r)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		source.Run(ctx)
	}()
	r.stop = func() {
		t.Helper()
		cancel()
		select {
		case <-ended:
		case <-time.After(patience):
			t.Fatal("Run did not end with its context")
		}
	}
	t.Cleanup(r.stop)
	return r, source
}

func (r *running) publish(m *latency.Matrix) {
	select {
	case r.published <- m:
	case <-r.done:
	}
}

// matrix is the next one that is published.
func (r *running) matrix() *latency.Matrix {
	r.t.Helper()
	select {
	case m := <-r.published:
		return m
	case <-time.After(patience):
		r.t.Fatal("no matrix was published")
		return nil
	}
}

// round passes more than an interval and gives the matrix of the round that
// this starts.
func (r *running) round() *latency.Matrix {
	r.t.Helper()
	return r.after(interval + interval/5)
}

// after is the matrix of the round that begins when so much time has passed.
func (r *running) after(span time.Duration) *latency.Matrix {
	r.t.Helper()
	eventually(r.t, "the source waits for the next round", r.clock.HasWaiters)
	r.clock.Step(span)
	return r.matrix()
}

// reading is a source of agents that runs.
type reading struct {
	*running
	client *fake.Clientset
	source *source.Agents
}

// read starts a source on a cluster with the slices.
func read(t *testing.T, client *fake.Clientset, edits ...func(*source.AgentsOptions)) *reading {
	t.Helper()
	r, agents := run(t, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), func(r *running) (*source.Agents, error) {
		options := source.AgentsOptions{
			Client: client, Namespace: namespace, Service: service, Port: "http",
			Interval: interval, Timeout: time.Minute, StaleAfter: staleAfter, Clock: r.clock, Publish: r.publish,
		}
		for _, edit := range edits {
			edit(&options)
		}
		return source.NewAgents(options)
	})
	return &reading{r, client, agents}
}

func clusterOf(slices ...*discoveryv1.EndpointSlice) *fake.Clientset {
	var objects []runtime.Object
	for _, slice := range slices {
		objects = append(objects, slice)
	}
	return fake.NewClientset(objects...)
}

// roundsUntil runs rounds until one satisfies done: changes of EndpointSlices
// arrive by watch, some time.
func (r *reading) roundsUntil(what string, done func(*latency.Matrix) bool) *latency.Matrix {
	r.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if m := r.round(); done(m) {
			return m
		}
	}
	r.t.Fatalf("no round came to pass in which %s", what)
	return nil
}

// rtts are the medians of a matrix as "node>peer".
func rtts(m *latency.Matrix) map[string]time.Duration {
	all := make(map[string]time.Duration)
	for pair, d := range m.All() {
		all[fmt.Sprintf("%s>%s", pair.Node, pair.Peer)] = d.P50
	}
	return all
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if done() {
			return
		}
	}
	t.Fatalf("it did not come to pass that %s", what)
}
