package agent

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	dto "github.com/prometheus/client_model/go"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/netlatency/netlatency/pkg/exposition"
	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/probe"
)

// fakeEngine sends nothing and remembers what it was asked for.
type fakeEngine struct {
	mu        sync.Mutex
	sent      []probe.Probe
	forgotten []netip.AddrPort
	refuse    error
}

func (e *fakeEngine) SendBatch(probes []probe.Probe, failed func(int, error)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i, p := range probes {
		if e.refuse != nil {
			failed(i, e.refuse)
			continue
		}
		e.sent = append(e.sent, p)
	}
}

func (e *fakeEngine) Forget(peer netip.AddrPort) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.forgotten = append(e.forgotten, peer)
}

func (e *fakeEngine) Counters() probe.Counters {
	return probe.Counters{KernelSamples: 7, UserSamples: 2, Reordered: 5, OutOfBracket: 1, SendFailed: 3, Ignored: map[probe.Reason]uint64{probe.Late: 4}}
}

func (e *fakeEngine) all() []probe.Probe {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.sent)
}

func (e *fakeEngine) sentTo(address string) (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, p := range e.sent {
		if p.Peer == at(address) {
			n++
		}
	}
	return n
}

func (e *fakeEngine) Run(context.Context) error { return nil }

func (e *fakeEngine) Close() error { return nil }

// fixture is an agent on node-1 with fake engines, a fake clock and a fake
// API server. Its run loop is not running unless a test runs it.
type fixture struct {
	*Agent
	t       *testing.T
	client  *fake.Clientset
	engine  *fakeEngine                  // of the first method
	engines map[probe.Method]*fakeEngine // of the first address
	second  map[probe.Method]*fakeEngine // of the second, if there is one
	clock   *clocktesting.FakeClock
	logger  klog.Logger
	ctx     context.Context
}

func testOptions() Options {
	o := DefaultOptions()
	o.NodeName, o.Namespace, o.BindAddresses = "node-1", "netlatency", []string{"10.0.0.1"}
	o.Methods = []string{"udp"}
	return o
}

// slicesOf lists and watches the agents' EndpointSlices in a fake cluster.
func slicesOf(client *fake.Clientset) cache.ListerWatcher {
	api := client.DiscoveryV1().EndpointSlices("netlatency")
	only := ofServices("netlatency-agent", "netlatency-targets")
	return cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			only(&o)
			return api.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			only(&o)
			return api.Watch(ctx, o)
		},
	}, client) // the fake has no streaming lists
}

func newFixture(t *testing.T, options Options, slices ...sliceBuilder) *fixture {
	t.Helper()
	return newFixtureAt(t, start, options, slices...)
}

// newFixtureAt is a fixture whose clock begins at now.
func newFixtureAt(t *testing.T, now time.Time, options Options, slices ...sliceBuilder) *fixture {
	t.Helper()
	logger, ctx := ktesting.NewTestContext(t)
	f := &fixture{
		t: t, client: fake.NewClientset(), engines: make(map[probe.Method]*fakeEngine), second: make(map[probe.Method]*fakeEngine),
		clock: clocktesting.NewFakeClock(now), logger: logger, ctx: ctx,
	}
	a, err := newAgent(options, "v1.2.3", slicesOf(f.client), f.clock)
	if err != nil {
		t.Fatal(err)
	}
	f.Agent = a
	var engines []runner
	for i, own := range a.own {
		for _, method := range options.Methods {
			e := &fakeEngine{}
			[]map[probe.Method]*fakeEngine{f.engines, f.second}[i][probe.Method(method)] = e
			engines = append(engines, e)
			a.ways = append(a.ways, way{method: probe.Method(method), ipv6: own.Is6(), engine: e})
		}
	}
	f.engine = f.engines[a.ways[0].method]
	a.collect(engines)

	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { a.discovery.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	eventually(t, "the informer has synced", a.discovery.Synced)
	f.peersAre(slices...)
	return f
}

// peersAre makes slices the EndpointSlices of the Service, and has the agent
// follow them.
func (f *fixture) peersAre(builders ...sliceBuilder) {
	f.t.Helper()
	api := f.client.DiscoveryV1().EndpointSlices("netlatency")
	want := make(map[string]*discoveryv1.EndpointSlice)
	for _, b := range builders {
		want[b.Name] = b.EndpointSlice
	}
	for _, old := range f.known() {
		if want[old.Name] == nil {
			if err := api.Delete(f.ctx, old.Name, metav1.DeleteOptions{}); err != nil {
				f.t.Fatal(err)
			}
		}
	}
	for name, s := range want {
		_, err := api.Get(f.ctx, name, metav1.GetOptions{})
		if err == nil {
			_, err = api.Update(f.ctx, s, metav1.UpdateOptions{})
		} else {
			_, err = api.Create(f.ctx, s, metav1.CreateOptions{})
		}
		if err != nil {
			f.t.Fatal(err)
		}
	}
	eventually(f.t, "the informer has seen the slices", func() bool {
		have := make(map[string]*discoveryv1.EndpointSlice)
		for _, s := range f.known() {
			have[s.Name] = s
		}
		return cmp.Equal(want, have, cmpopts.IgnoreTypes(metav1.TypeMeta{}, metav1.ObjectMeta{}), cmpopts.EquateEmpty())
	})
	f.follow(f.logger, f.clock.Now())
}

// known is the slices that the agent sees.
func (f *fixture) known() []*discoveryv1.EndpointSlice {
	return append(f.discovery.Slices(f.options.Service), f.discovery.Slices("netlatency-targets")...)
}

// probes has all that the plan wants in the next span sent.
func (f *fixture) probes(span time.Duration) *fixture {
	end := f.clock.Now().Add(span)
	for {
		p, wake, ok := f.plan.Next(f.clock.Now())
		switch {
		case ok:
			f.send(f.ctx, []packet{p})
		case wake.IsZero() || wake.After(end):
			f.clock.SetTime(end)
			f.pairs.ForgetAbsent(end)
			return f
		default:
			f.clock.SetTime(wake)
		}
	}
}

// answer gives an outcome to every probe that the first engine sent to address.
func (f *fixture) answer(address string, outcome probe.Outcome) *fixture {
	for _, p := range f.engine.all() {
		if p.Peer == at(address) {
			outcome.Probe, outcome.Sent = p, f.clock.Now()
			f.outcome(f.logger, f.ways[0].method, outcome)
		}
	}
	return f
}

// series are the values of a family of /metrics by peer: of a histogram, its
// count.
func (f *fixture) series(name string) map[string]float64 {
	f.t.Helper()
	families, err := f.metrics.registry.Gather()
	if err != nil {
		f.t.Fatal(err)
	}
	values := make(map[string]float64)
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			values[keyOf(m)] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return values
}

// keyOf is the label of a series that tells it from its siblings in a test.
func keyOf(m *dto.Metric) (key string) {
	for _, l := range m.GetLabel() {
		switch l.GetName() {
		case exposition.LabelPeer, exposition.LabelReason, exposition.LabelStamps:
			return l.GetValue()
		case exposition.LabelMethod:
			key = l.GetValue() // where there is no peer
		}
	}
	return key
}

func (f *fixture) wantSeries(name string, want map[string]float64) {
	f.t.Helper()
	if diff := cmp.Diff(want, f.series(name)); diff != "" {
		f.t.Errorf("%s by peer (-want +got):\n%s", name, diff)
	}
}

func (f *fixture) wantRows(peers ...string) {
	f.t.Helper()
	var got []string
	for _, row := range f.Window(0).Rows {
		got = append(got, row.Peer)
	}
	if diff := cmp.Diff(peers, got); diff != "" {
		f.t.Errorf("rows of the matrix (-want +got):\n%s", diff)
	}
}

// eventually waits for what other goroutines do.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("waited 10s and still not: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func TestRoundTripsReachMatrixAndMetrics(t *testing.T) {
	f := newFixture(t, testOptions(), slice("a").ready("node-1", "10.0.0.1").ready("node-2", "10.0.0.2").ready("node-3", "10.0.0.3"))
	f.probes(10 * time.Second)
	f.answer("10.0.0.2:9465", probe.Outcome{RTT: 700 * us, Stamps: probe.Kernel})

	want := exposition.Window{
		Node: "node-1", Version: "v1.2.3", Now: f.clock.Now(),
		Rows: []exposition.Row{{Peer: "node-2", Distribution: latency.Distribution{
			Method: "udp", Samples: 4, Sent: 4, Newest: f.clock.Now(),
			Mean: 700 * us, Min: 700 * us, P50: 700 * us, P90: 700 * us, P99: 700 * us,
		}}},
	}
	if diff := cmp.Diff(want, f.Window(0)); diff != "" {
		t.Errorf("window (-want +got):\n%s", diff)
	}
	f.wantSeries(exposition.RTTSeconds, map[string]float64{"node-2": 4})
	// Nothing of node-3, which has neither answered nor lost a probe yet.
	f.wantSeries(exposition.ProbesSentTotal, map[string]float64{"node-2": 4})
	f.wantSeries(exposition.ProbesLostTotal, map[string]float64{})
	f.wantSeries(exposition.AgentPeers, map[string]float64{"": 2})
}

func TestWhatIsNoRoundTripIsNeverShownAsOne(t *testing.T) {
	tests := map[string]struct {
		outcome  probe.Outcome
		wantLost map[string]float64
	}{
		"a probe that was lost":                {outcome: probe.Outcome{Lost: true}, wantLost: map[string]float64{"node-2": 4}},
		"an answer whose stamps cannot be":     {outcome: probe.Outcome{Discarded: true}},
		"a negative round trip":                {outcome: probe.Outcome{RTT: -1}},
		"a round trip longer than any timeout": {outcome: probe.Outcome{RTT: latency.MaxRTT + 1}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, testOptions(), slice("a").ready("node-2", "10.0.0.2"))
			f.probes(10*time.Second).answer("10.0.0.2:9465", test.outcome)
			f.wantRows()
			f.wantSeries(exposition.RTTSeconds, map[string]float64{})
			f.wantSeries(exposition.ProbesSentTotal, map[string]float64{})
			if len(test.wantLost) == 0 {
				test.wantLost = map[string]float64{}
			}
			f.wantSeries(exposition.ProbesLostTotal, test.wantLost)
		})
	}
}

func TestAProbeThatCannotBeSentIsNeitherSentNorLost(t *testing.T) {
	f := newFixture(t, testOptions(), slice("a").ready("node-2", "10.0.0.2"))
	f.engine.refuse = errors.New("network is unreachable")
	f.probes(time.Minute)
	f.wantSeries(exposition.ProbesSentTotal, map[string]float64{})
	f.wantSeries(exposition.ProbesLostTotal, map[string]float64{})
}

func TestAPeerThatGoes(t *testing.T) {
	both := slice("a").ready("node-2", "10.0.0.2").ready("node-3", "10.0.0.3")
	one := slice("a").ready("node-3", "10.0.0.3")
	unready := slice("a").ready("node-3", "10.0.0.3").endpoint("node-2", "10.0.0.2", discoveryv1.EndpointConditions{Ready: new(bool)})
	measured := func(t *testing.T) *fixture {
		t.Helper()
		f := newFixture(t, testOptions(), both)
		f.probes(10*time.Second).answer("10.0.0.2:9465", probe.Outcome{RTT: ms}).answer("10.0.0.3:9465", probe.Outcome{RTT: ms})
		return f
	}
	for name, gone := range map[string][]sliceBuilder{"from its slice": {one}, "because it is not ready": {unready}} {
		t.Run("loses its series at once, "+name, func(t *testing.T) {
			f := measured(t)
			f.peersAre(gone...)
			for _, family := range []string{exposition.RTTSeconds, exposition.ProbesSentTotal} {
				f.wantSeries(family, map[string]float64{"node-3": 4})
			}
			f.wantSeries(exposition.AgentPeers, map[string]float64{"": 1})
		})
		t.Run("is probed no more and forgotten by the engine, "+name, func(t *testing.T) {
			f := measured(t)
			f.peersAre(gone...)
			f.probes(time.Minute)
			if n := f.engine.sentTo("10.0.0.2:9465"); n != 4 {
				t.Errorf("%d probes were sent to it: want the 4 from before it went", n)
			}
			if diff := cmp.Diff([]string{"10.0.0.2:9465"}, texts(f.engine.forgotten)); diff != "" {
				t.Errorf("forgotten by the engine (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("keeps its row for two minutes, which ages", func(t *testing.T) {
		f := measured(t)
		f.peersAre(one)
		f.probes(keepAbsent - time.Second)
		f.wantRows("node-2", "node-3")
		if age := f.clock.Now().Sub(f.Window(0).Rows[0].Newest); age != keepAbsent-time.Second {
			t.Errorf("age of the row is %v: want %v", age, keepAbsent-time.Second)
		}
		f.probes(time.Second)
		f.wantRows("node-3")
	})
	t.Run("is not revived by an outcome that comes late", func(t *testing.T) {
		f := measured(t)
		f.peersAre(one)
		f.answer("10.0.0.2:9465", probe.Outcome{RTT: ms}).answer("10.0.0.2:9465", probe.Outcome{Lost: true})
		f.wantSeries(exposition.RTTSeconds, map[string]float64{"node-3": 4})
		f.wantSeries(exposition.ProbesLostTotal, map[string]float64{})
	})
	t.Run("and comes back, as in a rollout of the agents, has its window again", func(t *testing.T) {
		f := measured(t)
		f.peersAre(one)
		f.probes(30 * time.Second)
		f.peersAre(slice("a").ready("node-3", "10.0.0.3").ready("node-2", "10.0.0.22"))
		f.probes(10*time.Second).answer("10.0.0.22:9465", probe.Outcome{RTT: ms})
		if got := f.Window(0).Rows[0]; got.Peer != "node-2" || got.Samples != 8 {
			t.Errorf("row of %s has %d samples: want node-2 and 4 from before, 4 from after", got.Peer, got.Samples)
		}
		f.probes(keepAbsent)
		f.wantRows("node-2", "node-3")
	})
}

func TestAPeerThatMovesToAnotherAddress(t *testing.T) {
	f := newFixture(t, testOptions(), slice("a").ready("node-2", "10.0.0.2"))
	f.probes(10*time.Second).answer("10.0.0.2:9465", probe.Outcome{RTT: ms})
	f.peersAre(slice("a").ready("node-2", "10.0.0.22"))

	if diff := cmp.Diff([]string{"10.0.0.2:9465"}, texts(f.engine.forgotten)); diff != "" {
		t.Errorf("forgotten by the engine (-want +got):\n%s", diff)
	}
	f.answer("10.0.0.2:9465", probe.Outcome{RTT: ms}) // comes from the old address
	f.probes(10*time.Second).answer("10.0.0.22:9465", probe.Outcome{RTT: ms})
	if n := f.engine.sentTo("10.0.0.2:9465"); n != 4 {
		t.Errorf("%d probes went to the old address: want the 4 from before", n)
	}
	f.wantSeries(exposition.RTTSeconds, map[string]float64{"node-2": 8})
	f.wantSeries(exposition.ProbesSentTotal, map[string]float64{"node-2": 8})
}

// answers ends every probe that was sent and has no outcome yet: with a round
// trip by the methods that work, and as lost by the others.
func (f *fixture) answers(working ...probe.Method) {
	for method, e := range f.engines {
		e.mu.Lock()
		sent := e.sent
		e.sent = nil
		e.mu.Unlock()
		for _, p := range sent {
			f.outcome(f.logger, method, probe.Outcome{Probe: p, Sent: f.clock.Now(), RTT: ms, Lost: !slices.Contains(working, method)})
		}
	}
}

func TestAMethodThatIsBlockedIsReplacedWithinThreeRounds(t *testing.T) {
	o := testOptions()
	o.Methods = []string{"udp", "icmp", "tcp"}
	f := newFixture(t, o, slice("a").ready("node-2", "10.0.0.2"))
	rounds := func(n int, working ...probe.Method) {
		for range n {
			f.probes(o.Interval)
			f.answers(working...)
		}
	}
	method := func() string {
		t.Helper()
		rows := f.Window(0).Rows
		if len(rows) != 1 {
			t.Fatalf("%d rows: want one", len(rows))
		}
		if age := f.clock.Now().Sub(rows[0].Newest); age > o.Interval {
			t.Errorf("the newest sample is %v old: want one of the last round", age)
		}
		return rows[0].Method
	}
	rounds(4, probe.MethodUDP, probe.MethodICMP, probe.MethodTCP)
	if got := method(); got != "udp" {
		t.Errorf("probed by %s: want udp", got)
	}
	rounds(3, probe.MethodICMP, probe.MethodTCP)
	if got := method(); got != "icmp" {
		t.Errorf("three rounds after UDP was blocked it is probed by %s: want icmp", got)
	}
	rounds(3, probe.MethodTCP)
	if got := method(); got != "tcp" {
		t.Errorf("three rounds after ICMP was blocked too it is probed by %s: want tcp", got)
	}
	f.wantSeries(exposition.AgentPairs, map[string]float64{"udp": 0, "icmp": 0, "tcp": 1})
	rounds(2*climbRounds, probe.MethodUDP, probe.MethodICMP, probe.MethodTCP)
	if got := method(); got != "udp" {
		t.Errorf("20 rounds after all work again it is probed by %s: want udp", got)
	}
	if d := f.Window(0).Rows[0].Distribution; d.Lost != 0 {
		t.Errorf("%d of %d probes count as lost, all of them in bursts that were lost whole: want none", d.Lost, d.Sent)
	}
}

func TestAMethodThatBringsNoSampleIsReplaced(t *testing.T) {
	tests := map[string]func(*fixture){
		"because connections are refused": func(f *fixture) {
			for _, p := range f.engine.all() {
				f.outcome(f.logger, probe.MethodTCP, probe.Outcome{Probe: p, Sent: f.clock.Now(), Discarded: true})
			}
			f.engine.sent = nil
		},
		"because nothing can be sent": func(f *fixture) { f.engine.refuse = errors.New("operation not permitted") },
	}
	for name, fail := range tests {
		t.Run(name, func(t *testing.T) {
			o := testOptions()
			o.Methods = []string{"tcp", "icmp"}
			f := newFixture(t, o, slice("a").ready("node-2", "10.0.0.2"))
			for range 3 {
				fail(f)
				f.probes(o.Interval)
			}
			if len(f.engines[probe.MethodICMP].all()) == 0 {
				t.Error("three rounds later no probe is by the next method")
			}
			f.wantSeries(exposition.ProbesLostTotal, map[string]float64{})
		})
	}
}

func TestLargePacketsThatDoNotPassAreCountedAndMoveNothing(t *testing.T) {
	o := testOptions()
	o.Methods = []string{"udp", "icmp"}
	f := newFixture(t, o, slice("a").ready("node-2", "10.0.0.2"))
	var large, small float64
	for range 3 * fullSizeRounds {
		f.probes(o.Interval)
		for _, p := range f.engine.all() {
			lost := p.Size == o.FullSize
			if lost {
				large++
			} else {
				small++
			}
			f.outcome(f.logger, probe.MethodUDP, probe.Outcome{Probe: p, Sent: f.clock.Now(), RTT: ms, Lost: lost})
		}
		f.engine.sent = nil
	}
	if large != 3 || small != 12*fullSizeRounds {
		t.Errorf("%v probes were of full size and %v small: want one after each fourth burst, and bursts as they are", large, small)
	}
	f.wantSeries(exposition.FullSizeProbesLostTotal, map[string]float64{"node-2": large})
	f.wantSeries(exposition.AgentFullSizeProbesSentTotal, map[string]float64{"": large})
	f.wantSeries(exposition.ProbesSentTotal, map[string]float64{"node-2": small})
	f.wantSeries(exposition.ProbesLostTotal, map[string]float64{})
	f.wantSeries(exposition.AgentPairs, map[string]float64{"udp": 1, "icmp": 0})
	if d := f.Window(0).Rows[0].Distribution; d.Lost != 0 || d.Samples != int(small) {
		t.Errorf("%d probes count as lost, %d as samples: want none and the %v small ones", d.Lost, d.Samples, small)
	}
}

// A burst whose small probes are all lost is lost, whatever came of the one of
// full size.
func TestAPacketOfFullSizeDoesNotHideALostBurst(t *testing.T) {
	o := testOptions()
	o.Methods = []string{"udp", "icmp"}
	f := newFixture(t, o, slice("a").ready("node-2", "10.0.0.2"))
	round := func(lost bool) {
		f.probes(o.Interval)
		for _, p := range f.engine.all() {
			f.outcome(f.logger, probe.MethodUDP, probe.Outcome{Probe: p, Sent: f.clock.Now(), RTT: ms, Lost: lost && p.Size == probe.MinSize})
		}
		f.engine.sent = nil
	}
	for range fullSizeRounds - 1 {
		round(false)
	}
	round(true)
	f.probes(o.Interval)
	if n := len(f.engines[probe.MethodICMP].all()); n != o.Burst {
		t.Errorf("%d probes are by the next method after a lost burst: want %d", n, o.Burst)
	}
	if d := f.Window(0).Rows[0].Distribution; d.Lost != 0 {
		t.Errorf("%d probes count as lost: want none, the burst was lost whole", d.Lost)
	}
}

func TestPeersBeyondTheShareOfSeriesAreInTheMatrixOnly(t *testing.T) {
	o := testOptions()
	o.MaxSeries = 6 // with three nodes, one peer each; with two, too
	both := slice("a").ready("node-2", "10.0.0.2").ready("node-3", "10.0.0.3")
	f := newFixture(t, o, both)
	round := func() {
		f.probes(10 * time.Second)
		f.answers(probe.MethodUDP)
	}
	round()
	f.wantRows("node-2", "node-3")
	shown := f.series(exposition.RTTSeconds)
	if len(shown) != 1 {
		t.Fatalf("series are of %v: want one peer", shown)
	}
	f.wantSeries(exposition.AgentUnexportedSamplesTotal, map[string]float64{"": 4})

	// The peer that is shown goes: the other takes its place.
	other := map[string]string{"node-2": "10.0.0.2", "node-3": "10.0.0.3"}
	for node := range shown {
		delete(other, node)
	}
	for node, address := range other {
		f.peersAre(slice("a").ready(node, address))
		round()
		f.wantSeries(exposition.RTTSeconds, map[string]float64{node: 4})
	}
	// And gives it back.
	f.peersAre(both)
	round()
	for node := range shown {
		f.wantSeries(exposition.RTTSeconds, map[string]float64{node: 4})
	}
}

// In a dual-stack cluster each peer is probed in the first of the agent's
// families that it has, and is one peer whatever slices it is in.
func TestPeersOfBothFamilies(t *testing.T) {
	o := testOptions()
	o.BindAddresses, o.Methods = []string{"10.0.0.1", "fd00::1"}, []string{"udp", "icmp"}
	o.FullSize = 0
	ipv4 := slice("a").ready("node-2", "10.0.0.2").ready("node-3", "10.0.0.3")
	ipv6 := slice("b").ipv6().ready("node-2", "fd00::2").ready("node-4", "fd00::4")
	f := newFixture(t, o, ipv4, ipv6)
	f.wantSeries(exposition.AgentPeers, map[string]float64{"": 3})
	probed := func(e *fakeEngine) map[string]int {
		counts := make(map[string]int)
		for _, p := range e.all() {
			counts[p.Peer.String()]++
		}
		e.sent = nil
		return counts
	}
	first, second := f.engines[probe.MethodUDP], f.second[probe.MethodUDP]
	round := func(want4, want6 map[string]int) {
		t.Helper()
		f.probes(10 * time.Second)
		for _, e := range []*fakeEngine{first, second} {
			for _, p := range e.all() {
				f.outcome(f.logger, probe.MethodUDP, probe.Outcome{Probe: p, Sent: f.clock.Now(), RTT: ms})
			}
		}
		if diff := cmp.Diff([]map[string]int{want4, want6}, []map[string]int{probed(first), probed(second)}); diff != "" {
			t.Errorf("probes by address, in IPv4 and in IPv6 (-want +got):\n%s", diff)
		}
	}
	round(map[string]int{"10.0.0.2:9465": 4, "10.0.0.3:9465": 4}, map[string]int{"[fd00::4]:9465": 4})
	f.wantRows("node-2", "node-3", "node-4")

	// Node 2 loses its IPv4 address and is reached by the other; what was
	// measured stays. Node 4 gets one.
	f.peersAre(slice("a").ready("node-3", "10.0.0.3").ready("node-4", "10.0.0.4"), ipv6)
	if diff := cmp.Diff([]string{"10.0.0.2:9465"}, texts(first.forgotten)); diff != "" {
		t.Errorf("forgotten in IPv4 (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"[fd00::4]:9465"}, texts(second.forgotten)); diff != "" {
		t.Errorf("forgotten in IPv6 (-want +got):\n%s", diff)
	}
	round(map[string]int{"10.0.0.3:9465": 4, "10.0.0.4:9465": 4}, map[string]int{"[fd00::2]:9465": 4})
	for _, row := range f.Window(0).Rows {
		if row.Samples != 8 {
			t.Errorf("%s has %d samples: want those of both rounds", row.Peer, row.Samples)
		}
	}

	// The ladder of a peer is that of its family.
	for range 2 {
		f.probes(10 * time.Second)
		f.answers()
		for _, p := range second.all() {
			f.outcome(f.logger, probe.MethodUDP, probe.Outcome{Probe: p, Sent: f.clock.Now(), Lost: true})
		}
		second.sent = nil
	}
	if diff := cmp.Diff(map[string]int{"[fd00::2]:0": 4}, probed(f.second[probe.MethodICMP])); diff != "" {
		t.Errorf("probes by ICMP in IPv6 after UDP is lost (-want +got):\n%s", diff)
	}
}

func TestTwoPeersThatSwapAddresses(t *testing.T) {
	f := newFixture(t, testOptions(), slice("a").ready("node-2", "10.0.0.2").ready("node-3", "10.0.0.3"))
	f.peersAre(slice("a").ready("node-2", "10.0.0.3").ready("node-3", "10.0.0.2"))
	f.probes(10*time.Second).answer("10.0.0.2:9465", probe.Outcome{RTT: 3 * ms}).answer("10.0.0.3:9465", probe.Outcome{RTT: 2 * ms})
	got := make(map[string]time.Duration)
	for _, row := range f.Window(0).Rows {
		got[row.Peer] = row.P50
	}
	if diff := cmp.Diff(map[string]time.Duration{"node-2": 2 * ms, "node-3": 3 * ms}, got); diff != "" {
		t.Errorf("round trips by node (-want +got):\n%s", diff)
	}
}

func TestMorePeersThanAreProbed(t *testing.T) {
	o := testOptions()
	o.MaxPeers = 2
	f := newFixture(t, o, slice("a").ready("node-2", "10.0.0.2").ready("node-3", "10.0.0.3").ready("node-4", "10.0.0.4"))
	f.probes(10 * time.Second)
	f.wantSeries(exposition.AgentPeers, map[string]float64{"": 2})
	f.wantSeries(exposition.AgentPeersLeftOut, map[string]float64{"": 1})
	probed := make(map[netip.AddrPort]bool)
	for _, p := range f.engine.all() {
		probed[p.Peer] = true
	}
	if len(probed) != 2 {
		t.Errorf("%d peers were probed: want 2", len(probed))
	}
}

func TestTheAgentSaysHowItIs(t *testing.T) {
	f := newFixture(t, testOptions(), slice("a").ready("node-2", "10.0.0.2"))
	f.wantSeries(exposition.AgentSamplesTotal, map[string]float64{"kernel": 7, "user": 2})
	f.wantSeries(exposition.AgentReorderedSamplesTotal, map[string]float64{"": 5})
	f.wantSeries(exposition.AgentInvalidPacketsTotal, map[string]float64{"late": 4, "out_of_bracket": 1})
	f.wantSeries(exposition.AgentSendErrorsTotal, map[string]float64{"": 3})
	f.wantSeries(exposition.AgentReflectorRepliesTotal, map[string]float64{"": 0})
	f.wantSeries(exposition.AgentReflectorRefusalsTotal, map[string]float64{"send_failed": 0, "source_limit": 0, "total_limit": 0})
	f.wantSeries(exposition.AgentProbesCappedTotal, map[string]float64{"": 0})
	f.wantSeries(exposition.AgentProbedBy, map[string]float64{"": 0})
	f.wantSeries(exposition.AgentBuildInfo, map[string]float64{"": 1})
}

// The run loop itself, on a fake clock: it follows the peers, wakes when a
// packet is due, drops who has been absent, and ends with its context.
func TestTheRunLoop(t *testing.T) {
	f := newFixture(t, testOptions(), slice("a").ready("node-2", "10.0.0.2"))
	ctx, stop := context.WithCancel(f.ctx)
	ended := make(chan struct{})
	go func() { f.loop(ctx); close(ended) }()
	t.Cleanup(func() { stop(); <-ended })

	advance := func(span time.Duration) {
		for end := f.clock.Now().Add(span); f.clock.Now().Before(end); {
			eventually(t, "the loop sleeps", f.clock.HasWaiters)
			f.clock.Step(5 * ms)
		}
		eventually(t, "the loop sleeps", f.clock.HasWaiters)
	}
	advance(30 * time.Second)
	// Of three rounds, jitter may have moved the last beyond the end or the
	// next before it.
	if n := f.engine.sentTo("10.0.0.2:9465"); n < 8 || n > 16 {
		t.Errorf("%d probes in three rounds: want 12, and up to 4 more or fewer by jitter", n)
	}
	f.answer("10.0.0.2:9465", probe.Outcome{RTT: ms})
	f.wantRows("node-2")

	if err := f.client.DiscoveryV1().EndpointSlices("netlatency").Delete(ctx, "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the peer is gone", func() bool { return len(f.pairs.PresentPeers()) == 0 })
	before := f.engine.sentTo("10.0.0.2:9465")
	eventually(t, "the loop sleeps until it may drop the peer", f.clock.HasWaiters)
	f.clock.Step(keepAbsent)
	eventually(t, "the peer is dropped from memory", func() bool {
		f.pairs.mu.RLock()
		defer f.pairs.mu.RUnlock()
		return len(f.pairs.byNode) == 0
	})
	if after := f.engine.sentTo("10.0.0.2:9465"); after != before {
		t.Errorf("%d probes were sent to a peer that has gone", after-before)
	}
}

func texts(addresses []netip.AddrPort) (texts []string) {
	for _, a := range addresses {
		texts = append(texts, a.String())
	}
	return texts
}
