package netlatency

import (
	"context"
	"sync"

	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
	"k8s.io/klog/v2"
)

// outcome is what came of a pod in PreScore.
type outcome int

const (
	outcomeScored     outcome = iota // latency counts
	outcomeNoTargets                 // no rule gives the pod targets
	outcomeNoReplicas                // its targets run nowhere
	outcomeNoData                    // nothing fresh is known
	outcomes
)

var outcomeNames = [outcomes]string{"scored", "no_targets", "no_replicas", "no_data"}

// The registry of the scheduler panics when a metric is registered twice, and
// every profile has a plugin of its own: the metrics are registered once, and
// tell profiles apart by label.
var (
	registering sync.Once

	scorings = metrics.NewCounterVec(&metrics.CounterOpts{
		Name:           "netlatency_scorings_total",
		Help:           "Scheduling cycles by what came of them: scored by latency, or latency left out because no rule gives the pod targets (no_targets), its targets run nowhere (no_replicas) or nothing fresh is known (no_data).",
		StabilityLevel: metrics.ALPHA,
	}, []string{"profile", "outcome"})

	panics = metrics.NewCounterVec(&metrics.CounterOpts{
		Name:           "netlatency_panics_total",
		Help:           "Panics that the plugin recovered from, by where. Latency was left out there. Each is a fault to report.",
		StabilityLevel: metrics.ALPHA,
	}, []string{"profile", "in"})

	states = &stateCollector{plugins: make(map[string]*NetLatency)}
)

// profileMetrics is the counters of one profile.
type profileMetrics struct {
	profile  string
	scorings [outcomes]metrics.CounterMetric
	panics   *metrics.CounterVec
}

func newProfileMetrics(profile string) *profileMetrics {
	registering.Do(func() {
		legacyregistry.MustRegister(scorings, panics)
		legacyregistry.CustomMustRegister(states)
	})
	m := &profileMetrics{profile: profile, panics: panics}
	for i, name := range outcomeNames {
		m.scorings[i] = scorings.WithLabelValues(profile, name)
	}
	return m
}

// publishMetrics adds the state of p to the metrics until ctx ends.
func publishMetrics(ctx context.Context, p *NetLatency) {
	states.mu.Lock()
	defer states.mu.Unlock()
	states.plugins[p.metrics.profile] = p
	context.AfterFunc(ctx, func() {
		states.mu.Lock()
		defer states.mu.Unlock()
		if states.plugins[p.metrics.profile] == p {
			delete(states.plugins, p.metrics.profile)
		}
	})
}

var (
	matrixAge       = desc("netlatency_matrix_age_seconds", "Time since the matrix that the profile uses was built. There is none before the first.")
	matrixPairs     = desc("netlatency_matrix_pairs", "Ordered pairs of nodes with a measurement in the matrix that the profile uses.")
	sourceAgents    = desc("netlatency_source_agents", "Nodes with an agent, of the source agents: all that are known, and those that answered in the last round.", "state")
	sourceFailures  = desc("netlatency_source_failures_total", "Reads of the source that failed, of an agent, a query or the file, by reason.", "source", "reason")
	droppedRows     = desc("netlatency_source_dropped_rows_total", "Rows of answers that were dropped as malformed or absurd, by reason.", "source", "reason")
	discoveryErrors = desc("netlatency_source_discovery_errors_total", "Failed attempts to list or watch the EndpointSlices of the agents, of the source agents.")
	roundDuration   = desc("netlatency_source_round_seconds", "Time that the last round of reads took.", "source")
	lastSuccess     = desc("netlatency_source_last_success_timestamp_seconds", "Unix time at the end of the last round in which the source could be read: an agent answered, every query did, or the file was as it should be. There is none before the first.", "source")
	targetReplicas  = desc("netlatency_target_replicas", "Ready replicas of a target (nodes, for a node target), or the last known ones in its grace period.", "target")
	targetNodes     = desc("netlatency_target_nodes", "Nodes on which a target runs.", "target")
	targetLeftOut   = desc("netlatency_target_nodes_left_out", "Nodes on which targets run that the agents are not told of, because there are more than 500. Of the replica that tells them.")
	targetFailures  = desc("netlatency_target_slices_failures_total", "Failed requests of what tells the agents on which nodes targets run.")
	allDescriptions = []*metrics.Desc{matrixAge, matrixPairs, sourceAgents, sourceFailures, droppedRows, discoveryErrors, roundDuration, lastSuccess, targetReplicas, targetNodes, targetLeftOut, targetFailures}
)

func desc(name, help string, labels ...string) *metrics.Desc {
	return metrics.NewDesc(name, help, append([]string{"profile"}, labels...), nil, metrics.ALPHA, "")
}

// stateCollector reads the state of the plugins when it is asked, so that an
// age is right at the time of the scrape.
type stateCollector struct {
	metrics.BaseStableCollector
	mu      sync.Mutex
	plugins map[string]*NetLatency // by profile
}

var _ metrics.StableCollector = &stateCollector{}

// DescribeWithStability sends what CollectWithStability may send.
func (c *stateCollector) DescribeWithStability(ch chan<- *metrics.Desc) {
	for _, d := range allDescriptions {
		ch <- d
	}
}

// CollectWithStability sends the state of every profile.
func (c *stateCollector) CollectWithStability(ch chan<- metrics.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.plugins {
		p.metrics.guard(klog.NewContext(context.Background(), klog.Background()), "metrics", func(context.Context) { p.collect(ch) })
	}
}

func (p *NetLatency) collect(ch chan<- metrics.Metric) {
	send := func(d *metrics.Desc, kind metrics.ValueType, value float64, labels ...string) {
		ch <- metrics.NewLazyConstMetric(d, kind, value, append([]string{p.metrics.profile}, labels...)...)
	}
	if matrix := p.feed.matrix.Load(); matrix != nil {
		send(matrixAge, metrics.GaugeValue, p.clock.Since(matrix.Taken()).Seconds())
		send(matrixPairs, metrics.GaugeValue, float64(matrix.Pairs()))
	}
	stats := p.feed.source.Stats()
	kind := p.args.Source.Kind()
	if p.args.Source.Agents != nil {
		send(sourceAgents, metrics.GaugeValue, float64(stats.Agents), "known")
		send(sourceAgents, metrics.GaugeValue, float64(stats.Answered), "answered")
		send(discoveryErrors, metrics.CounterValue, float64(stats.DiscoveryErrors))
	}
	send(roundDuration, metrics.GaugeValue, stats.RoundDuration.Seconds(), kind)
	if !stats.LastSuccess.IsZero() {
		send(lastSuccess, metrics.GaugeValue, float64(stats.LastSuccess.UnixNano())/1e9, kind)
	}
	for reason, count := range stats.Failures {
		send(sourceFailures, metrics.CounterValue, float64(count), kind, string(reason))
	}
	for reason, count := range stats.Dropped {
		send(droppedRows, metrics.CounterValue, float64(count), kind, string(reason))
	}
	if p.publisher != nil {
		stats := p.publisher.Stats()
		send(targetLeftOut, metrics.GaugeValue, float64(stats.LeftOut))
		send(targetFailures, metrics.CounterValue, float64(stats.Failures))
	}
	for i, set := range p.targets.Sets() {
		replicas := 0
		for _, replica := range set.Replicas {
			replicas += replica.Count
		}
		send(targetReplicas, metrics.GaugeValue, float64(replicas), p.wants[i].Name)
		send(targetNodes, metrics.GaugeValue, float64(len(set.Replicas)), p.wants[i].Name)
	}
}
