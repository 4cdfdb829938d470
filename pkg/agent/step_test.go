package agent

import (
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"

	"github.com/netlatency/netlatency/pkg/exposition"
	"github.com/netlatency/netlatency/pkg/probe"
)

// stepped is t after a step of the wall clock by whole seconds: the monotonic
// reading is the same. Nothing in package time makes such a value, and no test
// may step the machine's own clock; wall seconds are above 30 bits of
// nanoseconds in a Time that has a monotonic reading.
func stepped(t *testing.T, at time.Time, by time.Duration) time.Time {
	t.Helper()
	after := at
	wall := (*uint64)(unsafe.Pointer(&after))
	*wall += uint64(by/time.Second) << 30
	if after.Sub(at) != 0 || after.UnixNano()-at.UnixNano() != int64(by) {
		t.Fatal("a time.Time is no longer made as this test expects")
	}
	return after
}

// An agent rests on the monotonic clock: a step of the wall clock, wherever in
// a burst or between two, moves no sample, no age and no probe. Only the times
// that it shows follow.
func TestAStepOfTheWallClockChangesWhatTheClockSaysAndNothingElse(t *testing.T) {
	for name, left := range map[string]int{"between bursts": 0, "in a burst": 2} {
		for _, by := range []time.Duration{10 * time.Second, -10 * time.Second} {
			t.Run(name+" by "+by.String(), func(t *testing.T) {
				now := time.Now()
				undisturbed := afterAMinute(t, now, left, 0)
				disturbed := afterAMinute(t, now, left, by)

				if got := disturbed.Now.UnixNano() - undisturbed.Now.UnixNano(); got != int64(by) {
					t.Errorf("the time on the matrix moved by %v: want %v", time.Duration(got), by)
				}
				for i := range disturbed.Rows {
					d, u := &disturbed.Rows[i].Distribution, &undisturbed.Rows[i].Distribution
					if got, want := wallAge(disturbed.Now, d.Newest), wallAge(undisturbed.Now, u.Newest); got != want {
						t.Errorf("%s is %v old by the times on the matrix: want %v", disturbed.Rows[i].Peer, got, want)
					}
					d.Newest, u.Newest = time.Time{}, time.Time{}
				}
				if diff := cmp.Diff(undisturbed.Rows, disturbed.Rows); diff != "" {
					t.Errorf("rows (-without a step +with one):\n%s", diff)
				}
			})
		}
	}
}

// wallAge is an age as a reader of the matrix sees it.
func wallAge(now, newest time.Time) time.Duration { return now.Round(0).Sub(newest.Round(0)) }

// afterAMinute is the matrix after a minute of probing two peers, one of which
// goes after 20 seconds. The clock is stepped after 30, when so many packets of
// a burst to the other are left.
func afterAMinute(t *testing.T, now time.Time, left int, by time.Duration) exposition.Window {
	t.Helper()
	f := newFixtureAt(t, now, testOptions(), slice("a").ready("node-2", "10.0.0.2").ready("node-3", "10.0.0.3"))
	f.plan.random = func() float64 { return 0.5 }
	answered := 0
	probes := func(span time.Duration) {
		for range span / (5 * ms) {
			f.probes(5 * ms)
			for _, p := range f.engine.all()[answered:] {
				answered++
				f.outcome(f.logger, probe.MethodUDP, probe.Outcome{Probe: p, Sent: f.clock.Now(), RTT: ms + time.Duration(answered)*us, Lost: answered%7 == 0})
			}
		}
	}
	probes(20 * time.Second)
	f.peersAre(slice("a").ready("node-2", "10.0.0.2"))
	probes(10 * time.Second)
	for f.plan.turns["node-2"].left != left {
		probes(5 * ms)
	}
	f.clock.SetTime(stepped(t, f.clock.Now(), by))
	probes(30 * time.Second)
	return f.Window(0)
}
