package agent

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/netlatency/netlatency/pkg/latency"
)

const (
	us = time.Microsecond
	ms = time.Millisecond
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// history feeds a window with bursts, one every ten seconds.
type history struct {
	*window
	now    time.Time
	number uint64
}

func newHistory() *history {
	return &history{
		window: newWindow(windowSpans{samples: 5 * time.Minute, losses: 30 * time.Minute, interval: 10 * time.Second, burst: 4}, start),
		now:    start,
	}
}

const lost = time.Duration(-1)

// burst records one burst and lets the interval pass. It reports whether a
// change of path was seen.
func (h *history) burst(rtts ...time.Duration) (changed bool) {
	h.number++
	for i, rtt := range rtts {
		sent := h.now.Add(time.Duration(i) * 20 * ms)
		if rtt == lost {
			h.Lost(h.number, sent)
		} else if h.Answered(h.number, sent, rtt) {
			changed = true
		}
	}
	h.now = h.now.Add(10 * time.Second)
	return changed
}

func (h *history) bursts(n int, rtts ...time.Duration) *history {
	for range n {
		h.burst(rtts...)
	}
	return h
}

func TestStatisticsOfAWindow(t *testing.T) {
	tests := map[string]struct {
		history *history
		span    time.Duration
		want    latency.Distribution
	}{
		"nothing was measured": {
			history: newHistory(),
			want:    latency.Distribution{},
		},
		"quantiles are values that were measured": {
			history: newHistory().bursts(1, 400*us, 100*us, 300*us, 200*us),
			want: latency.Distribution{
				Samples: 4, Sent: 4, Newest: start.Add(60 * ms),
				Mean: 250 * us, Min: 100 * us, P50: 200 * us, P90: 400 * us, P99: 400 * us,
			},
		},
		"one absurd sample counts as 20 medians in the mean": {
			history: newHistory().bursts(1, 100*us, 100*us, 100*us, 8*time.Second),
			want: latency.Distribution{
				Samples: 4, Sent: 4, Newest: start.Add(60 * ms),
				Mean: 575 * us, Min: 100 * us, P50: 100 * us, P90: 8 * time.Second, P99: 8 * time.Second,
			},
		},
		"a lost probe is a loss and no latency": {
			history: newHistory().bursts(1, 100*us, lost, 100*us, 100*us),
			want: latency.Distribution{
				Samples: 3, Sent: 4, Lost: 1, Newest: start.Add(60 * ms),
				Mean: 100 * us, Min: 100 * us, P50: 100 * us, P90: 100 * us, P99: 100 * us,
			},
		},
		"a burst lost whole is an outage: it ages the pair and is no loss": {
			history: newHistory().bursts(1, 100*us, 100*us, 100*us, 100*us).bursts(6, lost, lost, lost, lost),
			want: latency.Distribution{
				Samples: 4, Sent: 4, Newest: start.Add(60 * ms),
				Mean: 100 * us, Min: 100 * us, P50: 100 * us, P90: 100 * us, P99: 100 * us,
			},
		},
		"samples are forgotten after the window, losses after the loss window": {
			history: newHistory().bursts(1, 100*us, lost, lost, 100*us).bursts(60, 110*us, 110*us, 110*us, 110*us),
			want: latency.Distribution{
				// 29 bursts, and of the one five minutes ago all but its first packet.
				Samples: 119, Sent: 244, Lost: 2, Newest: start.Add(600*time.Second + 60*ms),
				Mean: 110 * us, Min: 110 * us, P50: 110 * us, P90: 110 * us, P99: 110 * us,
			},
		},
		// The oldest of them by whole parts of the window, here a minute.
		"losses are forgotten after the loss window": {
			history: newHistory().bursts(1, 100*us, lost, lost, 100*us).bursts(180, 100*us),
			want: latency.Distribution{
				Samples: 29, Sent: 175, Newest: start.Add(1800 * time.Second),
				Mean: 100 * us, Min: 100 * us, P50: 100 * us, P90: 100 * us, P99: 100 * us,
			},
		},
		"a reader may ask for less than the window": {
			history: newHistory().bursts(3, 100*us).bursts(2, 120*us),
			span:    21 * time.Second,
			want: latency.Distribution{
				Samples: 2, Sent: 5, Newest: start.Add(40 * time.Second),
				Mean: 120 * us, Min: 120 * us, P50: 120 * us, P90: 120 * us, P99: 120 * us,
			},
		},
		"a reader who asks for more gets the window": {
			history: newHistory().bursts(1, 100*us).bursts(30, lost, lost),
			span:    time.Hour,
			want:    latency.Distribution{Sent: 1},
		},
		"nothing was answered: sent and lost say nothing either": {
			history: newHistory().bursts(5, lost, lost, lost, lost),
			want:    latency.Distribution{},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := test.history.Statistics(test.history.now, test.span)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("statistics (-want +got):\n%s", diff)
			}
			if got.Samples > 0 && got.Validate() != nil {
				t.Errorf("a reader would refuse it: %v", got.Validate())
			}
		})
	}
}

// The engine holds the last sample of a burst until the next burst, and knows
// of a loss only after the timeout.
func TestOutcomesMayComeLateAndOutOfOrder(t *testing.T) {
	h := newHistory()
	h.Answered(1, start, 100*us)
	h.Answered(2, start.Add(10*time.Second), 100*us)
	h.Answered(1, start.Add(40*ms), 90*us)
	h.Lost(1, start.Add(20*ms))
	h.Lost(2, start.Add(10*time.Second+20*ms))

	got := h.Statistics(start.Add(12*time.Second), 0)
	want := latency.Distribution{
		Samples: 3, Sent: 5, Lost: 2, Newest: start.Add(10 * time.Second),
		Mean: 290 * us / 3, Min: 90 * us, P50: 100 * us, P90: 100 * us, P99: 100 * us,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("statistics (-want +got):\n%s", diff)
	}
}

func TestAWindowIsBounded(t *testing.T) {
	h := newHistory()
	// Bursts a hundred times as often as the window was made for.
	for n := range uint64(30_000) {
		h.Answered(n, start.Add(time.Duration(n)*100*ms), 100*us)
	}
	if got, bound := len(h.samples), 35*4; got > bound {
		t.Errorf("the window holds %d samples: want at most %d", got, bound)
	}
	if got, bound := len(h.window.bursts), 200; got > bound {
		t.Errorf("the window holds %d bursts: want at most %d", got, bound)
	}
	// It is the newest that are kept.
	end := start.Add(30_000 * 100 * ms)
	if got := h.Statistics(end, 0); end.Sub(got.Newest) != 100*ms || got.Samples != len(h.samples) {
		t.Errorf("newest is %v old, %d samples count: want 100ms and all %d", end.Sub(got.Newest), got.Samples, len(h.samples))
	}
	// What is older than all of it is no longer taken for a burst.
	before := h.Statistics(end, 0).Sent
	h.Lost(1, start)
	if got := h.Statistics(end, 0).Sent; got != before {
		t.Errorf("a forgotten burst came back: %d sent, %d before", got, before)
	}
}

func TestWhenThePathChangesTheOldOneIsForgotten(t *testing.T) {
	steady := []time.Duration{505 * us, 500 * us, 510 * us, 520 * us}
	tests := map[string]struct {
		then func(*history) (changed bool)
		want bool
	}{
		"it became longer": {
			then: func(h *history) bool {
				return h.burst(900*us, 910*us, 905*us) || h.burst(920*us, 900*us, 940*us, 980*us) || h.burst(950*us, 901*us, 902*us)
			},
			want: true,
		},
		"it became shorter": {
			then: func(h *history) bool {
				return h.burst(300*us, 310*us, 305*us) || h.burst(320*us, 300*us, 340*us, 980*us) || h.burst(350*us, 301*us, 302*us)
			},
			want: true,
		},
		"it became longer after an outage": {
			then: func(h *history) bool {
				h.bursts(4, lost, lost, lost, lost).bursts(2, 900*us, 900*us, 900*us, 900*us)
				return h.burst(900*us, 900*us, 900*us)
			},
			want: true,
		},
		"two rounds are not enough": {
			then: func(h *history) bool {
				changed := false
				for range 2 {
					changed = h.burst(900*us, 900*us, 900*us, 900*us) || changed
				}
				return changed
			},
		},
		"one good packet a burst shows that the path is still there": {
			then: func(h *history) bool {
				changed := false
				for range 10 {
					changed = h.burst(900*us, 505*us, 900*us, 900*us) || changed
				}
				return changed
			},
		},
		"a change that no placement would follow": {
			then: func(h *history) bool {
				changed := false
				for range 10 {
					changed = h.burst(590*us, 590*us, 590*us, 590*us) || changed
				}
				return changed
			},
		},
		"once up and once down is jitter": {
			then: func(h *history) bool {
				return h.burst(900*us, 900*us, 900*us, 900*us) || h.burst(200*us, 200*us, 200*us, 200*us) || h.burst(900*us, 900*us, 900*us, 900*us)
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			h := newHistory()
			h.burst(505*us, lost, lost, 520*us)
			h.bursts(20, steady...)
			before := h.Statistics(h.now, 0)
			changed := test.then(h)
			after := h.Statistics(h.now, 0)
			if changed != test.want {
				t.Fatalf("change of path seen: %v, want %v", changed, test.want)
			}
			if forgot := after.Samples < before.Samples; forgot != test.want {
				t.Errorf("%d samples before and %d after: forgotten %v, want %v", before.Samples, after.Samples, forgot, test.want)
			}
			if forgot := after.Lost == 0; forgot != test.want {
				t.Errorf("losses on the old path forgotten: %v, want %v", forgot, test.want)
			}
		})
	}
}

func TestAfterAChangeOnlyTheNewPathSpeaks(t *testing.T) {
	h := newHistory().bursts(30, 500*us, 500*us, 500*us, 500*us)
	// In the middle of a burst: that burst still knows the old path.
	h.burst(500*us, 500*us, 8*ms, 8*ms)
	h.bursts(3, 8*ms, 8*ms, 8*ms, 8*ms)
	// A straggler of the old path.
	h.Answered(31, start.Add(300*time.Second), 500*us)

	got := h.Statistics(h.now, 0)
	want := latency.Distribution{
		Samples: 12, Sent: 12, Newest: start.Add(330*time.Second + 60*ms),
		Mean: 8 * ms, Min: 8 * ms, P50: 8 * ms, P90: 8 * ms, P99: 8 * ms,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("three rounds after the change (-want +got):\n%s", diff)
	}
	// And it can change back.
	h.bursts(9, 8*ms, 8*ms, 8*ms, 8*ms).bursts(3, 500*us, 500*us, 500*us, 500*us)
	if got := h.Statistics(h.now, 0); got.P99 != 500*us {
		t.Errorf("three rounds after it changed back the p99 is %v, want 500µs", got.P99)
	}
}

// Plain jitter is not a change of path. The seeds are fixed, so this is a
// count and not a chance.
func TestJitterIsNoPathChange(t *testing.T) {
	const rounds = 10_000 // more than a day at a round every 10 s
	base := 500 * us
	tests := map[string]func(*rand.Rand) float64{
		"exponential, mean 20 % of the base":  func(r *rand.Rand) float64 { return 0.2 * r.ExpFloat64() },
		"exponential, mean 100 % of the base": func(r *rand.Rand) float64 { return r.ExpFloat64() },
		"uniform, up to 60 % of the base":     func(r *rand.Rand) float64 { return 0.6 * r.Float64() },
		"a half normal of 50 % of the base":   func(r *rand.Rand) float64 { return 0.5 * max(r.NormFloat64(), -r.NormFloat64()) },
		"one packet in ten meets a full queue": func(r *rand.Rand) float64 {
			if r.Float64() < 0.1 {
				return 20 * r.Float64()
			}
			return 0.05 * r.ExpFloat64()
		},
	}
	for name, jitter := range tests {
		t.Run(name, func(t *testing.T) {
			random := rand.New(rand.NewPCG(1, 2))
			h := newHistory()
			changes := 0
			for range rounds {
				rtts := make([]time.Duration, 4)
				for i := range rtts {
					rtts[i] = base + time.Duration(jitter(random)*float64(base))
				}
				if h.burst(rtts...) {
					changes++
				}
			}
			if changes > 0 {
				t.Errorf("%d changes of path were seen in %d rounds of jitter: want none", changes, rounds)
			}
		})
	}
}

// Twice the latency under the same jitter is seen, at every base that occurs
// in a metro network.
func TestAChangeIsSeenThroughJitter(t *testing.T) {
	for _, base := range []time.Duration{200 * us, 500 * us, 2 * ms, 8 * ms} {
		t.Run(base.String(), func(t *testing.T) {
			random := rand.New(rand.NewPCG(3, 4))
			burst := func(base time.Duration) []time.Duration {
				rtts := make([]time.Duration, 4)
				for i := range rtts {
					rtts[i] = base + time.Duration(0.2*random.ExpFloat64()*float64(base))
				}
				return rtts
			}
			const trials = 200
			seen := 0
			for range trials {
				h := newHistory()
				for range 30 {
					h.burst(burst(base)...)
				}
				changed := false
				for range pathRounds {
					changed = h.burst(burst(2*base)...) || changed
				}
				if changed {
					seen++
				}
			}
			if seen < trials*95/100 {
				t.Errorf("seen within three rounds in %d of %d trials: want 95 %%", seen, trials)
			}
		})
	}
}
