package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"

	"github.com/netlatency/netlatency/pkg/exposition"
	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/probe"
	"github.com/netlatency/netlatency/test/machine"
)

// Two real agents over loopback, with nothing fake but the API server: they
// find each other, measure each other, show it, and stop when told.
func TestTwoAgentsMeasureEachOther(t *testing.T) {
	for _, method := range []probe.Method{probe.MethodUDP, probe.MethodTCP} {
		t.Run("by "+string(method), func(t *testing.T) { testMesh(t, method) })
	}
}

func testMesh(t *testing.T, method probe.Method) {
	t.Helper()
	nodes := map[string]netip.Addr{"node-1": netip.MustParseAddr("127.0.0.1"), "node-2": netip.MustParseAddr("127.0.0.2")}
	port := freePort(t, nodes)
	client := fake.NewClientset(meshSlice(nodes, port).EndpointSlice)

	logger, ctx := ktesting.NewTestContext(t)
	ctx, stop := context.WithCancel(klog.NewContext(ctx, logger))
	ended := make(chan error, len(nodes))
	for node, address := range nodes {
		o := testOptions()
		o.NodeName, o.BindAddresses, o.HTTPPort, o.ProbePort = node, []string{address.String()}, port, port
		o.Interval, o.Window, o.SampleStream = 200*ms, time.Minute, true
		o.Methods = []string{string(method)}
		a, err := New(o, "v1.2.3", slicesOf(client))
		if err != nil {
			t.Fatal(err)
		}
		go func() { ended <- a.Run(ctx) }()
	}
	t.Cleanup(stop)
	url := func(node, path string) string {
		return "http://" + netip.AddrPortFrom(nodes[node], uint16(port)).String() + path
	}
	for node := range nodes {
		eventually(t, node+" is ready", func() bool { return status(url(node, "/readyz")) == http.StatusOK })
	}

	for node, peer := range map[string]string{"node-1": "node-2", "node-2": "node-1"} {
		var row exposition.Row
		eventually(t, node+" has measured "+peer, func() bool {
			window := readMatrix(t, url(node, "/matrix"))
			if window.Node != node || window.Version != "v1.2.3" {
				t.Fatalf("%s says it is %s, version %s", node, window.Node, window.Version)
			}
			if len(window.Rows) != 1 || window.Rows[0].Samples < 12 {
				return false
			}
			row = window.Rows[0]
			return true
		})
		if row.Peer != peer || row.Method != string(method) {
			t.Errorf("%s has a row for %s by %s: want %s by %s", node, row.Peer, row.Method, peer, method)
		}
		if row.Min <= 0 || row.Min > 5*ms {
			t.Errorf("the fastest round trip over loopback from %s is %v", node, row.Min)
		}
		if age := time.Since(row.Newest); age < 0 || age > 5*time.Second {
			t.Errorf("the newest sample of %s is %v old: want a few rounds of 200ms", node, age)
		}
	}
	readSamples(t, url("node-1", "/samples"))

	// Node 2 goes: its series end.
	delete(nodes, "node-2")
	_, err := client.DiscoveryV1().EndpointSlices("netlatency").Update(ctx, meshSlice(nodes, port).EndpointSlice, metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "node-1 has no peer", func() bool {
		return metricOf(t, url("node-1", "/metrics"), exposition.AgentPeers) == 0
	})

	// A client of the sample stream does not keep an agent from stopping.
	answer, err := http.Get(url("node-1", "/samples"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	stop()
	for range 2 {
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("an agent that is told to stop fails: %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("an agent goes on 20s after it was told to stop")
		}
	}
}

// An agent of both families between one that has IPv4 only and one that has
// IPv6 only: it measures both, each of them measures it, and it is read at
// either address.
func TestAnAgentOfBothFamiliesMeasuresPeersOfEither(t *testing.T) {
	machine.NeedsIPv6(t)
	type node struct {
		addresses []string
		port      int
	}
	nodes := map[string]node{"node-1": {addresses: []string{"127.0.0.1", "::1"}}, "node-2": {addresses: []string{"127.0.0.2"}}, "node-3": {addresses: []string{"::1"}}}
	client := fake.NewClientset()
	for name, n := range nodes {
		addresses := make(map[string]netip.Addr)
		for _, address := range n.addresses {
			addresses[address] = netip.MustParseAddr(address)
		}
		n.port = freePort(t, addresses)
		nodes[name] = n
		for _, address := range n.addresses {
			s := meshSlice(map[string]netip.Addr{name: addresses[address]}, n.port)
			if s.Name = name + "-ipv4"; addresses[address].Is6() {
				s.Name = name + "-ipv6"
				s.ipv6()
			}
			if err := client.Tracker().Add(s.EndpointSlice); err != nil {
				t.Fatal(err)
			}
		}
	}

	logger, ctx := ktesting.NewTestContext(t)
	ctx, stop := context.WithCancel(klog.NewContext(ctx, logger))
	ended := make(chan error, len(nodes))
	t.Cleanup(func() {
		stop()
		for range nodes {
			if err := <-ended; err != nil {
				t.Errorf("an agent that is told to stop fails: %v", err)
			}
		}
	})
	for name, n := range nodes {
		o := testOptions()
		o.NodeName, o.BindAddresses, o.HTTPPort, o.ProbePort = name, n.addresses, n.port, n.port
		o.Interval, o.Window = 200*ms, time.Minute
		o.Methods = []string{"udp", "tcp"}
		a, err := New(o, "v1.2.3", slicesOf(client))
		if err != nil {
			t.Fatal(err)
		}
		go func() { ended <- a.Run(ctx) }()
	}
	for name, want := range map[string][]string{"node-1": {"node-2", "node-3"}, "node-2": {"node-1"}, "node-3": {"node-1"}} {
		for _, address := range nodes[name].addresses {
			url := "http://" + net.JoinHostPort(address, strconv.Itoa(nodes[name].port))
			eventually(t, name+" is ready at "+address, func() bool { return status(url+"/readyz") == http.StatusOK })
			eventually(t, name+" has measured its peers", func() bool {
				var measured []string
				for _, row := range readMatrix(t, url+"/matrix").Rows {
					if row.Method == string(probe.MethodUDP) && row.Samples >= 4 {
						measured = append(measured, row.Peer)
					}
				}
				return slices.Equal(measured, want)
			})
		}
	}
}

func TestAnAgentWhosePortIsTakenSaysSo(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	o := testOptions()
	o.BindAddresses = []string{"127.0.0.1"}
	o.HTTPPort, _ = strconv.Atoi(port)
	o.ProbePort = freePort(t, map[string]netip.Addr{"": netip.MustParseAddr("127.0.0.1")})
	a, err := New(o, "v1.2.3", slicesOf(fake.NewClientset()))
	if err != nil {
		t.Fatal(err)
	}
	_, ctx := ktesting.NewTestContext(t)
	want := fmt.Sprintf("listen for HTTP on 127.0.0.1:%s: listen tcp 127.0.0.1:%s: bind: address already in use", port, port)
	if err := a.Run(ctx); err == nil || err.Error() != want {
		t.Errorf("error is %v: want %s", err, want)
	}
}

// freePort finds a port that is free for TCP and UDP at all addresses.
func freePort(t *testing.T, nodes map[string]netip.Addr) int {
	t.Helper()
	for range 100 {
		if port, ok := tryPort(nodes); ok {
			return port
		}
	}
	t.Fatal("no port is free for TCP and UDP at all addresses")
	return 0
}

func tryPort(nodes map[string]netip.Addr) (port int, ok bool) {
	for _, address := range nodes {
		stream, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(address, uint16(port))))
		if err != nil {
			return 0, false
		}
		defer func() { _ = stream.Close() }()
		port = stream.Addr().(*net.TCPAddr).Port
		packets, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(address, uint16(port))))
		if err != nil {
			return 0, false
		}
		defer func() { _ = packets.Close() }()
	}
	return port, true
}

// meshSlice is the EndpointSlice of agents that use one port for all.
func meshSlice(nodes map[string]netip.Addr, port int) sliceBuilder {
	s := slice("agents").ports(
		discoveryv1.EndpointPort{Name: new("probe"), Port: new(int32(port))},
		discoveryv1.EndpointPort{Name: new("http"), Port: new(int32(port))})
	for node, address := range nodes {
		s.ready(node, address.String())
	}
	return s
}

func status(url string) int {
	answer, err := http.Get(url)
	if err != nil {
		return 0
	}
	defer func() { _ = answer.Body.Close() }()
	return answer.StatusCode
}

func readMatrix(t *testing.T, url string) exposition.Window {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept", exposition.Accept)
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	window, dropped, err := exposition.Decode(answer.Body, answer.Header.Get("Content-Type"), exposition.Limits{}, time.Now())
	if err != nil || len(dropped) > 0 {
		t.Fatalf("decode %s: %v, dropped %v", url, err, dropped)
	}
	return window
}

// readSamples checks the next few lines of a stream.
func readSamples(t *testing.T, url string) {
	t.Helper()
	answer, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	lines := bufio.NewScanner(answer.Body)
	sessions := make(map[string]bool)
	for range 5 {
		if !lines.Scan() {
			t.Fatalf("the stream ended: %v", lines.Err())
		}
		var got streamedSample
		if err := json.Unmarshal(lines.Bytes(), &got); err != nil {
			t.Fatalf("line %q: %v", lines.Text(), err)
		}
		sessions[got.Session] = true
		rtt := time.Duration(got.RTT)
		if got.Node != "node-1" || got.Peer != "node-2" || rtt <= 0 || rtt > latency.MaxRTT ||
			got.Seq == 0 || got.Stamps != probe.Kernel && got.Stamps != probe.User || time.Since(time.Unix(0, got.Sent)).Abs() > time.Minute {
			t.Errorf("sample is not possible: %s", lines.Text())
		}
	}
	if len(sessions) != 1 {
		t.Errorf("samples are of %d sessions: want one", len(sessions))
	}
}

// metricOf is the value of a metric without labels, -1 when there is none.
func metricOf(t *testing.T, url, name string) float64 {
	t.Helper()
	answer, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	lines := bufio.NewScanner(answer.Body)
	for lines.Scan() {
		var value float64
		if n, _ := fmt.Sscanf(lines.Text(), name+" %g", &value); n == 1 {
			return value
		}
	}
	return -1
}
