package source_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"golang.org/x/sync/errgroup"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/netlatency/netlatency/pkg/exposition"
	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/source"
)

// rowsOfAPage is what an agent probes at most by default (--max-peers).
const rowsOfAPage = 128

// variablePages makes this program the agents of a benchmark, so many of them,
// instead of its tests: what they cost must not count.
const variablePages = "NETLATENCY_BENCHMARK_AGENTS"

func TestMain(m *testing.M) {
	for variable, serve := range map[string]func(size int) error{variablePages: servePages, variableAnswers: serveAnswers} {
		if size, err := strconv.Atoi(os.Getenv(variable)); err == nil {
			if err := serve(size); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			return
		}
	}
	os.Exit(m.Run())
}

// addressOf is the loopback address of an agent.
func addressOf(agent int) netip.Addr {
	return netip.AddrFrom4([4]byte{127, 1, byte(agent >> 8), byte(agent)})
}

// nodeOf is a name of 28 characters, as cloud providers' are.
func nodeOf(agent int) string {
	return fmt.Sprintf("worker-hetzner-fsn-1-%07x", agent*2654435761%(1<<28))
}

// servePages is the HTTP side of agents, each at an address of its own, until
// the standard input ends. It prints their port.
func servePages(agents int) error {
	pages := make([][]byte, agents)
	var encoders errgroup.Group
	encoders.SetLimit(4)
	for i := range pages {
		encoders.Go(func() (err error) { pages[i], err = page(i, agents); return err })
	}
	if err := encoders.Wait(); err != nil {
		return err
	}
	server := &http.Server{
		ReadHeaderTimeout: time.Minute,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			local, _ := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
			ip := local.IP.To4()
			w.Header().Set("Content-Type", string(expfmt.NewFormat(expfmt.TypeProtoDelim)))
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(pages[int(ip[2])<<8|int(ip[3])])
		}),
	}
	port := 0
	for i := range agents {
		listener, err := net.Listen("tcp", netip.AddrPortFrom(addressOf(i), uint16(port)).String())
		if err != nil {
			return err
		}
		port = listener.Addr().(*net.TCPAddr).Port
		go func() { _ = server.Serve(listener) }()
	}
	fmt.Println(port)
	_, _ = io.Copy(io.Discard, os.Stdin)
	return nil
}

// page is an agent's answer as its encoder writes it, for peers that it shares
// with the other agents.
func page(agent, agents int) ([]byte, error) {
	r := rand.New(rand.NewPCG(1, uint64(agent)))
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	w := exposition.Window{Node: nodeOf(agent), Version: "v1.2.3", Now: now}
	for i := range min(rowsOfAPage, agents-1) {
		base := []time.Duration{200, 600, 2500}[i%3] * time.Microsecond
		above := func(d time.Duration, share float64) time.Duration {
			return d + time.Duration(r.ExpFloat64()*share*float64(base))
		}
		d := latency.Distribution{Min: above(base, 0.1), Samples: 110 + r.IntN(11), Method: "udp",
			Newest: now.Add(-time.Duration(r.Int64N(int64(10 * time.Second))))}
		d.P50 = above(d.Min, 0.1)
		d.P90 = above(d.P50, 0.2)
		d.P99 = above(d.P90, 0.5)
		d.Mean = above(d.P50, 0.05)
		if i%20 == 0 {
			d.Sent, d.Lost = 720, 1+r.IntN(9)
		}
		w.Rows = append(w.Rows, exposition.Row{Peer: nodeOf((agent + 1 + i*agents/rowsOfAPage) % agents), Distribution: d})
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	encoder := expfmt.NewEncoder(z, expfmt.NewFormat(expfmt.TypeProtoDelim))
	for _, family := range exposition.Families(w) {
		if err := encoder.Encode(family); err != nil {
			return nil, err
		}
	}
	err := z.Close()
	return packed.Bytes(), err
}

// startServer starts what variable makes of this program in a process of its
// own, which ends with b, or with this process.
func startServer(b *testing.B, variable string, size int) (port uint16) {
	b.Helper()
	command := exec.CommandContext(b.Context(), os.Args[0])
	command.Env = append(os.Environ(), fmt.Sprintf("%s=%d", variable, size))
	command.Stderr = os.Stderr
	input, err := command.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	output, err := command.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := command.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		input.Close()
		_ = command.Wait()
	})
	line, err := bufio.NewReader(output).ReadString('\n')
	if err != nil {
		b.Fatalf("%s did not start: %v", variable, err)
	}
	number, err := strconv.ParseUint(strings.TrimSpace(line), 10, 16)
	if err != nil {
		b.Fatal(err)
	}
	return uint16(number)
}

// slicesOf is the EndpointSlices of that many agents, a hundred in each as
// Kubernetes makes them.
func slicesOf(agents int, port uint16) []runtime.Object {
	var all []runtime.Object
	for first := 0; first < agents; first += 100 {
		slice := &discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: namespace, Name: fmt.Sprintf("%s-%d", service, first),
				Labels: map[string]string{discoveryv1.LabelServiceName: service},
			},
			AddressType: discoveryv1.AddressTypeIPv4,
			Ports:       []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(port))}},
		}
		for i := first; i < min(first+100, agents); i++ {
			slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{addressOf(i).String()}, NodeName: new(nodeOf(i))})
		}
		all = append(all, slice)
	}
	return all
}

var benchmarkedAgents = []int{200, 1000, 5000}

// BenchmarkCollect is rounds of the source over agents that answer at once:
// what one costs this process, in time, processor time and memory.
func BenchmarkCollect(b *testing.B) {
	for _, agents := range benchmarkedAgents {
		b.Run(fmt.Sprintf("%dagents", agents), func(b *testing.B) {
			port := startServer(b, variablePages, agents)
			usage := startUsage(b)
			client := fake.NewClientset(slicesOf(agents, port)...)
			clock := clocktesting.NewFakeClock(recordedAt)
			published := make(chan *latency.Matrix)
			ctx, cancel := context.WithCancel(b.Context())
			s, err := source.NewAgents(source.AgentsOptions{
				Client: client, Namespace: namespace, Service: service, Port: "http",
				Interval: interval, Timeout: 10 * time.Second, StaleAfter: staleAfter, Clock: clock,
				Hysteresis: latency.Hysteresis{Ratio: 0.05, Floor: 50 * time.Microsecond, Statistic: latency.DefaultStatistic()},
				Publish: func(m *latency.Matrix) {
					select {
					case published <- m:
					case <-ctx.Done():
					}
				},
			})
			if err != nil {
				b.Fatal(err)
			}
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				s.Run(ctx)
			}()
			defer func() {
				cancel()
				<-ended
			}()
			<-published // connections are made once
			usage.start()
			for b.Loop() {
				clock.Step(interval + interval/5)
				<-published
			}
			usage.report()
			if stats, pairs := s.Stats(), agents*min(rowsOfAPage, agents-1); stats.Answered != agents || stats.Pairs != pairs {
				b.Fatalf("%d agents answered, %d pairs are known: want %d and %d (failures %v)", stats.Answered, stats.Pairs, agents, pairs, stats.Failures)
			}
		})
	}
}

// BenchmarkCollectFromPrometheus is rounds of the other source, over a server
// that answers at once: the queries that are the default, about the round trips
// of so many nodes to 50 target nodes.
func BenchmarkCollectFromPrometheus(b *testing.B) {
	for _, nodes := range benchmarkedAgents {
		b.Run(fmt.Sprintf("%dnodes", nodes), func(b *testing.B) {
			port := startServer(b, variableAnswers, nodes)
			usage := startUsage(b)
			clock := clocktesting.NewFakeClock(recordedAt)
			published := make(chan *latency.Matrix)
			ctx, cancel := context.WithCancel(b.Context())
			const peers = `{peer=~"$peers"}`
			s, err := source.NewPrometheus(source.PrometheusOptions{
				Address: fmt.Sprintf("http://127.0.0.1:%d", port), NodeLabel: "node", PeerLabel: "peer", Scale: 1,
				Interval: patienceWithPrometheus, Timeout: patienceWithPrometheus, MaxBytes: 1 << 30, StaleAfter: staleAfter, Clock: clock,
				Queries: source.PrometheusQueries{
					Mean: "mean" + peers, P50: "p50" + peers, P90: "p90" + peers, P99: "p99" + peers,
					Samples: "samples" + peers, Sent: "sent" + peers, Loss: "loss" + peers, Timestamp: "timestamp" + peers,
				},
				Peers: func() []string {
					names := make([]string, targetsOfPrometheus)
					for i := range names {
						names[i] = nodeOf(i)
					}
					return names
				},
				Hysteresis: latency.Hysteresis{Ratio: 0.05, Floor: 50 * time.Microsecond, Statistic: latency.DefaultStatistic()},
				Publish: func(m *latency.Matrix) {
					select {
					case published <- m:
					case <-ctx.Done():
					}
				},
			})
			if err != nil {
				b.Fatal(err)
			}
			usage.start()
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				s.Run(ctx)
			}()
			defer func() {
				cancel()
				<-ended
			}()
			for first := true; b.Loop(); first = false {
				// The first round starts by itself; a round is published before the
				// timer of the next is set.
				if !first {
					for !clock.HasWaiters() {
						time.Sleep(time.Millisecond)
					}
					clock.Step(2 * patienceWithPrometheus)
				}
				<-published
			}
			usage.report()
			if stats, pairs := s.Stats(), nodes*targetsOfPrometheus-targetsOfPrometheus; stats.Pairs != pairs {
				b.Fatalf("%d pairs are known, want %d (failures %v, dropped %v)", stats.Pairs, pairs, stats.Failures, stats.Dropped)
			}
		})
	}
}

const (
	// patienceWithPrometheus is far beyond what a round takes.
	patienceWithPrometheus = 10 * time.Minute
	// targetsOfPrometheus is on how many nodes targets run.
	targetsOfPrometheus = 50
	// variableAnswers makes this program the Prometheus of a benchmark, with
	// so many nodes.
	variableAnswers = "NETLATENCY_BENCHMARK_PROMETHEUS"
)

// serveAnswers is the API of a Prometheus, until the standard input ends. It
// prints its port.
func serveAnswers(nodes int) error {
	now := float64(time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC).Unix())
	answers := make(map[string][]byte) // by the metric that a query begins with
	for metric, value := range map[string]func(r *rand.Rand) float64{
		// Of one seed, so that quantiles do not fall.
		"mean": (*rand.Rand).Float64, "p50": (*rand.Rand).Float64, "p90": (*rand.Rand).Float64, "p99": (*rand.Rand).Float64,
		"samples":   func(*rand.Rand) float64 { return 120 },
		"sent":      func(*rand.Rand) float64 { return 720 },
		"loss":      func(*rand.Rand) float64 { return 0 },
		"timestamp": func(r *rand.Rand) float64 { return now - 60*r.Float64() },
	} {
		var answer bytes.Buffer
		r := rand.New(rand.NewPCG(1, 1))
		separator := `{"status":"success","data":{"resultType":"vector","result":[`
		for i := range nodes {
			for j := range targetsOfPrometheus {
				if i != j {
					fmt.Fprintf(&answer, `%s{"metric":{"__name__":"netlatency:rtt_seconds:%s","node":%q,"peer":%q},"value":[%.3f,"%v"]}`, separator, metric, nodeOf(i), nodeOf(j), now, value(r))
					separator = ","
				}
			}
		}
		answer.WriteString("]}}")
		answers[metric] = answer.Bytes()
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{
		ReadHeaderTimeout: time.Minute,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			metric, _, _ := strings.Cut(r.FormValue("query"), "{")
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(answers[metric]) // as it is: the client asks for no compression
		}),
	}
	go func() { _ = server.Serve(listener) }()
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	_, _ = io.Copy(io.Discard, os.Stdin)
	return nil
}

// BenchmarkCollectByExpfmt is what BenchmarkCollect is measured against: the
// same pages read as many at once, decoded by expfmt into families, which are
// kept until the next round. No matrix is made of them.
func BenchmarkCollectByExpfmt(b *testing.B) {
	for _, agents := range benchmarkedAgents {
		b.Run(fmt.Sprintf("%dagents", agents), func(b *testing.B) {
			port := startServer(b, variablePages, agents)
			usage := startUsage(b)
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}}
			defer client.CloseIdleConnections()
			kept := make([][]*dto.MetricFamily, agents)
			round := func() {
				var readers errgroup.Group
				readers.SetLimit(32)
				for i := range agents {
					readers.Go(func() (err error) {
						kept[i], err = familiesOf(client, netip.AddrPortFrom(addressOf(i), port))
						return err
					})
				}
				if err := readers.Wait(); err != nil {
					b.Fatal(err)
				}
			}
			round()
			usage.start()
			for b.Loop() {
				round()
			}
			usage.report()
		})
	}
}

func familiesOf(client *http.Client, address netip.AddrPort) ([]*dto.MetricFamily, error) {
	response, err := client.Get("http://" + address.String() + exposition.MatrixPath)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	decoder := expfmt.NewDecoder(response.Body, expfmt.ResponseFormat(response.Header))
	var families []*dto.MetricFamily
	for {
		family := &dto.MetricFamily{}
		if err := decoder.Decode(family); errors.Is(err, io.EOF) {
			return families, nil
		} else if err != nil {
			return nil, err
		}
		families = append(families, family)
	}
}

// usage measures what this process uses up.
type usage struct {
	b      *testing.B
	before time.Duration
}

// startUsage begins to watch the resident memory.
func startUsage(b *testing.B) *usage {
	b.Helper()
	debug.FreeOSMemory() // of benchmarks before
	// "5" sets the peak to what is resident now (proc(5)).
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		b.Fatal(err)
	}
	return &usage{b: b}
}

// start begins to count processor time.
func (u *usage) start() { u.before = u.processor() }

func (u *usage) report() {
	u.b.ReportMetric((u.processor()-u.before).Seconds()/float64(u.b.N), "cpu-s/op")
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		u.b.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "VmHWM:" {
			kib, err := strconv.ParseFloat(fields[1], 64)
			if err != nil {
				u.b.Fatal(err)
			}
			u.b.ReportMetric(kib/1024, "rss-MiB")
		}
	}
}

func (u *usage) processor() time.Duration {
	u.b.Helper()
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		u.b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
