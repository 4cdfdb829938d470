package trial

import (
	"context"
	"fmt"
	"time"

	"github.com/netlatency/netlatency/test/sandbox"
	"github.com/netlatency/netlatency/test/sandbox/application"
	"github.com/netlatency/netlatency/test/sandbox/cluster"
)

// Options of a trial.
type Options struct {
	// Searches per mode and Clients at once; 0 is 1000 and 8.
	Searches, Clients int
	// Progress is told what happens.
	Progress Progress
	// BeforeBurst, if there is one, is called before a RayService of netlatency's
	// is scaled up by so many workers.
	BeforeBurst func(ctx context.Context, service *cluster.RayService, workers int) error
}

// Progress is told what a trial does, for a person who waits.
type Progress interface {
	// Step says that something was reached, or what begins now.
	Step(format string, args ...any)
	// Status says how far something is that takes a while; the next Status or
	// Step replaces it.
	Status(format string, args ...any)
}

// schedulerReplicas is what the chart asks for.
const schedulerReplicas = 2

// trial is a run in progress. One goroutine owns it.
type trial struct {
	*sandbox.Sandbox
	options  Options
	report   *Report
	recorder *recorder
	replicas map[string][]application.Replica
	pinnedTo []string // nodes
	session  uint64   // of the next search
}

// Run plays the scenario in a sandbox that has just been started and reports
// what it found. The seconds of the report are left to the caller, except
// Start, for what Run itself waited before the first phase, and Measure.
func Run(ctx context.Context, s *sandbox.Sandbox, options Options) (*Report, error) {
	if options.Searches == 0 {
		options.Searches = 1000
	}
	if options.Clients == 0 {
		options.Clients = 8
	}
	n := len(s.Nodes)
	t := &trial{
		Sandbox: s,
		options: options,
		report:  &Report{Scenario: s.Scenario.Name, Nodes: n, Pairs: n * (n - 1)},
		session: 1,
	}
	started := time.Now()
	if err := t.prepare(ctx); err != nil {
		return nil, err
	}
	t.report.Seconds.Start = time.Since(started).Seconds()

	measuring := time.Now()
	streaming, cancel := context.WithCancel(ctx)
	defer cancel()
	t.recorder = newRecorder(streaming, s)
	if err := t.phase(ctx, PhaseSteady); err != nil {
		return nil, fmt.Errorf("phase %s: %w", PhaseSteady, err)
	}
	if len(s.Scenario.Events) > 0 {
		if err := t.drift(ctx); err != nil {
			return nil, err
		}
		if err := t.phase(ctx, PhaseDrift); err != nil {
			return nil, fmt.Errorf("phase %s: %w", PhaseDrift, err)
		}
	}
	cancel()
	if err := t.recorder.errors(ctx, t.report); err != nil {
		return nil, err
	}
	t.report.Seconds.Measure = time.Since(measuring).Seconds()
	return t.report, nil
}

// prepare installs everything and waits until every pair is measured and the
// schedulers know it.
func (t *trial) prepare(ctx context.Context) error {
	t.options.Progress.Step("Installing the chart, Qdrant and the GPU service")
	if err := t.InstallChart(ctx, t.Values()); err != nil {
		return fmt.Errorf("install the chart: %w", err)
	}
	qdrantNodes, err := t.StartQdrant(ctx)
	if err != nil {
		return err
	}
	if t.replicas, err = t.StartApplications(qdrantNodes); err != nil {
		return err
	}
	if err := t.Cluster.CreateNamespace(ctx, sandbox.WorkerNamespace, nil); err != nil {
		return err
	}
	if err := t.measured(ctx); err != nil {
		return err
	}
	t.options.Progress.Status("waiting for the schedulers to read the agents")
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return t.SchedulersKnow(ctx, schedulerReplicas, t.report.PairsFresh)
}

// measured waits until every pair of nodes is fresh. Some pairs may never be
// (a scenario can begin with links that lose everything): it gives up waiting
// after a minute and says so.
func (t *trial) measured(ctx context.Context) error {
	deadline := time.Now().Add(time.Minute)
	for {
		ready, err := t.AgentsReady(ctx)
		if err != nil {
			return fmt.Errorf("list the agents: %w", err)
		}
		t.report.AgentsReady, t.report.PairsFresh = ready, t.FreshPairs(ctx)
		if ready == t.report.Nodes && t.report.PairsFresh == t.report.Pairs {
			t.options.Progress.Step("%d agents are ready, all %d pairs of nodes are measured", ready, t.report.Pairs)
			return nil
		}
		if time.Now().After(deadline) {
			if t.report.PairsFresh == 0 {
				return fmt.Errorf("no pair of nodes was measured within a minute: %d of %d agents are ready", ready, t.report.Nodes)
			}
			t.options.Progress.Step("%d of %d agents are ready, %d of %d pairs are measured; going on without the rest", ready, t.report.Nodes, t.report.PairsFresh, t.report.Pairs)
			return nil
		}
		t.options.Progress.Status("%d of %d agents ready, %d of %d pairs measured", ready, t.report.Nodes, t.report.PairsFresh, t.report.Pairs)
		if err := sleep(ctx, 500*time.Millisecond); err != nil {
			return err
		}
	}
}

// drift plays the scenario's events and waits until the agents' window holds
// nothing from before the last of them.
func (t *trial) drift(ctx context.Context) error {
	t.options.Progress.Step("The network changes: %d event(s) of the scenario", len(t.Scenario.Events))
	began := time.Now()
	for i, e := range t.Scenario.Events {
		if err := sleep(ctx, time.Until(began.Add(e.At.Duration))); err != nil {
			return err
		}
		if err := t.Apply(ctx, e); err != nil {
			return fmt.Errorf("events[%d]: %w", i, err)
		}
	}
	// The last burst before the change must leave the window, and what follows
	// must reach the schedulers.
	probe := t.Scenario.Probe
	turned := time.Now().Add(probe.Window.Duration + probe.Interval.Duration + 2*sandbox.SourceInterval)
	for left := time.Until(turned); left > 0; left = time.Until(turned) {
		t.options.Progress.Status("waiting until the agents' window of %v has turned over: %.0f s left", probe.Window.Duration, left.Seconds())
		if err := sleep(ctx, min(left, time.Second)); err != nil {
			return err
		}
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
