package agent

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	configv1 "github.com/netlatency/netlatency/apis/config/v1"
	"github.com/netlatency/netlatency/pkg/latency"
)

// While a network stands still, so does what placements rest on: an hour of the
// jitter that the sandbox's links have, through an agent's windows and the
// scheduler's hysteresis, both with their defaults. The seeds are fixed, so
// this is a count and not a chance.
func TestValuesStandStillWhileTheNetworkDoes(t *testing.T) {
	exponential := func(r *rand.Rand) float64 { return r.ExpFloat64() }
	links := map[string]struct {
		rtt, jitter time.Duration
		draw        func(*rand.Rand) float64 // of mean 1
	}{
		"within a provider":  {200 * us, 20 * us, exponential},
		"to a near provider": {500 * us, 50 * us, exponential},
		"to a middle one":    {2500 * us, 200 * us, exponential},
		"to a far one":       {8 * ms, 500 * us, func(r *rand.Rand) float64 { return math.Abs(r.NormFloat64()) * math.Sqrt(math.Pi/2) }},
		"of a heavy tail":    {2 * ms, 200 * us, func(r *rand.Rand) float64 { return 2 * (math.Pow(1-r.Float64(), -1./3) - 1) }},
	}
	for name, link := range links {
		t.Run(name, func(t *testing.T) {
			for pair := range 40 {
				if moves := movesInAnHour(rand.New(rand.NewPCG(uint64(pair), 7)), func(r *rand.Rand) time.Duration {
					return link.rtt + time.Duration(link.draw(r)*float64(link.jitter))
				}, 0); len(moves) > 0 {
					t.Errorf("pair %d moved: %v", pair, moves)
				}
			}
		})
	}
}

// At a loss of 0.1 %, which healthy paths have, the loss term moves no node out
// of the band within which nodes are equally near.
func TestOrdinaryLossMovesNothing(t *testing.T) {
	for pair := range 200 {
		moves := movesInAnHour(rand.New(rand.NewPCG(uint64(pair), 8)), func(r *rand.Rand) time.Duration {
			return 500*us + time.Duration(r.ExpFloat64()*float64(50*us))
		}, 0.001)
		for _, m := range moves {
			// A first impression, of losses among few probes, may be corrected
			// by less than the band.
			if (m.to - m.from).Abs() > defaults().Band.Floor.Duration {
				t.Errorf("pair %d moved: %v", pair, m)
			}
		}
	}
}

// move is a change of a pair's latency.
type move struct {
	from, to   time.Duration
	after      time.Duration
	lost, sent int
}

func (m move) String() string {
	return fmt.Sprintf("%v to %v after %v, %d of %d lost", m.from, m.to, m.after, m.lost, m.sent)
}

func defaults() *configv1.NetLatencyArgs {
	var args configv1.NetLatencyArgs
	configv1.SetDefaults_NetLatencyArgs(&args)
	return &args
}

// movesInAnHour are the changes of a pair's latency as the scheduler sees it,
// in an hour that begins when the windows are full.
func movesInAnHour(random *rand.Rand, rtt func(*rand.Rand) time.Duration, loss float64) (moves []move) {
	o := DefaultOptions()
	args := defaults()
	statistic := latency.DefaultStatistic()
	hysteresis := latency.Hysteresis{Ratio: *args.Hysteresis.Ratio, Floor: args.Hysteresis.Floor.Duration, Statistic: statistic}
	w := newWindow(windowSpans{samples: o.Window, losses: o.LossWindow, interval: o.Interval, burst: o.Burst}, start)
	pair := latency.Pair{Node: "node", Peer: "peer"}

	var matrix *latency.Matrix
	held := time.Duration(0)
	filled := start.Add(o.LossWindow)
	for now, round := start, uint64(1); now.Before(filled.Add(time.Hour)); now, round = now.Add(o.Interval), round+1 {
		for i := range o.Burst {
			sent := now.Add(time.Duration(i) * o.Spacing)
			if random.Float64() < loss {
				w.Lost(round, sent)
			} else {
				w.Answered(round, sent, rtt(random))
			}
		}
		at := now.Add(o.Interval / 2)
		matrix = matrix.Next(at, map[latency.Pair]latency.Distribution{pair: w.Statistics(at, 0)}, hysteresis)
		d, _ := matrix.Measured(pair.Node, pair.Peer)
		value := statistic.Latency(d)
		if value != held && now.After(filled) {
			moves = append(moves, move{held, value, now.Sub(start), d.Lost, d.Sent})
		}
		held = value
	}
	return moves
}
