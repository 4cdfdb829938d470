package latency_test

import (
	"maps"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/netlatency/netlatency/pkg/latency"
)

func TestAMatrixIsWhatWasObserved(t *testing.T) {
	taken := time.Unix(1000, 0)
	observed := map[latency.Pair]latency.Distribution{
		{Node: "a", Peer: "b"}: steady(1*ms, 50),
		{Node: "b", Peer: "a"}: steady(2*ms, 50),
		{Node: "a", Peer: "c"}: steady(3*ms, 50),
		{Node: "a", Peer: "a"}: steady(9*ms, 50), // no such pair
	}
	m := latency.NewMatrix(taken, observed)
	delete(observed, latency.Pair{Node: "a", Peer: "a"})

	if diff := cmp.Diff(observed, maps.Collect(m.All())); diff != "" {
		t.Errorf("All (-want +got):\n%s", diff)
	}
	for pair, want := range observed {
		if d, ok := m.Measured(pair.Node, pair.Peer); !ok || d != want {
			t.Errorf("Measured(%v) = %v, %v", pair, d, ok)
		}
	}
	for _, pair := range []latency.Pair{{Node: "c", Peer: "a"}, {Node: "a", Peer: "a"}, {Node: "x", Peer: "a"}, {Node: "a", Peer: "x"}} {
		if _, ok := m.Measured(pair.Node, pair.Peer); ok {
			t.Errorf("Measured(%v) has a distribution", pair)
		}
	}
	if m.Version() != 1 || m.Pairs() != 3 || !m.Taken().Equal(taken) {
		t.Errorf("version %d, %d pairs, taken %v", m.Version(), m.Pairs(), m.Taken())
	}
}

func TestANilMatrixIsEmpty(t *testing.T) {
	var m *latency.Matrix
	if _, ok := m.Measured("a", "b"); ok || m.Pairs() != 0 || m.Version() != 0 || !m.Taken().IsZero() {
		t.Error("a nil matrix has something in it")
	}
	for range m.All() {
		t.Error("a nil matrix has a pair")
	}
}

func TestALaterMatrixIsTheSameButForTheTime(t *testing.T) {
	taken := time.Unix(1000, 0)
	pair := latency.Pair{Node: "a", Peer: "b"}
	d := steady(1*ms, 50)
	d.Newest = taken.Add(-time.Second)
	m := latency.NewMatrix(taken, map[latency.Pair]latency.Distribution{pair: d})
	later := m.Later(taken.Add(time.Minute))
	want := d
	want.Newest = d.Newest.Add(time.Minute)
	if diff := cmp.Diff(map[latency.Pair]latency.Distribution{pair: want}, maps.Collect(later.All())); diff != "" {
		t.Errorf("All (-want +got):\n%s", diff)
	}
	if later.Version() != 2 || later.Pairs() != 1 || !later.Taken().Equal(taken.Add(time.Minute)) {
		t.Errorf("version %d, %d pairs, taken %v", later.Version(), later.Pairs(), later.Taken())
	}
	if !m.Newest().Equal(d.Newest) || !later.Newest().Equal(want.Newest) {
		t.Errorf("the newest sample is of %v, and later of %v; want %v and %v", m.Newest(), later.Newest(), d.Newest, want.Newest)
	}
	if before, _ := m.Measured("a", "b"); before != d {
		t.Errorf("the matrix before has changed to %v", before)
	}
	if empty := (*latency.Matrix)(nil).Later(taken); empty.Version() != 1 || empty.Pairs() != 0 || !empty.Newest().IsZero() || !empty.Later(taken).Newest().IsZero() {
		t.Errorf("after none comes version %d with %d pairs", empty.Version(), empty.Pairs())
	}
}

func TestHysteresisHoldsAValueThatMovesOnlyByNoise(t *testing.T) {
	h := latency.Hysteresis{Ratio: 0.15, Floor: 100 * time.Microsecond, Statistic: latency.Statistic{}}
	pair := latency.Pair{Node: "a", Peer: "b"}
	for _, test := range []struct {
		name      string
		held, now latency.Distribution
		takesOver bool
	}{
		{"a tenth of a large value", steady(8*ms, 100), steady(8800*time.Microsecond, 100), false},
		{"a fifth of a large value", steady(8*ms, 100), steady(9600*time.Microsecond, 100), true},
		{"a large part of a small value, below the floor", steady(200*time.Microsecond, 100), steady(290*time.Microsecond, 100), false},
		{"downwards is as upwards", steady(8*ms, 100), steady(6400*time.Microsecond, 100), true},
		{"a value that stood on half as many samples", steady(8*ms, 50), steady(8100*time.Microsecond, 100), true},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.now.Newest = test.held.Newest.Add(time.Minute)
			first := latency.NewMatrix(time.Unix(1000, 0), map[latency.Pair]latency.Distribution{pair: test.held})
			second := first.Next(time.Unix(1060, 0), map[latency.Pair]latency.Distribution{pair: test.now}, h)
			got, ok := second.Measured("a", "b")
			want := test.held
			if test.takesOver {
				want = test.now
			}
			want.Newest = test.now.Newest // a held value does not grow stale
			if !ok || got != want {
				t.Errorf("got %+v\nwant %+v", got, want)
			}
			if second.Version() != first.Version()+1 {
				t.Errorf("version %d after %d", second.Version(), first.Version())
			}
		})
	}
}

func TestSlowDriftIsFollowedInTheEnd(t *testing.T) {
	h := latency.Hysteresis{Ratio: 0.15, Floor: 100 * time.Microsecond}
	pair := latency.Pair{Node: "a", Peer: "b"}
	var m *latency.Matrix
	for value := 2 * ms; value <= 4*ms; value += 20 * time.Microsecond {
		m = m.Next(time.Unix(1000, 0), map[latency.Pair]latency.Distribution{pair: steady(value, 100)}, h)
	}
	d, _ := m.Measured("a", "b")
	if d.Mean < 3400*time.Microsecond {
		t.Errorf("the truth crept from 2 to 4 ms in steps of 20 µs, the matrix says %v", d.Mean)
	}
}

func TestAPairThatIsNotObservedIsGone(t *testing.T) {
	pair := latency.Pair{Node: "a", Peer: "b"}
	m := latency.NewMatrix(time.Unix(1000, 0), map[latency.Pair]latency.Distribution{pair: steady(ms, 100)})
	if _, ok := m.Next(time.Unix(1010, 0), nil, latency.Hysteresis{}).Measured("a", "b"); ok {
		t.Error("it is still there")
	}
}
