package source_test

import (
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/netlatency/netlatency/pkg/exposition"
	"github.com/netlatency/netlatency/pkg/source"
	"github.com/netlatency/netlatency/test/machine"
)

// zeros writes n bytes of nothing.
func zeros(w io.Writer, n int64) {
	_, _ = io.CopyN(w, readerFunc(func(b []byte) (int, error) { clear(b); return len(b), nil }), n)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

const protobufType = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"

// However an agent fails: it costs its own rows, and those only once they are
// stale; the others are read as ever; the reason is counted.
func TestAFailingAgentKeepsItsLastRowsAndHarmsNoOther(t *testing.T) {
	for name, test := range map[string]struct {
		fault http.HandlerFunc
		want  source.Failure
	}{
		"is slow":              {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, source.FailureTimeout},
		"begins and is slow":   {func(w http.ResponseWriter, r *http.Request) { begin(w); <-r.Context().Done() }, source.FailureTimeout},
		"hangs up":             {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, source.FailureConnect},
		"begins and hangs up":  {func(w http.ResponseWriter, _ *http.Request) { begin(w); panic(http.ErrAbortHandler) }, source.FailureConnect},
		"is at fault":          {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "fault", http.StatusInternalServerError) }, source.FailureStatus},
		"sends us elsewhere":   {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) }, source.FailureStatus},
		"is a web site":        {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>hello</html>") }, source.FailureDecode},
		"says nothing":         {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Type", protobufType) }, source.FailureDecode},
		"does not end":         {func(w http.ResponseWriter, _ *http.Request) { begin(w); zeros(w, 1<<30) }, source.FailureLimit},
		"does not end, packed": {bomb, source.FailureLimit},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bad := newFakeAgent(t, "node-a").measures("node-b", 1*ms, 0)
			good := newFakeAgent(t, "node-b").measures("node-a", 2*ms, 0)
			r := read(t, clusterOf(bad.slice(), good.slice()), func(o *source.AgentsOptions) {
				o.Timeout = time.Minute
				if test.want == source.FailureTimeout {
					o.Timeout = 2 * time.Second // beyond what the good agent takes on a busy machine
				}
			})
			r.matrix()
			success := r.clock.Now()

			bad.answers(test.fault)
			good.measures("node-a", 4*ms, 0)
			m := r.round()
			if diff := cmp.Diff(map[string]time.Duration{"node-a>node-b": 1 * ms, "node-b>node-a": 4 * ms}, rtts(m)); diff != "" {
				t.Errorf("while the agent fails (-want +got):\n%s", diff)
			}
			if d, _ := m.Measured("node-a", "node-b"); success.Sub(d.Newest) > 2*ms || d.Newest.After(success) {
				t.Errorf("the last row is of %v, want of %v: its age must go on", d.Newest, success)
			}
			stats := r.source.Stats()
			if diff := cmp.Diff(map[source.Failure]uint64{test.want: 1}, stats.Failures); diff != "" {
				t.Errorf("failures (-want +got):\n%s", diff)
			}
			if stats.Agents != 2 || stats.Answered != 1 {
				t.Errorf("%d of %d agents answered, want 1 of 2", stats.Answered, stats.Agents)
			}

			r.clock.Step(staleAfter)
			if diff := cmp.Diff(map[string]time.Duration{"node-b>node-a": 4 * ms}, rtts(r.matrix())); diff != "" {
				t.Errorf("when its rows are stale (-want +got):\n%s", diff)
			}
			bad.answers(nil)
			if diff := cmp.Diff(map[string]time.Duration{"node-a>node-b": 1 * ms, "node-b>node-a": 4 * ms}, rtts(r.round())); diff != "" {
				t.Errorf("when it answers again (-want +got):\n%s", diff)
			}
		})
	}
}

func begin(w http.ResponseWriter) {
	w.Header().Set("Content-Type", protobufType)
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write([]byte{200, 1, 0})
	w.(http.Flusher).Flush()
}

// bomb is 8 MiB in 8 KiB.
func bomb(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", protobufType)
	w.Header().Set("Content-Encoding", "gzip")
	z := gzip.NewWriter(w)
	zeros(z, 8<<20)
	_ = z.Close()
}

func TestAnAgentCannotSpeakForAnotherNode(t *testing.T) {
	honest := newFakeAgent(t, "node-a").measures("node-b", 1*ms, 0)
	liar := newFakeAgent(t, "node-c").measures("node-b", 9*ms, 0)
	slice := liar.slice()
	liar.pretends("node-a")
	r := read(t, clusterOf(honest.slice(), slice))
	if diff := cmp.Diff(map[string]time.Duration{"node-a>node-b": 1 * ms}, rtts(r.matrix())); diff != "" {
		t.Errorf("matrix (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[source.Failure]uint64{source.FailureIdentity: 1}, r.source.Stats().Failures); diff != "" {
		t.Errorf("failures (-want +got):\n%s", diff)
	}
}

func TestRowsThatCannotBeTrueAreCounted(t *testing.T) {
	a := newFakeAgent(t, "node-a")
	a.answers(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		fmt.Fprintln(w, `netlatency_window_info{node="node-a"} 1000`)
		for _, peer := range []string{"node-a", "node-b", "node-c"} {
			for part, value := range map[string]float64{`{quantile="0",`: 0.001, `{quantile="0.5",`: 0.001, `{quantile="0.9",`: 0.001, `{quantile="0.99",`: 0.001, "_sum{": 0.1, "_count{": 100} {
				if peer == "node-c" && part == "_sum{" {
					value = -1
				}
				fmt.Fprintf(w, "netlatency_window_rtt_seconds%speer=%q} %v 1000000\n", part, peer, value)
			}
		}
	})
	r := read(t, clusterOf(a.slice()))
	if diff := cmp.Diff(map[string]time.Duration{"node-a>node-b": 1 * ms}, rtts(r.matrix())); diff != "" {
		t.Errorf("matrix (-want +got):\n%s", diff)
	}
	r.round()
	if diff := cmp.Diff(map[exposition.Reason]uint64{exposition.Self: 2, exposition.Impossible: 2}, r.source.Stats().Dropped); diff != "" {
		t.Errorf("dropped in two rounds (-want +got):\n%s", diff)
	}
}

func TestAServiceWithoutThePortIsAFailureOfItsAgents(t *testing.T) {
	a := newFakeAgent(t, "node-a")
	for name, edit := range map[string]func(*discoveryv1.EndpointSlice){
		"another name": func(s *discoveryv1.EndpointSlice) { s.Ports[1].Name = new("metrics") },
		"no number":    func(s *discoveryv1.EndpointSlice) { s.Ports[1].Port = nil },
		"a host name":  func(s *discoveryv1.EndpointSlice) { s.Endpoints[0].Addresses = []string{"localhost"} },
	} {
		t.Run(name, func(t *testing.T) {
			r := read(t, clusterOf(a.slice(edit)))
			r.matrix()
			if diff := cmp.Diff(map[source.Failure]uint64{source.FailurePort: 1}, r.source.Stats().Failures); diff != "" {
				t.Errorf("failures (-want +got):\n%s", diff)
			}
			if n := len(a.received()); n != 0 {
				t.Errorf("%d requests were made", n)
			}
		})
	}
}

func TestAnAgentThatStartsAnewForgetsNothingForUs(t *testing.T) {
	a := newFakeAgent(t, "node-a").measures("node-b", 1*ms, 0).measures("node-c", 2*ms, 0)
	b, c := newFakeAgent(t, "node-b"), newFakeAgent(t, "node-c")
	r := read(t, clusterOf(a.slice(), b.slice(), c.slice()))
	r.matrix()

	a.forgets()
	if diff := cmp.Diff(map[string]time.Duration{"node-a>node-b": 1 * ms, "node-a>node-c": 2 * ms}, rtts(r.round())); diff != "" {
		t.Errorf("with an empty window (-want +got):\n%s", diff)
	}
	a.measures("node-b", 5*ms, 0)
	if diff := cmp.Diff(map[string]time.Duration{"node-a>node-b": 5 * ms, "node-a>node-c": 2 * ms}, rtts(r.round())); diff != "" {
		t.Errorf("with the first new row (-want +got):\n%s", diff)
	}
	r.clock.Step(staleAfter)
	if diff := cmp.Diff(map[string]time.Duration{"node-a>node-b": 5 * ms}, rtts(r.matrix())); diff != "" {
		t.Errorf("when the old rows are stale (-want +got):\n%s", diff)
	}
}

// A bad agent with new peers in each answer must not fill the memory.
func TestRowsAboutStrangersLastOneAnswer(t *testing.T) {
	a := newFakeAgent(t, "node-a")
	r := read(t, clusterOf(a.slice()))
	r.matrix()
	for i := range 5 {
		a.forgets()
		stranger := fmt.Sprintf("stranger-%d", i)
		a.measures(stranger, 1*ms, 0)
		if diff := cmp.Diff(map[string]time.Duration{"node-a>" + stranger: 1 * ms}, rtts(r.round())); diff != "" {
			t.Errorf("round %d (-want +got):\n%s", i, diff)
		}
	}
}

func TestRowsOfAnAnsweringAgentAgeToo(t *testing.T) {
	a := newFakeAgent(t, "node-a").measures("node-b", 1*ms, time.Minute).measures("node-c", 2*ms, time.Second)
	b := newFakeAgent(t, "node-b")
	r := read(t, clusterOf(a.slice(), b.slice()))
	if n := r.matrix().Pairs(); n != 2 {
		t.Fatalf("%d pairs, want 2", n)
	}
	// The agent answers on, but no probe to node-b was answered any more.
	a.measures("node-b", 1*ms, staleAfter+time.Second)
	want := map[string]time.Duration{"node-a>node-c": 2 * ms}
	r.clock.Step(staleAfter)
	if diff := cmp.Diff(want, rtts(r.matrix())); diff != "" {
		t.Errorf("matrix (-want +got):\n%s", diff)
	}
}

func TestWhatIsAskedOfAnAgent(t *testing.T) {
	for name, test := range map[string]struct {
		window time.Duration
		query  string
	}{"its own window": {0, ""}, "a window of two minutes": {2 * time.Minute, "window=2m0s"}} {
		t.Run(name, func(t *testing.T) {
			a := newFakeAgent(t, "node-a").measures("node-b", 1*ms, 0)
			r := read(t, clusterOf(a.slice()), func(o *source.AgentsOptions) { o.Window = test.window })
			r.matrix()
			r.round()
			r.round()
			for _, request := range a.received() {
				if request.URL.Path != "/matrix" || request.URL.RawQuery != test.query || request.Method != http.MethodGet {
					t.Errorf("%s %s, want GET /matrix with query %q", request.Method, request.URL, test.query)
				}
				if got := request.Header.Get("Accept-Encoding"); got != "gzip" {
					t.Errorf("Accept-Encoding is %q, want gzip", got)
				}
				if got := request.Header.Get("Accept"); !strings.HasPrefix(got, "application/vnd.google.protobuf") {
					t.Errorf("Accept is %q, want protobuf first", got)
				}
			}
			if n := a.connections.Load(); n != 1 || len(a.received()) != 3 {
				t.Errorf("%d connections for %d rounds, want 1 for 3", n, len(a.received()))
			}
		})
	}
}

func TestReadsAreConcurrentButBounded(t *testing.T) {
	var now, most atomic.Int32
	full := make(chan struct{}) // closed when 32 are in flight
	var once sync.Once
	a := newFakeAgent(t, "node")
	a.answers(func(w http.ResponseWriter, r *http.Request) {
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		if n == 32 {
			once.Do(func() { close(full) })
		}
		select {
		case <-full:
		case <-r.Context().Done():
		}
		http.Error(w, "busy", http.StatusServiceUnavailable)
	})
	var slices []*discoveryv1.EndpointSlice
	for i := range 100 {
		slices = append(slices, sliceOf(fmt.Sprintf("node-%03d", i), a.addrPort()))
	}
	r := read(t, clusterOf(slices...))
	r.matrix()
	if n := most.Load(); n != 32 {
		t.Errorf("%d reads at once, want 32", n)
	}
	if n := r.source.Stats().Failures[source.FailureStatus]; n != 100 {
		t.Errorf("%d agents were read, want 100", n)
	}
}

// When a provider drops off the network, hundreds of timeouts must not keep
// the agents of the others from being read.
func TestAgentsThatHangDoNotStarveTheOthers(t *testing.T) {
	const atOnce, agents = 32, 40 // more hang than are read at once
	hanging := make(chan string, 1000)
	hang := newFakeAgentOn(t, "-", "0.0.0.0:0").answers(func(_ http.ResponseWriter, r *http.Request) {
		hanging <- r.Host
		<-r.Context().Done()
	})
	good := newFakeAgent(t, "node-z").measures("node-a", 1*ms, 0)
	slices := []*discoveryv1.EndpointSlice{good.slice()}
	for i := range agents { // first by name, each at an address of its own
		address := netip.AddrFrom4([4]byte{127, 0, 0, byte(1 + i)})
		slices = append(slices, sliceOf(fmt.Sprintf("node-%03d", i), netip.AddrPortFrom(address, hang.addrPort().Port())))
	}
	r := read(t, clusterOf(slices...), func(o *source.AgentsOptions) { o.Timeout = time.Hour })
	hung := make(map[string]int) // reads by address
	for round := range 5 {
		for range atOnce {
			select {
			case host := <-hanging:
				hung[host]++
			case <-time.After(patience):
				t.Fatalf("round %d: fewer than %d agents hang", round, atOnce)
			}
		}
		if round > 0 {
			eventually(t, fmt.Sprintf("the healthy agent is read in round %d", round), func() bool { return len(good.received()) == round })
		}
		r.clock.Step(2 * interval) // the round is over, and the next begins
		if _, ok := r.matrix().Measured("node-z", "node-a"); ok != (round > 0) {
			t.Errorf("round %d: the healthy agent is in the matrix: %t", round, ok)
		}
	}
	for host, n := range hung {
		if n < 2 {
			t.Errorf("the hanging agent at %s had %d turns in 5 rounds, want one in every two", host, n)
		}
	}
	if len(hung) != agents {
		t.Errorf("%d of %d hanging agents had a turn", len(hung), agents)
	}
}

func TestEveryGoroutineEndsWithTheContext(t *testing.T) {
	idle := newFakeAgent(t, "node-a")
	hang := newFakeAgent(t, "node-b").answers(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	r := read(t, clusterOf(idle.slice(), hang.slice()), func(o *source.AgentsOptions) { o.Timeout = time.Hour })
	eventually(t, "both agents are being read", func() bool { return len(idle.received()) == 1 && len(hang.received()) == 1 })
	r.stop() // amid a read
	if n := r.source.Stats().Version; n != 0 {
		t.Errorf("a round that was broken off gave matrix %d", n)
	}
	eventually(t, "no goroutine of the source or its informer is left", func() bool {
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		for stack := range strings.SplitSeq(string(stacks), "\n\n") {
			if strings.Contains(stack, "created by github.com/netlatency/netlatency/pkg/source.") ||
				strings.Contains(stack, "client-go/tools/cache.") || strings.Contains(stack, "net/http.(*persistConn)") {
				return false
			}
		}
		return true
	})
}

// jitterClock notes the timers that are asked for.
type jitterClock struct {
	*clocktesting.FakeClock
	mu     sync.Mutex
	timers []time.Duration
}

func (c *jitterClock) NewTimer(d time.Duration) clock.Timer {
	c.mu.Lock()
	c.timers = append(c.timers, d)
	c.mu.Unlock()
	return c.FakeClock.NewTimer(d)
}

func TestRoundsAreJitteredByATenth(t *testing.T) {
	a := newFakeAgent(t, "node-a")
	var jitter *jitterClock
	r := read(t, clusterOf(a.slice()), func(o *source.AgentsOptions) {
		jitter = &jitterClock{FakeClock: o.Clock.(*clocktesting.FakeClock)}
		o.Clock = jitter
	})
	r.matrix()
	for range 20 {
		r.round()
	}
	jitter.mu.Lock()
	defer jitter.mu.Unlock()
	different := make(map[time.Duration]bool)
	for _, d := range jitter.timers {
		different[d] = true
		if d < interval*9/10 || d > interval*11/10 {
			t.Errorf("a round after %v, want %v give or take a tenth", d, interval)
		}
	}
	if len(different) < 10 {
		t.Errorf("only %d different times in %d rounds", len(different), len(jitter.timers))
	}
}

func newIPv6Listener(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		machine.Lacks(t, "this machine has no IPv6: %v", err)
	}
	return l
}
