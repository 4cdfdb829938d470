package source

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/netlatency/netlatency/pkg/latency"
)

// AgentsOptions configures Agents. All fields are required unless it is said
// otherwise.
type AgentsOptions struct {
	// Client lists and watches EndpointSlices in Namespace, nothing else.
	Client kubernetes.Interface
	// Namespace and Service name the headless Service of the agents, Port the
	// port of it that serves the matrix.
	Namespace, Service, Port string
	// Interval is the time from the start of one round of reads to that of the
	// next. A round that is not done by then ends with what it has.
	Interval time.Duration
	// Timeout bounds the read of one agent.
	Timeout time.Duration
	// Window is the span of time that agents are asked to give statistics over;
	// 0 asks for their own.
	Window time.Duration
	// StaleAfter is how old a row's newest sample may become before the row
	// leaves the matrix. An agent that does not answer keeps its last rows
	// until then.
	StaleAfter time.Duration
	// Hysteresis is applied from one matrix to the next; the zero value takes
	// every observation as it is.
	Hysteresis latency.Hysteresis
	// Publish takes each new matrix, from the goroutine of Run, which waits for
	// it. The first comes as soon as the first round is done.
	Publish func(*latency.Matrix)
	// Transport carries the reads; nil dials the agents' addresses directly. A
	// program outside of the cluster has another way to them.
	Transport http.RoundTripper
	// Clock is the real clock when nil. It times rounds and ages; timeouts of
	// reads are always real.
	Clock clock.Clock
}

func (o AgentsOptions) validate() error {
	var errs []error
	for name, missing := range map[string]bool{
		"Client": o.Client == nil, "Namespace": o.Namespace == "", "Service": o.Service == "",
		"Port": o.Port == "", "Publish": o.Publish == nil,
	} {
		if missing {
			errs = append(errs, fmt.Errorf("%s is not set", name))
		}
	}
	for name, d := range map[string]time.Duration{"Interval": o.Interval, "Timeout": o.Timeout, "StaleAfter": o.StaleAfter} {
		if d <= 0 {
			errs = append(errs, fmt.Errorf("%s is %v: want more than 0", name, d))
		}
	}
	if o.Window < 0 {
		errs = append(errs, fmt.Errorf("Window is %v: want 0 or more", o.Window))
	}
	return errors.Join(errs...)
}

// Agents reads all probe agents of a cluster, over and over, and publishes
// what they measured as one matrix.
//
// The goroutine of Run owns all state. Readers share what it publishes, the
// matrices and Stats, which do not change any more.
type Agents struct {
	options   AgentsOptions
	clock     clock.Clock
	discovery *discovery
	scraper   *scraper
	stats     atomic.Pointer[Stats]
	told      atomic.Pointer[[]AgentHealth]

	matrix *latency.Matrix
	// health of the agents by node, as of the last round.
	health map[string]health
	totals totals
}

// health is how the reads of one agent went.
type health struct {
	failing  bool
	tried    time.Time // the last attempt
	answered time.Time // the last that succeeded
	err      error     // of the last round
}

// NewAgents checks the options and prepares a source; Run starts it.
func NewAgents(options AgentsOptions) (*Agents, error) {
	if err := options.validate(); err != nil {
		return nil, fmt.Errorf("source of agents: %w", err)
	}
	if options.Clock == nil {
		options.Clock = clock.RealClock{}
	}
	a := &Agents{
		options: options,
		clock:   options.Clock,
		scraper: newScraper(options.Transport, options.Timeout, options.Window, options.Clock),
		health:  make(map[string]health),
		totals:  newTotals(),
	}
	var err error
	a.discovery, err = newDiscovery(options.Client, options.Namespace, options.Service, options.Port, options.Clock)
	if err != nil {
		return nil, fmt.Errorf("source of agents: %w", err)
	}
	a.stats.Store(&Stats{})
	a.told.Store(&[]AgentHealth{})
	return a, nil
}

// Run reads and publishes until ctx ends; all goroutines of the source end
// before it returns. It must be called once. It never fails: whatever cannot
// be read is in Stats, and tried again.
func (a *Agents) Run(ctx context.Context) {
	stop := a.discovery.start(ctx)
	defer stop()
	defer a.scraper.close()

	// The agents may be found a moment from now, or not for hours because the
	// API server refuses: the first of synced and the timer starts a round.
	synced := a.discovery.synced()
	next := a.clock.NewTimer(jittered(a.options.Interval))
	defer func() { next.Stop() }()
	for {
		select {
		case <-ctx.Done():
			return
		case <-synced:
			synced = nil
		case <-next.C():
		}
		started := a.clock.Now()
		next.Stop()
		next = a.clock.NewTimer(jittered(a.options.Interval))
		a.round(ctx, started)
	}
}

// jittered is interval give or take a tenth, so that schedulers that were
// started together do not read together.
func jittered(interval time.Duration) time.Duration {
	return time.Duration(float64(interval) * (0.9 + 0.2*rand.Float64()))
}

// round reads all agents once and publishes, unless ctx ended.
func (a *Agents) round(ctx context.Context, started time.Time) {
	logger := klog.FromContext(ctx)
	agents := a.discovery.agents()
	a.order(agents)

	answers := a.within(ctx, a.options.Interval, func(ctx context.Context) []answer { return a.scraper.scrape(ctx, agents) })
	if ctx.Err() != nil {
		return
	}

	now := a.clock.Now()
	a.judge(logger, answers)
	a.matrix = a.matrix.NextSeq(now, a.observed(answers, now), a.options.Hysteresis)

	answered := 0
	for _, answer := range answers {
		if answer.err == nil {
			answered++
		}
	}
	if answered > 0 {
		a.totals.lastSuccess = now
	}
	a.stats.Store(a.totals.snapshot(Stats{
		Agents:        len(agents),
		Answered:      answered,
		RoundDuration: now.Sub(started),
		Version:       a.matrix.Version(),
		Pairs:         a.matrix.Pairs(),
	}))
	a.tell()
	a.options.Publish(a.matrix)
}

// within calls read with a context that ends after d of a.clock.
func (a *Agents) within(ctx context.Context, d time.Duration, read func(context.Context) []answer) []answer {
	ctx, cancel := context.WithCancel(ctx)
	over := a.clock.NewTimer(d)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-over.C():
			cancel()
		case <-ctx.Done():
		}
	}()
	answers := read(ctx)
	cancel()
	over.Stop()
	<-ended
	return answers
}

// observed is what the answers tell, and what is still good of the matrix of
// the round before where they tell nothing. With values that hysteresis has
// held since they were measured it would hold them on, so that matrix is all
// that must be kept.
func (a *Agents) observed(answers []answer, now time.Time) iter.Seq2[latency.Pair, latency.Distribution] {
	stale := func(d latency.Distribution) bool { return now.Sub(d.Newest) > a.options.StaleAfter }
	// A name comes with every row; kept are the strings of one.
	names := make(nameTable, 2*len(answers))
	known := make(map[string]bool, len(answers)) // nodes with an agent
	for _, answer := range answers {
		known[answer.agent.node] = true
	}
	return func(yield func(latency.Pair, latency.Distribution) bool) {
		told := make(map[string]map[string]bool, len(answers)) // peers by node, of those that answered
		for i := range answers {
			answer := &answers[i]
			if answer.err != nil {
				continue
			}
			node := names.shared(answer.agent.node)
			peers := make(map[string]bool, len(answer.window.Rows))
			for _, row := range answer.window.Rows {
				if stale(row.Distribution) {
					continue
				}
				row.Method = names.shared(row.Method)
				peer := names.shared(row.Peer)
				peers[peer] = true
				if !yield(latency.Pair{Node: node, Peer: peer}, row.Distribution) {
					return
				}
			}
			told[node] = peers
			answer.window.Rows = nil // as much memory as the matrix, all together
		}
		for pair, d := range a.matrix.All() {
			if stale(d) {
				continue
			}
			// An agent that was started anew knows its peers again within a few
			// rounds. Rows about nodes that have no agent are not waited for:
			// otherwise one bad agent could fill the memory with new names.
			if peers, spoke := told[pair.Node]; spoke && (peers[pair.Peer] || !known[pair.Peer]) {
				continue
			}
			if !yield(pair, d) {
				return
			}
		}
	}
}
