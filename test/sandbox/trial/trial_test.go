package trial

import (
	"bytes"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/netlatency/netlatency/test/sandbox/wan"
)

const ms = time.Millisecond

func noBand(time.Duration) time.Duration { return 0 }

func TestSolveFillsTheCheapestPlaces(t *testing.T) {
	places := []Place{
		{Node: "far", Slots: 10, Cost: 8 * ms, Known: true},
		{Node: "near", Slots: 2, Cost: 1 * ms, Known: true},
		{Node: "middle", Slots: 3, Cost: 2 * ms, Known: true},
		{Node: "as good as middle", Slots: 3, Cost: 2100 * time.Microsecond, Known: true},
		{Node: "cheap but unknown", Slots: 9, Cost: 0},
		{Node: "full", Slots: 0, Cost: 1 * ms, Known: true},
	}
	o, ok := Solve(places, 4, func(best time.Duration) time.Duration { return 100 * time.Microsecond })
	want := Optimum{Cost: 1500 * time.Microsecond, Near: map[string]bool{"near": true, "middle": true, "as good as middle": true}}
	if diff := cmp.Diff(want, o); !ok || diff != "" {
		t.Errorf("ok %v (-want +got):\n%s", ok, diff)
	}
	if share := o.NearShare([]string{"near", "near", "middle", "far"}); share != 0.75 {
		t.Errorf("near share %v, want 0.75", share)
	}
	if cost, ok := MeanCost(places, []string{"near", "far"}); !ok || cost != 4500*time.Microsecond {
		t.Errorf("mean cost %v, %v", cost, ok)
	}
	if _, ok := MeanCost(places, []string{"cheap but unknown"}); ok {
		t.Error("a worker where nothing is known has a cost")
	}
	if _, ok := Solve(places, 19, noBand); ok {
		t.Error("19 workers have room in 18 slots")
	}
}

func TestSolveIsNeverBeatenByAnyOtherAssignment(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		var places []Place
		var slots []string
		for _, name := range []string{"a", "b", "c", "d", "e"} {
			p := Place{Node: name, Slots: random.IntN(5), Cost: time.Duration(random.IntN(9)) * ms, Known: true}
			places = append(places, p)
			for range p.Slots {
				slots = append(slots, name)
			}
		}
		if len(slots) == 0 {
			continue
		}
		workers := 1 + random.IntN(len(slots))
		o, ok := Solve(places, workers, noBand)
		if !ok {
			t.Fatalf("no optimum for %d workers on %v", workers, places)
		}
		for range 50 {
			random.Shuffle(len(slots), func(i, j int) { slots[i], slots[j] = slots[j], slots[i] })
			if cost, _ := MeanCost(places, slots[:workers]); cost < o.Cost {
				t.Fatalf("%v costs %v, the optimum %v, on %v", slots[:workers], cost, o.Cost, places)
			}
		}
	}
}

func TestTruthIsWhatTheNetworkKeptThePackets(t *testing.T) {
	truth := NewTruth([]string{"a", "b"})
	truth.Add([]wan.Record{
		{Kind: wan.KindProbe, From: 0, To: 1, Session: 7, Seq: 1, Received: 1000, Due: 2900, Released: 3000},
		{Kind: wan.KindProbe, Reply: true, From: 1, To: 0, Session: 7, Seq: 1, Received: 5000, Due: 5400, Released: 5500},
		{Kind: wan.KindProbe, From: 0, To: 1, Session: 7, Seq: 2, Received: 9000, Due: 12900, Released: 13000},
		// The same tag on an application's packets, of which the first request is lost.
		{Kind: wan.KindApplication, From: 0, To: 1, Session: 7, Seq: 1, Received: 1000, Dropped: true},
		{Kind: wan.KindApplication, From: 0, To: 1, Session: 7, Seq: 1, Received: 201000, Due: 201900, Released: 202000},
		{Kind: wan.KindApplication, Reply: true, From: 1, To: 0, Session: 7, Seq: 1, Received: 202500, Due: 203400, Released: 203500},
	})
	if rtt, ok := truth.Probe(7, 1); !ok || rtt != 2500 {
		t.Errorf("probe 1: %v, %v", rtt, ok)
	}
	if _, ok := truth.Probe(7, 2); ok {
		t.Error("a probe without a reply has a round trip")
	}
	if rtt, ok := truth.Trip(7, 1); !ok || rtt != 201800 {
		t.Errorf("the trip with a retransmission: %v, %v; want it from when the lost copy entered", rtt, ok)
	}
	if rtt, ok := truth.Mean("a", "b"); !ok || rtt != 3300 {
		t.Errorf("mean: %v, %v", rtt, ok)
	}
	for _, tt := range []struct {
		since, until int64
		want         time.Duration
	}{{0, 2000, 2500}, {1000, 1000, 2500}, {2000, 9000, 0}} {
		held := truth.Held(time.Unix(0, tt.since), time.Unix(0, tt.until))
		if rtt, ok := held("a", "b"); ok != (tt.want > 0) || rtt != tt.want {
			t.Errorf("held from %d to %d: %v, %v; want %v, of probe 1 alone", tt.since, tt.until, rtt, ok, tt.want)
		}
		if _, ok := held("b", "a"); ok {
			t.Error("b sent no probe")
		}
	}
	if rtt, ok := truth.Mean("b", "b"); !ok || rtt != 0 {
		t.Errorf("a node to itself: %v, %v", rtt, ok)
	}
}

func TestQuantileIsTheNearestRank(t *testing.T) {
	values := []time.Duration{5, 1, 4, 2, 3}
	for q, want := range map[float64]time.Duration{0: 1, 0.2: 1, 0.21: 2, 0.5: 3, 0.99: 5, 1: 5} {
		if got := quantile(values, q); got != want {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	if quantile(nil, 0.5) != 0 {
		t.Error("the quantile of nothing is not 0")
	}
}

func TestAStallOfTheMachineIsOneRoundsMatter(t *testing.T) {
	// Two modes in turn, a search of each at a time; the machine stands still
	// once, and one mode is slow by its network alone.
	modes := make([][]searched, 2)
	for i := range 500 {
		for mode := range modes {
			net := time.Duration(10+20*mode) * ms
			s := searched{round: i * rounds / 500, trips: []time.Duration{net}, net: net, wall: net + ms}
			if 220 <= i && i < 240 {
				s.wall += time.Second
			}
			modes[mode] = append(modes[mode], s)
		}
	}
	quiet := quietRounds(modes)
	for mode, want := range []float64{11, 31} {
		var m Mode
		m.judgeSearches(modes[mode], quiet)
		if m.SearchP99 != want || m.SearchNetP99 != want-1 || m.Searches != 500 {
			t.Errorf("mode %d: p99 %v ms, of the network %v ms, of %d searches; want %v, %v, 500", mode, m.SearchP99, m.SearchNetP99, m.Searches, want, want-1)
		}
	}
	few := [][]searched{{{round: 0, wall: 3 * ms}, {round: 5, wall: ms}, {round: 9, wall: 2 * ms}}}
	var m Mode
	m.judgeSearches(few[0], quietRounds(few))
	if m.SearchP50 != 1 || m.SearchP99 != 2 {
		t.Errorf("of fewer searches than rounds: %v and %v ms, want 1 and 2", m.SearchP50, m.SearchP99)
	}
}

func TestTheTableSaysWhatTheReportSays(t *testing.T) {
	mode := func(net float64) *Mode {
		return &Mode{Workers: 96, Bound: 96, NearShare: 1, Cost: net / 5, CostVsBest: 1.02, RTTP50: 1, RTTP99: 2, SearchNetP50: net, SearchNetP99: net * 1.2, SearchP50: net, SearchP99: net * 1.3, SecondsToBound: 1.5}
	}
	report := &Report{Scenario: "metro", Phases: []Phase{{Name: PhaseSteady, Modes: map[string]*Mode{ModeDefault: mode(24.4), ModePinned: mode(6.6), ModeNetLatency: mode(6.5)}}}}
	var plain, coloured bytes.Buffer
	report.Table(&plain, false)
	report.Table(&coloured, true)
	for _, want := range []string{"default", "pinned", "netlatency", "96/96", "24.40", "steady"} {
		if !bytes.Contains(plain.Bytes(), []byte(want)) {
			t.Errorf("the table lacks %q:\n%s", want, plain.String())
		}
	}
	if bytes.Contains(plain.Bytes(), []byte("\x1b[")) {
		t.Error("the plain table has escape sequences")
	}
	if !bytes.Contains(coloured.Bytes(), []byte("\x1b[")) {
		t.Error("the coloured table has none")
	}
	if math.Abs(milliseconds(1234567)-1.2346) > 1e-9 {
		t.Errorf("milliseconds(1234567ns) = %v", milliseconds(1234567))
	}
}

func TestProcessorsAreBusyForWhatIsNotIdle(t *testing.T) {
	before, err := parseProcessors("cpu  100 0 50 1000 10 0 0 0 0 0\ncpu0 1 2 3 4 5\n")
	if err != nil {
		t.Fatal(err)
	}
	after, err := parseProcessors("cpu  120 0 60 1050 20 0 0 10 0 0\n")
	if err != nil {
		t.Fatal(err)
	}
	if busy, stolen := after.since(before); math.Abs(busy-0.4) > 1e-9 || math.Abs(stolen-0.1) > 1e-9 {
		t.Errorf("busy for %v, stolen %v, want 0.4 and 0.1", busy, stolen)
	}
	for _, nonsense := range []string{"", "intr 1 2 3 4 5 6 7 8", "cpu 1 2", "cpu a b c d e f g h"} {
		if _, err := parseProcessors(nonsense); err == nil {
			t.Errorf("%q is accepted", nonsense)
		}
	}
}
