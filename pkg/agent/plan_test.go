package agent

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// planned is a plan whose packets are drawn from it at the times it asks for.
type planned struct {
	*plan
	now time.Time
}

func newPlanned(change func(*Options)) *planned {
	o := Options{NodeName: "node-0", Interval: 10 * time.Second, Burst: 4, Spacing: 20 * ms, PacketsPerSecond: 500}
	if change != nil {
		change(&o)
	}
	p := &planned{plan: newPlan(o), now: start}
	p.random = func() float64 { return 0.5 } // no jitter
	return p
}

func (p *planned) join(n int) *planned {
	for i := range n {
		p.Join(fmt.Sprintf("peer-%d", i), p.now)
	}
	return p
}

type departure struct {
	packet
	At time.Duration // since start
}

// during returns all that leaves in the next span.
func (p *planned) during(span time.Duration) []departure {
	end := p.now.Add(span)
	var departures []departure
	for {
		packet, wake, ok := p.Next(p.now)
		switch {
		case ok:
			departures = append(departures, departure{packet, p.now.Sub(start)})
		case wake.IsZero() || wake.After(end):
			p.now = end
			return departures
		default:
			p.now = wake
		}
	}
}

// starts are the times of the first packets of the bursts to peer.
func starts(departures []departure, peer string) []time.Duration {
	var times []time.Duration
	var burst uint64
	for _, d := range departures {
		if d.peer == peer && d.burst != burst {
			times, burst = append(times, d.At), d.burst
		}
	}
	return times
}

func TestAPeerIsProbedInBurstsARoundApart(t *testing.T) {
	p := newPlanned(nil).join(1)
	first := time.Duration(fraction("phase", "node-0", "peer-0") * float64(10*time.Second))
	var want []departure
	for round := range 3 {
		for i := range 4 {
			want = append(want, departure{
				packet{"peer-0", uint64(round + 1), false},
				first + time.Duration(round)*10*time.Second + time.Duration(i)*20*ms,
			})
		}
	}
	if diff := cmp.Diff(want, p.during(30*time.Second), cmp.AllowUnexported(departure{}, packet{})); diff != "" {
		t.Errorf("departures (-want +got):\n%s", diff)
	}
}

func TestANewPeerIsProbedWithinOneInterval(t *testing.T) {
	p := newPlanned(nil).join(500)
	p.during(time.Minute)
	for i := range 20 {
		name := fmt.Sprintf("new-%d", i)
		joined := p.now
		p.Join(name, p.now)
		got := starts(p.during(10*time.Second+100*ms), name)
		if len(got) == 0 || got[0] > joined.Sub(start)+10*time.Second+100*ms {
			t.Errorf("%s joined at %v, its bursts start at %v: want one within an interval", name, joined.Sub(start), got)
		}
	}
}

// All agents of a cluster that start together, as after a rollout, do not
// probe together.
func TestPhasesSpreadOverTheInterval(t *testing.T) {
	departures := newPlanned(nil).join(100).during(10 * time.Second)
	perSecond := make([]int, 10)
	for i := range 100 {
		at := starts(departures, fmt.Sprintf("peer-%d", i))
		perSecond[at[0]/time.Second]++
	}
	// 100 draws over 10 seconds: 10 expected in each, standard deviation 3.
	if slices.Min(perSecond) < 2 || slices.Max(perSecond) > 20 {
		t.Errorf("bursts that start in each second: %v", perSecond)
	}
}

func TestJitterMovesABurstByATenthOfTheIntervalAndDoesNotAddUp(t *testing.T) {
	p := newPlanned(nil)
	draw := 0
	p.random = func() float64 { draw++; return []float64{0, 0.999999}[draw%2] }
	p.join(1)
	got := starts(p.during(10*time.Minute), "peer-0")
	var gaps []time.Duration
	for i := 2; i < len(got); i++ {
		gaps = append(gaps, (got[i] - got[i-1]).Round(ms))
	}
	for i, gap := range gaps {
		if want := []time.Duration{8 * time.Second, 12 * time.Second}[i%2]; gap != want {
			t.Fatalf("gaps between bursts are %v: want 8s and 12s in turns", gaps)
		}
	}
	if n := len(got); n < 59 || n > 61 {
		t.Errorf("%d bursts in 10 minutes: want 60", n)
	}
}

func TestTheIntervalGrowsWithTheLogarithmOfThePeers(t *testing.T) {
	for peers, want := range map[int]time.Duration{
		0:    10 * time.Second,
		1:    10 * time.Second,
		100:  10 * time.Second,
		1000: 14970 * ms,
		5000: 18455 * ms,
	} {
		p := newPlanned(nil).join(peers)
		if got := p.Interval().Round(ms); got != want {
			t.Errorf("interval with %d peers is %v: want %v", peers, got, want)
		}
	}
	p := newPlanned(nil).join(1000)
	if got := starts(p.during(40*time.Second), "peer-7"); len(got) < 2 || (got[1]-got[0]).Round(100*ms) != 15*time.Second {
		t.Errorf("bursts with 1000 peers start at %v: want them 15s apart", got)
	}
}

func TestTheCapOnPackets(t *testing.T) {
	t.Run("holds whatever is due", func(t *testing.T) {
		// 400 packets each 10 s are wanted, 20 a second are allowed.
		p := newPlanned(func(o *Options) { o.PacketsPerSecond = 20 }).join(100)
		departures := p.during(5 * time.Minute)
		for from := range departures {
			inSecond := 0
			for _, d := range departures[from:] {
				if d.At >= departures[from].At+time.Second {
					break
				}
				inSecond++
			}
			if inSecond > 22 {
				t.Fatalf("%d packets in the second after %v: want at most 20 and a tenth", inSecond, departures[from].At)
			}
		}
		if n := len(departures); n < 19*300 {
			t.Errorf("%d packets in 5 minutes: want nearly all of the 6000 that are allowed", n)
		}
	})
	t.Run("delays and counts, and treats all peers alike", func(t *testing.T) {
		p := newPlanned(func(o *Options) { o.PacketsPerSecond = 20 }).join(100)
		departures := p.during(5 * time.Minute)
		for i := range 100 {
			name := fmt.Sprintf("peer-%d", i)
			// 20 a second for 300 s are 1500 bursts for 100 peers.
			if n := len(starts(departures, name)); n < 13 || n > 17 {
				t.Errorf("%s was probed in %d bursts: want about 15", name, n)
			}
		}
		if capped := p.capped.Load(); capped < 5000 || capped > 6000 {
			t.Errorf("%d packets were held back: want nearly all of 6000", capped)
		}
	})
	t.Run("does not count what fits", func(t *testing.T) {
		p := newPlanned(nil).join(100)
		if n := len(p.during(5 * time.Minute)); n != 100*4*30 {
			t.Errorf("%d packets in 5 minutes: want 12000", n)
		}
		if capped := p.capped.Load(); capped != 0 {
			t.Errorf("%d packets were held back: want 0", capped)
		}
	})
}

func TestAfterAPauseRoundsAreSkippedNotMadeUpFor(t *testing.T) {
	p := newPlanned(nil).join(1)
	before := starts(p.during(10*time.Second), "peer-0")
	p.now = p.now.Add(time.Hour) // the machine slept
	got := starts(p.during(30*time.Second), "peer-0")
	if len(got) < 3 || len(got) > 4 {
		t.Fatalf("bursts in the 30s after a pause start at %v: want one at once and then one a round", got)
	}
	// And it is in its old phase again.
	if phase := (got[1] - before[0]) % (10 * time.Second); phase != 0 {
		t.Errorf("the phase moved by %v", phase)
	}
}

func TestAPeerThatLeavesIsNotProbed(t *testing.T) {
	p := newPlanned(nil).join(3)
	p.during(10 * time.Second)
	p.Leave("peer-1")
	p.Leave("never-seen")
	departures := p.during(20 * time.Second)
	if got := starts(departures, "peer-1"); len(got) != 0 {
		t.Errorf("a peer that left was probed at %v", got)
	}
	for _, stays := range []string{"peer-0", "peer-2"} {
		if got := starts(departures, stays); len(got) != 2 {
			t.Errorf("%s was probed at %v: want two bursts", stays, got)
		}
	}
	p.Leave("peer-0")
	p.Leave("peer-2")
	if _, wake, ok := p.Next(p.now); ok || !wake.IsZero() {
		t.Errorf("with no peers the plan asks to be woken at %v (packet: %v): want never", wake, ok)
	}
}

func TestJoiningTwiceChangesNothing(t *testing.T) {
	once, twice := newPlanned(nil).join(1), newPlanned(nil).join(1)
	once.during(15 * time.Second)
	twice.during(15 * time.Second)
	twice.join(1)
	options := cmp.AllowUnexported(departure{}, packet{})
	if diff := cmp.Diff(once.during(time.Minute), twice.during(time.Minute), options); diff != "" {
		t.Errorf("departures (-once +twice):\n%s", diff)
	}
}
