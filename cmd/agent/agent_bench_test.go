package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/netlatency/netlatency/pkg/exposition"
	"github.com/netlatency/netlatency/pkg/probe"
)

// othersVariable makes the test binary the other agents of BenchmarkAgent, "so
// many:port": it probes the agent at that port of 127.0.0.1, and prints the port
// at which it answers on every address of this machine.
const othersVariable = "NETLATENCY_BENCH_OTHERS"

func TestMain(m *testing.M) {
	var peers int
	var port uint16
	if _, err := fmt.Sscanf(os.Getenv(othersVariable), "%d:%d", &peers, &port); err == nil {
		if err := others(peers, port); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// probers is how many of the other agents' probes to the agent come from an
// address of its own.
const probers = 50

// others answers probes, and sends as many to the agent at 127.0.0.1 as the
// agent sends, until its standard input ends.
func others(peers int, port uint16) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	run := func(address string, options probe.UDPOptions) (*probe.UDP, error) {
		options.Timeout = time.Second
		u, err := probe.ListenUDP(ctx, netip.AddrPortFrom(netip.MustParseAddr(address), 0), options)
		if err == nil {
			go func() { _ = u.Run(ctx) }()
		}
		return u, err
	}
	rate := probe.Rate{PerSecond: 1e6, Burst: 1e6}
	answers, err := run("0.0.0.0", probe.UDPOptions{Reflector: probe.NewReflector(probe.ReflectorOptions{PerSource: rate, Total: rate})})
	if err != nil {
		return err
	}
	agent := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
	var from []*probe.UDP
	for i := range probers {
		u, err := run(fmt.Sprintf("127.2.0.%d", i+1), probe.UDPOptions{})
		if err != nil {
			return err
		}
		from = append(from, u)
	}
	fmt.Println(answers.LocalAddr().Port())
	each := time.NewTicker(time.Second / time.Duration(peers))
	defer each.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return nil
		case <-each.C:
			_ = from[i%len(from)].Send(probe.Probe{Peer: agent, Size: probe.MinSize})
		}
	}
}

// BenchmarkAgent is the agent as it is shipped, a process of its own with its
// watch and its metrics, that probes each of its peers once a second and is
// probed as often. Two schedulers and Prometheus read it every ten seconds. What
// it takes is the kernel's account of the process.
func BenchmarkAgent(b *testing.B) {
	built := filepath.Join(b.TempDir(), program)
	if out, err := exec.CommandContext(b.Context(), "go", "build", "-o", built, ".").CombinedOutput(); err != nil {
		b.Fatalf("build the agent: %v\n%s", err, out)
	}
	for _, c := range []struct{ peers, reads int }{{100, 1}, {1000, 2}, {2000, 1}} {
		b.Run(fmt.Sprintf("%dpeers", c.peers), func(b *testing.B) { benchmarkAgent(b, built, c.peers, c.reads) })
	}
}

// benchmarkAgent takes ten seconds for each of reads.
func benchmarkAgent(b *testing.B, built string, benchPeers, reads int) {
	b.Helper()
	port := benchPort(b)
	peers := startOthers(b, benchPeers, port)
	server := httptest.NewServer(endpointSlices(benchPeers, peers))
	defer server.Close()
	kubeconfig := filepath.Join(b.TempDir(), "kubeconfig")
	if err := os.WriteFile(kubeconfig, fmt.Appendf(nil, `{"apiVersion": "v1", "kind": "Config", "current-context": "b",
		"clusters": [{"name": "b", "cluster": {"server": %q}}], "contexts": [{"name": "b", "context": {"cluster": "b"}}]}`, server.URL), 0o600); err != nil {
		b.Fatal(err)
	}

	// Four probes every four seconds. The interval grows with more than 100
	// peers, so less is asked for.
	interval := time.Duration(float64(4*time.Second) * min(1, math.Log(101)/math.Log(float64(1+benchPeers))))
	agent := exec.CommandContext(b.Context(), built, "--kubeconfig", kubeconfig, "--node-name", "node-0", "--namespace", "netlatency",
		"--bind-address", "127.0.0.1", "--http-port", strconv.Itoa(port), "--probe-port", strconv.Itoa(port),
		"--interval", interval.Round(time.Millisecond).String(), "--max-peers", "5000", "--packets-per-second", "5000", "--methods", "udp", "--max-series", "50000000")
	agent.Stderr = os.Stderr
	if err := agent.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() { _ = agent.Process.Kill(); _ = agent.Wait() }()
	url := fmt.Sprintf("http://127.0.0.1:%d", port)
	deadline := time.Now().Add(30 * time.Second)
	for rows := 0; rows < benchPeers; rows = rowsOf(url) {
		if time.Now().After(deadline) {
			b.Fatalf("%d of %d peers are measured after 30 s", rows, benchPeers)
		}
		time.Sleep(time.Second)
	}

	const matrix, metrics, binary = exposition.MatrixPath, exposition.MetricsPath, exposition.Accept
	for b.Loop() {
		before, began := usage(b, agent.Process.Pid), time.Now()
		for range reads {
			time.Sleep(10 * time.Second)
			get(b, url+matrix, binary, "gzip")
			get(b, url+matrix, binary, "gzip")
			get(b, url+metrics, binary, "gzip")
		}
		after := usage(b, agent.Process.Pid)
		b.ReportMetric((after.processor-before.processor)/time.Since(began).Seconds(), "cores")
		b.ReportMetric(after.resident, "rss-MiB")
		b.ReportMetric(after.anonymous, "anon-MiB")
		b.ReportMetric(after.threads, "threads")
	}
	b.ReportMetric(goroutinesOf(b, url), "goroutines")
	for _, page := range []struct{ unit, path, accept, encoding string }{
		{"matrix-B", matrix, binary, "identity"}, {"matrix-gzip-B", matrix, binary, "gzip"}, {"matrix-text-B", matrix, "text/plain", "identity"},
		{"metrics-B", metrics, binary, "identity"}, {"metrics-gzip-B", metrics, binary, "gzip"}, {"metrics-text-B", metrics, "text/plain", "identity"},
	} {
		b.ReportMetric(float64(get(b, url+page.path, page.accept, page.encoding)), page.unit)
	}
}

// startOthers starts the other agents, which probe the one at port, and returns
// the port at which they answer.
func startOthers(b *testing.B, peers, port int) (at int) {
	b.Helper()
	rest := exec.CommandContext(b.Context(), "/proc/self/exe")
	rest.Env = append(os.Environ(), fmt.Sprintf("%s=%d:%d", othersVariable, peers, port))
	rest.Stderr = os.Stderr
	stdin, err := rest.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := rest.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := rest.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = stdin.Close(); _ = rest.Wait() })
	if _, err := fmt.Fscan(bufio.NewReader(stdout), &at); err != nil {
		b.Fatalf("start the other agents: %v", err)
	}
	return at
}

// endpointSlices is an API server that knows the agents on n nodes, and no news
// of them.
func endpointSlices(n, port int) http.Handler {
	list := discoveryv1.EndpointSliceList{
		TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSliceList"},
		ListMeta: metav1.ListMeta{ResourceVersion: "1"},
	}
	for i := range n {
		if i%100 == 0 { // as many as the controller puts into one
			list.Items = append(list.Items, discoveryv1.EndpointSlice{
				ObjectMeta: metav1.ObjectMeta{
					Name: fmt.Sprintf("agent-%d", i/100), Namespace: "netlatency", ResourceVersion: "1",
					Labels: map[string]string{discoveryv1.LabelServiceName: "netlatency-agent"},
				},
				AddressType: discoveryv1.AddressTypeIPv4,
				Ports: []discoveryv1.EndpointPort{
					{Name: new("probe"), Port: new(int32(port))}, {Name: new("http"), Port: new(int32(port))},
				},
			})
		}
		s := &list.Items[len(list.Items)-1]
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)}).String()},
			NodeName:  new(fmt.Sprintf("worker-%d.metro.example.com", i)),
			Zone:      new(fmt.Sprintf("zone-%d", i%5)),
		})
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("watch") {
			if r.URL.Query().Has("sendInitialEvents") {
				http.Error(w, "not served", http.StatusUnprocessableEntity)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(list)
	})
}

// benchPort is free for UDP and TCP on all addresses.
func benchPort(b *testing.B) int {
	b.Helper()
	stream, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = stream.Close() }()
	return stream.Addr().(*net.TCPAddr).Port
}

func rowsOf(url string) int {
	response, err := http.Get(url + exposition.MatrixPath)
	if err != nil {
		return 0
	}
	defer func() { _ = response.Body.Close() }()
	window, _, err := exposition.Decode(response.Body, response.Header.Get("Content-Type"), exposition.Limits{}, time.Now())
	if err != nil {
		return 0
	}
	return len(window.Rows)
}

// goroutinesOf is what the agent says of itself.
func goroutinesOf(b *testing.B, url string) (goroutines float64) {
	b.Helper()
	response, err := http.Get(url + exposition.MetricsPath)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	page, err := io.ReadAll(response.Body)
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "\ngo_goroutines ")
	if _, err := fmt.Sscan(rest, &goroutines); err != nil {
		b.Fatalf("%s has no go_goroutines: %v", exposition.MetricsPath, err)
	}
	return goroutines
}

// get reads a page and returns its size on the wire.
func get(b *testing.B, url, accept, encoding string) int64 {
	b.Helper()
	request, err := http.NewRequestWithContext(b.Context(), http.MethodGet, url, nil)
	if err != nil {
		b.Fatal(err)
	}
	request.Header.Set("Accept", accept)
	request.Header.Set("Accept-Encoding", encoding)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	n, err := io.Copy(io.Discard, response.Body)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

type consumption struct{ processor, resident, anonymous, threads float64 }

// usage is what the process has taken: seconds of processors, and MiB.
func usage(b *testing.B, pid int) (c consumption) {
	b.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	// After the name, which may have spaces: state is field 3, utime and stime
	// are 14 and 15 (proc_pid_stat(5)), in ticks of 10 ms.
	_, rest, _ := strings.Cut(string(data), ") ")
	for _, ticks := range strings.Fields(rest)[11:13] {
		n, err := strconv.ParseFloat(ticks, 64)
		if err != nil {
			b.Fatal(err)
		}
		c.processor += n / 100
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		var kB float64
		name, value, _ := strings.Cut(line, ":")
		_, _ = fmt.Sscan(value, &kB)
		switch name {
		case "VmRSS":
			c.resident = kB / 1024
		case "RssAnon":
			c.anonymous = kB / 1024
		case "Threads":
			c.threads = kB
		}
	}
	return c
}
