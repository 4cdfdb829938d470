package source

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/common/model"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/netlatency/netlatency/pkg/exposition"
	"github.com/netlatency/netlatency/pkg/latency"
)

const (
	// maxPrometheusPairs bounds the matrix: 50 target nodes in a cluster of
	// 5000.
	maxPrometheusPairs = 250_000
	// assumedCount is the number of samples, and of probes, where nobody says
	// it: enough for every quantile.
	assumedCount = 1000
	// clockSlack is how much newer than the evaluation a sample may be. The
	// time stamps of scrapes are the server's own; those that a prober gives
	// are of a clock that is kept by NTP.
	clockSlack = 2 * time.Second
	// targetsPause is the time between looks for peers while there are none: at
	// the start they are known a moment later.
	targetsPause = time.Second
)

// Prometheus asks a server with the HTTP API of Prometheus, over and over, and
// publishes what it knows as one matrix.
//
// The goroutine of Run owns all state. Readers share what it publishes, the
// matrices and Stats, which do not change any more.
type Prometheus struct {
	options PrometheusOptions
	clock   clock.Clock
	client  *prometheusClient
	queries []query
	peers   bool // a query has PeersVariable
	stats   atomic.Pointer[Stats]

	matrix   *latency.Matrix
	observed map[latency.Pair]latency.Distribution
	failing  bool
	totals   totals
}

// NewPrometheus checks the options and prepares a source; Run starts it. The
// files of TLS must be there and good; that of the token may come later.
func NewPrometheus(options PrometheusOptions) (*Prometheus, error) {
	if err := options.validate(); err != nil {
		return nil, fmt.Errorf("source of Prometheus: %w", err)
	}
	if options.Clock == nil {
		options.Clock = clock.RealClock{}
	}
	client, err := newPrometheusClient(options)
	if err != nil {
		return nil, fmt.Errorf("source of Prometheus: %w", err)
	}
	p := &Prometheus{
		options: options,
		clock:   options.Clock,
		client:  client,
		queries: options.Queries.list(),
		peers:   options.Queries.wantPeers(),
		totals:  newTotals(),
	}
	p.stats.Store(&Stats{})
	return p, nil
}

// Run asks and publishes until ctx ends. It must be called once. It never
// fails: whatever cannot be had is in Stats, and asked for again.
func (p *Prometheus) Run(ctx context.Context) {
	defer p.client.http.CloseIdleConnections()
	for {
		started := p.clock.Now()
		pause := jittered(p.options.Interval)
		if !p.round(ctx, started) {
			pause = min(pause, targetsPause)
		}
		timer := p.clock.NewTimer(max(0, pause-p.clock.Since(started)))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C():
		}
	}
}

// Stats gives the state as of the last round. It may be called from any
// goroutine; the maps must not be changed.
func (p *Prometheus) Stats() Stats { return *p.stats.Load() }

// round asks every query once and publishes, unless ctx ended. It returns
// false when there was nothing to ask for, nor anything left to grow old.
func (p *Prometheus) round(ctx context.Context, started time.Time) bool {
	var peers string
	if p.peers {
		peers = alternatives(p.options.Peers())
	}
	switch {
	case !p.peers || peers != "":
		collected, partial, failure, err := p.ask(ctx, peers)
		if ctx.Err() != nil {
			return true
		}
		p.judge(klog.FromContext(ctx), failure, err)
		p.observe(collected, partial, started, p.clock.Now())
	case p.matrix.Pairs() == 0:
		return false
	default:
		p.observe(nil, true, started, started)
	}
	now := p.clock.Now()
	p.matrix = p.matrix.Next(now, p.observed, p.options.Hysteresis)
	p.stats.Store(p.totals.snapshot(Stats{
		RoundDuration: now.Sub(started),
		Version:       p.matrix.Version(),
		Pairs:         p.matrix.Pairs(),
	}))
	p.options.Publish(p.matrix)
	return true
}

// judge counts a failure, and logs it once, at its begin and end.
func (p *Prometheus) judge(logger klog.Logger, failure Failure, err error) {
	logger = klog.LoggerWithValues(logger, "address", p.options.Address)
	if err == nil {
		p.totals.lastSuccess = p.clock.Now()
	} else {
		p.totals.failures[failure]++
	}
	switch {
	case err != nil && !p.failing:
		logger.Error(err, "Cannot read latencies from Prometheus; the last ones are used until they are stale")
	case err == nil && p.failing:
		logger.Info("Prometheus answers again")
	}
	p.failing = err != nil
}

// ask collects the answers to all queries. partial is whether they may lack
// something, as those do that end with an error.
func (p *Prometheus) ask(ctx context.Context, peers string) (collected samples, partial bool, _ Failure, _ error) {
	ctx, cancel := context.WithTimeout(ctx, p.options.Interval)
	defer cancel()
	collected = make(samples)
	// All at the instant of the first: numbers of two evaluations of a rule can
	// contradict each other.
	var at time.Time
	for i, query := range p.queries {
		vector, warned, failure, err := p.client.instant(ctx, strings.ReplaceAll(query.promQL, PeersVariable, peers), at)
		if err != nil {
			return nil, true, failure, fmt.Errorf("query for %s: %w", query.name, err)
		}
		partial = partial || warned
		if len(vector) > maxPrometheusPairs {
			return nil, true, FailureLimit, fmt.Errorf("query for %s: %d series: at most %d are taken; limit the query to the nodes on which targets run, by {peer=~%q}", query.name, len(vector), maxPrometheusPairs, PeersVariable)
		}
		if i == 0 && len(vector) > 0 {
			at = vector[0].Timestamp.Time()
		}
		p.collect(vector, query, i == 0, collected)
	}
	return collected, partial, "", nil
}

// collect puts the values of one query where they belong. A pair that a first
// query does not have is an orphan in a later one.
func (p *Prometheus) collect(vector model.Vector, query query, first bool, collected samples) {
	node, peer := model.LabelName(p.options.NodeLabel), model.LabelName(p.options.PeerLabel)
	seen := make(map[latency.Pair]bool, len(vector))
	for _, series := range vector {
		pair := latency.Pair{Node: string(series.Metric[node]), Peer: string(series.Metric[peer])}
		switch {
		case series.Histogram != nil, validName("node", pair.Node) != nil, validName("peer", pair.Peer) != nil:
			p.totals.dropped[exposition.Malformed]++
			continue
		case pair.Node == pair.Peer:
			p.totals.dropped[exposition.Self]++
			continue
		case seen[pair]:
			p.totals.dropped[exposition.Duplicate]++
			continue
		}
		seen[pair] = true
		s := collected[pair]
		if s == nil {
			if !first {
				p.totals.dropped[exposition.Orphan]++
				continue
			}
			s = newSample()
			collected[pair] = s
		}
		query.take(s, float64(series.Value), float64(series.Timestamp)/1e3)
	}
}

// observe makes p.observed out of what was collected, when it was asked for at
// the time asked. What was observed before stays until it is stale, unless the
// server has just told all it knows.
func (p *Prometheus) observe(collected samples, partial bool, asked, now time.Time) {
	stale := func(d latency.Distribution) bool { return now.Sub(d.Newest) > p.options.StaleAfter }
	next := make(map[latency.Pair]latency.Distribution, len(collected))
	for pair, s := range collected {
		d, reason := s.distribution(p.options.Scale, asked)
		if reason != "" {
			p.totals.dropped[reason]++
		} else if !stale(d) {
			next[pair] = d
		}
	}
	if partial {
		for pair, d := range p.observed {
			if _, ok := next[pair]; !ok && !stale(d) && len(next) < maxPrometheusPairs {
				next[pair] = d
			}
		}
	}
	p.observed = next
}
