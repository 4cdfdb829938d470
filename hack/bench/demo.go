package main

import (
	"fmt"

	"github.com/netlatency/netlatency/test/sandbox/trial"
)

// The sandbox's measure is the WAN's log: agents may be off it by this, in
// milliseconds.
const (
	rttErrorP50 = 0.03
	rttErrorP99 = 0.1
)

// comparison is a quantity of the mode netlatency, in each phase of the demo,
// beside that of another mode.
type comparison struct {
	quantity, unit string
	of             func(*trial.Mode) float64
	better         direction
	with           string // mode
	// targets are shares of the baseline, by phase.
	targets map[string]float64
}

var comparisons = []comparison{
	{"search_net_p99", "ms", searchNetP99, lower, trial.ModeDefault, map[string]float64{trial.PhaseSteady: 0.6}},
	// To pin by hand is best until the network changes, and bad afterwards.
	{"search_net_p99", "ms", searchNetP99, lower, trial.ModePinned, map[string]float64{trial.PhaseSteady: 1.05, trial.PhaseDrift: 0.7}},
	{"search_p99", "ms", func(m *trial.Mode) float64 { return m.SearchP99 }, lower, trial.ModeDefault, map[string]float64{trial.PhaseSteady: 0.6}},
	{"bound_per_second", "pods/s", func(m *trial.Mode) float64 { return float64(m.Bound) / m.SecondsToBound }, higher, trial.ModeDefault, nil},
}

func searchNetP99(m *trial.Mode) float64 { return m.SearchNetP99 }

// costTargets are what a worker's true mean cost may be, as a multiple of the
// optimum under capacity, by phase.
var costTargets = map[string]float64{trial.PhaseSteady: 1.05, trial.PhaseDrift: 1.10}

var modeNames = map[string]string{
	trial.ModeDefault: "default scheduler",
	trial.ModePinned:  "default scheduler, pinned by hand to the provider that was best at the start",
}

// addDemo adds what the demo found.
func (r results) addDemo(report *trial.Report) error {
	for _, phase := range []string{trial.PhaseSteady, trial.PhaseDrift} {
		p := report.Phase(phase)
		if p == nil {
			return fmt.Errorf("no phase %q: run the demo again", phase)
		}
		ours := p.Modes[trial.ModeNetLatency]
		if ours == nil {
			return fmt.Errorf("phase %q has no mode %q: run the demo again", phase, trial.ModeNetLatency)
		}
		for _, c := range comparisons {
			theirs := p.Modes[c.with]
			if theirs == nil {
				return fmt.Errorf("phase %q has no mode %q: run the demo again", phase, c.with)
			}
			m := result{Value: c.of(ours), Unit: c.unit, Baseline: c.of(theirs), BaselineName: modeNames[c.with], Better: c.better}
			if share, ok := c.targets[phase]; ok {
				m.Target = new(share * m.Baseline)
			}
			if err := r.add(fmt.Sprintf("%s/%s/vs_%s", c.quantity, phase, c.with), m); err != nil {
				return err
			}
		}
		if err := r.add(fmt.Sprintf("cost/%s/vs_best", phase), result{
			Value: ours.CostVsBest, Unit: "ratio", Baseline: 1, BaselineName: "optimum under capacity",
			Target: new(costTargets[phase]), Better: lower,
		}); err != nil {
			return err
		}
	}
	for _, e := range []struct {
		quantile      string
		value, target float64
	}{{"p50", report.RTTErrorP50, rttErrorP50}, {"p99", report.RTTErrorP99, rttErrorP99}} {
		if err := r.add(fmt.Sprintf("rtt_error_%s/sandbox/vs_wan_log", e.quantile), result{
			Value: e.value, Unit: "ms", Baseline: 0, BaselineName: "the WAN's log of the same packets",
			Target: &e.target, Better: lower,
		}); err != nil {
			return err
		}
	}
	return nil
}
