package agent

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/netlatency/netlatency/pkg/probe"
)

// firewalled is an agent with one peer behind a firewall that lets some methods
// through. Outcomes come when the engines would give them: an answer by UDP
// with the next one of the peer's or after two intervals, any other at once,
// and a loss at the timeout.
type firewalled struct {
	*fixture
	passes  []probe.Method
	pending []outcomeAt // in the order of their times

	// began counts bursts, whose newest is burst; answered is the count when
	// one was answered.
	burst           uint64
	began, answered int
	packets         int           // of the newest burst
	oldest          time.Duration // that a reader of the matrix has seen
}

// outcomeAt is an outcome that is still to come.
type outcomeAt struct {
	probe.Outcome
	method probe.Method
	at     time.Time
}

func newFirewalled(t *testing.T, burst int, timeout time.Duration, jitter []float64) *firewalled {
	t.Helper()
	o := testOptions()
	o.Methods = []string{"udp", "icmp", "tcp"}
	o.Burst, o.Timeout = burst, timeout
	f := &firewalled{
		fixture: newFixture(t, o, slice("a").ready("node-2", "10.0.0.2")),
		passes:  []probe.Method{probe.MethodUDP, probe.MethodICMP, probe.MethodTCP},
	}
	draws := 0
	f.plan.random = func() float64 { draws++; return jitter[draws%len(jitter)] }
	return f
}

// step sends the next packet, with all that comes before it.
func (f *firewalled) step() {
	f.t.Helper()
	for {
		p, due, ok := f.plan.Next(f.clock.Now())
		if ok {
			f.depart(p)
			return
		}
		if len(f.pending) > 0 && !f.pending[0].at.After(due) {
			o := f.pending[0]
			f.pending = f.pending[1:]
			f.clock.SetTime(o.at)
			f.outcome(f.logger, o.method, o.Outcome)
			continue
		}
		f.clock.SetTime(due)
	}
}

// depart sends a packet and decides what becomes of it.
func (f *firewalled) depart(p packet) {
	now := f.clock.Now()
	if p.burst != f.burst {
		f.burst, f.packets = p.burst, 0
		f.began++
		for _, row := range f.Window(0).Rows {
			f.oldest = max(f.oldest, now.Sub(row.Newest))
		}
	}
	f.packets++
	f.send(f.ctx, []packet{p})
	for method, e := range f.engines {
		for _, sent := range e.sent {
			o := outcomeAt{probe.Outcome{Probe: sent, Sent: now, RTT: ms}, method, now}
			switch {
			case !slices.Contains(f.passes, method):
				o.Lost, o.at = true, now.Add(f.options.Timeout)
				f.later(o)
			case method == probe.MethodUDP:
				f.pending = slices.DeleteFunc(f.pending, func(other outcomeAt) bool {
					if other.method != method || other.Lost {
						return false
					}
					f.outcome(f.logger, method, other.Outcome)
					return true
				})
				o.at = now.Add(2 * f.options.Interval)
				f.later(o)
			default:
				f.outcome(f.logger, method, o.Outcome)
			}
			if !o.Lost && !p.full {
				f.answered = f.began
			}
		}
		e.sent = nil
	}
}

func (f *firewalled) later(o outcomeAt) {
	f.pending = append(f.pending, o)
	slices.SortStableFunc(f.pending, func(a, b outcomeAt) int { return a.at.Compare(b.at) })
}

// rounds lets n bursts begin, and the first packets of the last leave.
func (f *firewalled) rounds(n, packets int) {
	f.t.Helper()
	for end := f.began + n; f.began < end || f.packets < packets; {
		f.step()
	}
}

// recovers lets everything pass until the peer is probed by UDP again.
func (f *firewalled) recovers() {
	f.t.Helper()
	f.passes = []probe.Method{probe.MethodUDP, probe.MethodICMP, probe.MethodTCP}
	for rounds, l := 0, &f.pairs.Present("node-2").ladder; l.proven != 0; rounds++ {
		if rounds > 3*climbRounds {
			f.t.Fatalf("%d rounds after all methods pass the ladder is %+v: want it at the top", rounds, l)
		}
		f.rounds(1, 0)
	}
	f.rounds(2, 0)
}

// block lets only the given methods pass, and returns which of the bursts that
// begin from then on is the first to be answered.
func (f *firewalled) block(passes ...probe.Method) int {
	f.t.Helper()
	f.passes = passes
	before := f.began
	for f.answered <= before {
		if f.began > before+10 {
			f.t.Fatalf("no burst of ten is answered although %v passes: ladder %+v", passes, f.pairs.Present("node-2").ladder)
		}
		f.step()
	}
	return f.answered - before
}

// Whatever the ladder, the climbs and the packets of full size are at when a
// method is blocked, wherever in a burst, the third burst from then on is
// answered.
func TestABlockedMethodCostsAtMostTwoBursts(t *testing.T) {
	type tries struct{ most, n int }
	for name, test := range map[string]struct {
		burst   int
		timeout time.Duration // of an interval of 10 s
		jitter  []float64
		// most is which burst is answered at the latest: when UDP is blocked,
		// and when ICMP is too.
		udp, icmp int
	}{
		"bursts of four":         {4, 2 * time.Second, []float64{0.5}, 2, 3},
		"with jitter":            {4, 2 * time.Second, []float64{0, 0.999, 0.999, 0, 0.5}, 2, 3},
		"with losses known late": {4, 5 * time.Second, []float64{0.999, 0, 0.5}, 2, 3},
		"bursts of two":          {2, 2 * time.Second, []float64{0.5, 0, 0.999}, 2, 3},
		"bursts of one":          {1, 2 * time.Second, []float64{0.5, 0, 0.999}, 3, 4},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFirewalled(t, test.burst, test.timeout, test.jitter)
			f.rounds(3, 0)
			var udp, icmp tries
			phases := make(map[uint64]int)                         // of the packets of full size
			for packets := 1; packets <= test.burst+1; packets++ { // the last is of full size
				for after := range climbRounds + 3 {
					for range fullSizeRounds {
						f.rounds(1, packets)
						got := f.block(probe.MethodICMP, probe.MethodTCP)
						udp.n++
						if udp.most = max(udp.most, got); got > test.udp {
							t.Fatalf("UDP is blocked after %d packets of a burst: burst %d is answered, want %d at the latest", packets, got, test.udp)
						}
						f.rounds(after, packets)
						got = f.block(probe.MethodTCP)
						icmp.n++
						if icmp.most = max(icmp.most, got); got > test.icmp {
							t.Fatalf("ICMP is blocked %d rounds after UDP, after %d packets of a burst: burst %d is answered, want %d at the latest", after, packets, got, test.icmp)
						}
						f.recovers()
						phases[f.plan.turns["node-2"].rounds%fullSizeRounds]++
					}
				}
			}
			if got := fmt.Sprint(udp.most, icmp.most); got != fmt.Sprint(test.udp, test.icmp) {
				t.Errorf("at the latest bursts %s were answered: want %d and %d, or this test has not met the worst", got, test.udp, test.icmp)
			}
			if len(phases) != fullSizeRounds {
				t.Errorf("methods were blocked in the phases %v of packets of full size: want all", phases)
			}
			if limit := time.Duration(test.icmp) * 11 * f.options.Interval / 10; f.oldest > limit {
				t.Errorf("the newest sample was %v old at times: want at most %d rounds with their jitter, %v", f.oldest, test.icmp, limit)
			}
			t.Logf("the newest sample was %v old at most; UDP blocked %d times: burst %d answered at the latest; ICMP too %d times: burst %d", f.oldest, udp.n, udp.most, icmp.n, icmp.most)
		})
	}
}

// Both at once.
func TestTwoMethodsBlockedAtOnceCostTwoBursts(t *testing.T) {
	f := newFirewalled(t, 4, 2*time.Second, []float64{0.5})
	for packets := range 4 {
		for range fullSizeRounds {
			f.rounds(1, packets+1)
			if got := f.block(probe.MethodTCP); got > 3 {
				t.Errorf("after %d packets of a burst: burst %d is answered, want 3 at the latest", packets, got)
			}
			f.rounds(1, 0)
			f.recovers()
		}
	}
}
