package wan

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/netlatency/netlatency/test/sandbox/namespace"
)

func TestMain(m *testing.M) {
	// The fuzzing engine starts its workers inside, with pipes that would get lost.
	if !slices.Contains(os.Args, "-test.fuzzworker") {
		namespace.Enter()
	}
	os.Exit(m.Run())
}

func newNodes(tb testing.TB, n int) []*namespace.Node {
	tb.Helper()
	var nodes []*namespace.Node
	for i := range n {
		node, err := namespace.NewNode(fmt.Sprintf("node-%d", i), i)
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() {
			if err := node.Close(); err != nil {
				tb.Error(err)
			}
		})
		nodes = append(nodes, node)
	}
	return nodes
}

func newTestProber(tb testing.TB, nodes []*namespace.Node) *prober {
	tb.Helper()
	p, err := newProber(nodes)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(p.close)
	return p
}

func startWAN(tb testing.TB, o Options) *WAN {
	tb.Helper()
	w, err := Start(tb.Context(), o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := w.Close(); err != nil {
			tb.Error(err)
		}
	})
	return w
}

func closeAndRead(tb testing.TB, w *WAN, log string) []Record {
	tb.Helper()
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	records, _, err := ReadLog(log, 0)
	if err != nil {
		tb.Fatal(err)
	}
	return records
}

// eventually waits for what other processes do in their own time.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// both links two nodes in both directions.
func both(a, b string, d Delay) []Link {
	return []Link{{From: a, To: b, Delay: d}, {From: b, To: a, Delay: d}}
}

func TestPacketsAreHeldForTheirDirectionsDelay(t *testing.T) {
	nodes := newNodes(t, 2)
	there, back := 2*time.Millisecond, 6*time.Millisecond
	log := filepath.Join(t.TempDir(), "wan.log")
	w := startWAN(t, Options{Nodes: nodes, LogPath: log, Links: []Link{
		{From: "node-0", To: "node-1", Delay: Delay{Base: there}},
		{From: "node-1", To: "node-0", Delay: Delay{Base: back}},
	}})
	p := newTestProber(t, nodes)
	const exchanges = 40
	for seq := range uint32(exchanges) {
		if err := p.ask(0, 1, seq); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "every request is answered", func() bool { return len(p.measured()) == exchanges })
	counters, err := w.Counters()
	if err != nil {
		t.Fatal(err)
	}
	want := Counters{Forwarded: 2 * exchanges}
	if diff := cmp.Diff(want, counters, cmpopts.IgnoreFields(Counters{}, "Latest", "Realtime")); diff != "" {
		t.Errorf("counters (-want +got):\n%s", diff)
	}

	truth := map[exchange]time.Duration{}
	var got []Record
	for _, r := range closeAndRead(t, w, log) {
		held, least := time.Duration(r.Released-r.Received), there
		if r.Reply {
			least = back
		}
		if delay := time.Duration(r.Due - r.Received); delay < least || delay > held {
			t.Errorf("packet %d (reply %v) was due after %v, want from its link's %v to the %v that it was held", r.Seq, r.Reply, delay, least, held)
		}
		if held < least {
			t.Errorf("packet %d (reply %v) was held for %v, less than its link's %v", r.Seq, r.Reply, held, least)
		}
		truth[exchange{r.Session, r.Seq}] += held
		r.Received, r.Due, r.Released = 0, 0, 0
		got = append(got, r)
	}
	var records []Record
	for seq := range uint32(exchanges) {
		const size = 20 + 8 + 64
		records = append(records,
			Record{Kind: KindProbe, From: 0, To: 1, Seq: seq, Size: size},
			Record{Kind: KindProbe, From: 1, To: 0, Seq: seq, Size: size, Reply: true})
	}
	anyOrder := cmpopts.SortSlices(func(a, b Record) bool { return a.Seq < b.Seq || a.Seq == b.Seq && !a.Reply && b.Reply })
	if diff := cmp.Diff(records, got, anyOrder); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
	// All stamps are the same kernel's, so that no exchange can have been
	// quicker than its packets were let through.
	for e, trip := range p.measured() {
		if trip < truth[e] {
			t.Errorf("exchange %d took %v, but its packets were held for %v", e.seq, trip, truth[e])
		}
	}
}

func TestSetChangesWhatHappensToLaterPackets(t *testing.T) {
	nodes := newNodes(t, 3)
	log := filepath.Join(t.TempDir(), "wan.log")
	w := startWAN(t, Options{Nodes: nodes, LogPath: log, Links: both("node-0", "node-1", Delay{})})
	p := newTestProber(t, nodes)
	seq := uint32(0)
	exchange := func(to int) (answered bool) {
		t.Helper()
		before, err := w.Counters()
		if err != nil {
			t.Fatal(err)
		}
		trips := len(p.measured())
		if err := p.ask(0, to, seq); err != nil {
			t.Fatal(err)
		}
		seq++
		eventually(t, "the request is answered or dropped", func() bool {
			now, err := w.Counters()
			if err != nil {
				t.Fatal(err)
			}
			answered = len(p.measured()) > trips
			return answered || now.Down > before.Down || now.Lost > before.Lost
		})
		return answered
	}
	set := func(links []Link) {
		t.Helper()
		if err := w.Set(links); err != nil {
			t.Fatal(err)
		}
	}

	type outcome struct {
		When     string
		Answered bool
	}
	var got []outcome
	note := func(when string, to int) { got = append(got, outcome{when, exchange(to)}) }
	note("linked", 1)
	note("not linked", 2)
	set(both("node-0", "node-1", Delay{Down: true}))
	note("down", 1)
	set(both("node-0", "node-2", Delay{}))
	note("linked later", 2)
	note("down still, not named again", 1)
	set(both("node-0", "node-1", Delay{Loss: 1}))
	note("up, but losing everything", 1)
	set(both("node-0", "node-1", Delay{Base: time.Millisecond}))
	note("up again", 1)
	set(both("node-0", "node-1", Delay{Blocked: TCP | ICMP}))
	note("blocked for other protocols", 1)
	set(both("node-0", "node-1", Delay{Blocked: UDP}))
	note("blocked for UDP", 1)
	want := []outcome{
		{"linked", true}, {"not linked", false}, {"down", false}, {"linked later", true},
		{"down still, not named again", false}, {"up, but losing everything", false}, {"up again", true},
		{"blocked for other protocols", true}, {"blocked for UDP", false},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	var dropped []uint32
	for _, r := range closeAndRead(t, w, log) {
		if r.Dropped {
			dropped = append(dropped, r.Seq)
		}
	}
	if diff := cmp.Diff([]uint32{1, 2, 4, 5, 8}, dropped); diff != "" {
		t.Errorf("dropped according to the log (-want +got):\n%s", diff)
	}
}

func TestSetRefusesAllLinksForOneFault(t *testing.T) {
	nodes := newNodes(t, 2)
	w := startWAN(t, Options{Nodes: nodes, Links: both("node-0", "node-1", Delay{})})
	p := newTestProber(t, nodes)
	err := w.Set(append(both("node-0", "node-1", Delay{Down: true}), Link{From: "node-0", To: "elsewhere", Delay: Delay{Loss: 2}}))
	for _, want := range []string{`"elsewhere"`, "loss 2"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got error %v, want one that names %s", err, want)
		}
	}
	if err := p.ask(0, 1, 0); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the link works as before", func() bool { return len(p.measured()) == 1 })
}

func TestJitterDoesNotReorderADirection(t *testing.T) {
	nodes := newNodes(t, 2)
	log := filepath.Join(t.TempDir(), "wan.log")
	w := startWAN(t, Options{Nodes: nodes, LogPath: log, Links: both("node-0", "node-1", Delay{Jitter: 3 * time.Millisecond, Distribution: Pareto})})
	p := newTestProber(t, nodes)
	const exchanges = 200
	for seq := range uint32(exchanges) {
		if err := p.ask(0, 1, seq); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "every request is answered", func() bool { return len(p.measured()) == exchanges })
	var order []uint32
	for _, r := range closeAndRead(t, w, log) {
		if !r.Reply {
			order = append(order, r.Seq)
		}
	}
	if len(order) != exchanges || !slices.IsSorted(order) {
		t.Errorf("%d requests were released in the order %v", len(order), order)
	}
}

func TestALinkMayReorder(t *testing.T) {
	nodes := newNodes(t, 2)
	log := filepath.Join(t.TempDir(), "wan.log")
	w := startWAN(t, Options{Nodes: nodes, LogPath: log, Links: both("node-0", "node-1", Delay{Jitter: 3 * time.Millisecond, Distribution: Pareto, Reorder: true})})
	p := newTestProber(t, nodes)
	const exchanges = 200
	for seq := range uint32(exchanges) {
		if err := p.ask(0, 1, seq); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "every request is answered", func() bool { return len(p.measured()) == exchanges })
	var order []uint32
	for _, r := range closeAndRead(t, w, log) {
		if !r.Reply {
			order = append(order, r.Seq)
		}
	}
	if slices.IsSorted(order) {
		t.Error("200 requests with a jitter of 3ms were released in the order in which they were sent")
	}
	slices.Sort(order)
	if len(slices.Compact(order)) != exchanges {
		t.Errorf("%d different requests were released: want %d", len(order), exchanges)
	}
}

func TestALinkMayDuplicate(t *testing.T) {
	nodes := newNodes(t, 2)
	log := filepath.Join(t.TempDir(), "wan.log")
	w := startWAN(t, Options{Nodes: nodes, LogPath: log, Links: []Link{
		{From: "node-0", To: "node-1", Delay: Delay{Base: 2 * time.Millisecond, Jitter: time.Millisecond, Duplicate: 0.5}},
		{From: "node-1", To: "node-0"},
	}})
	p := newTestProber(t, nodes)
	const exchanges = 100 // all at once, with room in the sockets for the copies
	for seq := range uint32(exchanges) {
		if err := p.ask(0, 1, seq); err != nil {
			t.Fatal(err)
		}
	}
	var counters Counters
	eventually(t, "every copy is answered", func() bool {
		var err error
		if counters, err = w.Counters(); err != nil {
			t.Fatal(err)
		}
		return len(p.measured()) == exchanges && counters.Forwarded == 2*(exchanges+counters.Duplicated)
	})
	// Six deviations of 100 tosses of a coin.
	if counters.Duplicated < 20 || counters.Duplicated > 80 {
		t.Errorf("%d of %d packets were duplicated: want about half", counters.Duplicated, exchanges)
	}
	requests := 0
	for _, r := range closeAndRead(t, w, log) {
		if !r.Reply {
			requests++
		}
	}
	if requests != exchanges {
		t.Errorf("the log has %d requests: want each once", requests)
	}
}

func TestTheSeedDecidesWhichPacketsAreLost(t *testing.T) {
	nodes := newNodes(t, 2)
	lost := func(seed uint64) (sequence []uint32) {
		t.Helper()
		log := filepath.Join(t.TempDir(), "wan.log")
		w := startWAN(t, Options{Nodes: nodes, LogPath: log, Seed: seed, Links: []Link{
			{From: "node-0", To: "node-1", Delay: Delay{Loss: 0.3}},
			{From: "node-1", To: "node-0"},
		}})
		p := newTestProber(t, nodes)
		const packets = 200
		for seq := range uint32(packets) {
			if err := p.ask(0, 1, seq); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "every request is lost or answered", func() bool {
			counters, err := w.Counters()
			if err != nil {
				t.Fatal(err)
			}
			return counters.Lost+counters.Forwarded/2 == packets
		})
		p.close() // frees its port for the next one
		for _, r := range closeAndRead(t, w, log) {
			if r.Dropped {
				sequence = append(sequence, r.Seq)
			}
		}
		return sequence
	}
	first, again, other := lost(1), lost(1), lost(2)
	if diff := cmp.Diff(first, again); diff != "" {
		t.Errorf("the same seed lost others (-first +again):\n%s", diff)
	}
	if cmp.Equal(first, other) {
		t.Errorf("another seed lost the same packets: %v", first)
	}
}

func TestTCPIsCarriedWhole(t *testing.T) {
	nodes := newNodes(t, 2)
	log := filepath.Join(t.TempDir(), "wan.log")
	w := startWAN(t, Options{Nodes: nodes, LogPath: log, Links: both("node-0", "node-1", Delay{Base: time.Millisecond})})

	// The first message of the stream has an identity, the rest is just data.
	message := make([]byte, 1<<20)
	for i := range message {
		message[i] = byte(i * i >> 8)
	}
	binary.BigEndian.PutUint32(message, magicApplication)
	message[4], message[5] = 1, 1
	binary.BigEndian.PutUint64(message[8:], 42)
	binary.BigEndian.PutUint32(message[16:], 7)

	listener, err := nodes[1].Listen("tcp", netip.AddrPortFrom(nodes[1].WAN, 6334).String())
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	received := make(chan []byte, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			received <- nil
			return
		}
		defer conn.Close()
		data, _ := io.ReadAll(conn)
		received <- data
	}()
	conn, err := nodes[0].Dial(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(message); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if got := <-received; !bytes.Equal(got, message) {
		t.Errorf("%d bytes arrived, not the %d that were sent", len(got), len(message))
	}

	counters, err := w.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if counters.Unknown != 0 {
		t.Errorf("%d packets were not of the usual size: segmentation is left to an interface that never does it", counters.Unknown)
	}
	var got []Record
	for _, r := range closeAndRead(t, w, log) {
		r.Received, r.Due, r.Released, r.Size = 0, 0, 0, 0
		got = append(got, r)
	}
	if diff := cmp.Diff([]Record{{Kind: KindApplication, From: 0, To: 1, Session: 42, Seq: 7}}, got); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

func TestPacketsForNobodyAreCounted(t *testing.T) {
	nodes := newNodes(t, 1)
	w := startWAN(t, Options{Nodes: nodes})
	conn, err := nodes[0].Dial(t.Context(), "udp", "10.250.200.200:9")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("anybody?")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the packet is counted as unknown", func() bool {
		counters, err := w.Counters()
		if err != nil {
			t.Fatal(err)
		}
		return counters.Unknown == 1
	})
}

func TestTheLogIsThereWhileTheWANRuns(t *testing.T) {
	nodes := newNodes(t, 2)
	log := filepath.Join(t.TempDir(), "wan.log")
	startWAN(t, Options{Nodes: nodes, LogPath: log, Links: both("node-0", "node-1", Delay{})})
	p := newTestProber(t, nodes)
	offset := int64(0)
	for seq := range uint32(3) {
		if err := p.ask(0, 1, seq); err != nil {
			t.Fatal(err)
		}
		var got []uint32
		eventually(t, "the exchange is in the log", func() bool {
			records, next, err := ReadLog(log, offset)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range records {
				got = append(got, r.Seq)
			}
			offset = next
			return len(got) >= 2
		})
		if diff := cmp.Diff([]uint32{seq, seq}, got); diff != "" {
			t.Errorf("read on from the last offset (-want +got):\n%s", diff)
		}
	}
}

func TestStartReportsWhatIsWrong(t *testing.T) {
	nodes := newNodes(t, 1)
	tests := []struct {
		name    string
		options Options
		want    []string
	}{
		{"every fault of the links", Options{Nodes: nodes, Links: []Link{
			{From: "node-0", To: "moon", Delay: Delay{Base: -1}},
			{From: "node-0", To: "node-0"},
		}}, []string{`no node "moon"`, "base -1ns is negative", "linked to itself"}},
		{"a log that cannot be made", Options{Nodes: nodes, LogPath: "/nowhere/wan.log"}, []string{"/nowhere/wan.log"}},
		{"a node without an interface", Options{Nodes: []*namespace.Node{{Name: "ghost", WAN: nodes[0].WAN, WANInterface: "wan-ghost"}}}, []string{`"ghost"`, "wan-ghost"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := Start(t.Context(), test.options)
			if err == nil {
				t.Fatal("it started")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %s", err, want)
				}
			}
		})
	}
}

func TestTheWANEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	w, err := Start(ctx, Options{Nodes: newNodes(t, 1)})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	<-w.Done()
	if err := w.Close(); err != nil {
		t.Errorf("it ended with %v", err)
	}
}

func TestAKilledWANIsNoticed(t *testing.T) {
	w, err := Start(t.Context(), Options{Nodes: newNodes(t, 1)})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-w.Done()
	_, err = w.Counters()
	for what, err := range map[string]error{"Counters": err, "Close": w.Close()} {
		if err == nil || !strings.Contains(err.Error(), "killed") {
			t.Errorf("%s: got error %v, want one that says how the process ended", what, err)
		}
	}
}
