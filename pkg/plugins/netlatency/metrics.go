package netlatency

import (
	"context"
	"maps"
	"slices"
	"sync"

	dto "github.com/prometheus/client_model/go"
	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
	"k8s.io/klog/v2"

	"github.com/netlatency/netlatency/pkg/latency"
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
		Help:           "Scheduling cycles by what came of them in PreScore: scored by latency, or latency left out because no rule gives the pod targets (no_targets), its targets run nowhere (no_replicas) or nothing fresh is known (no_data). Cycles with one feasible node do not come that far.",
		StabilityLevel: metrics.ALPHA,
	}, []string{"profile", "outcome"})

	panics = metrics.NewCounterVec(&metrics.CounterOpts{
		Name:           "netlatency_panics_total",
		Help:           "Panics that the plugin recovered from, by where. Latency was left out there. Each is a fault to report.",
		StabilityLevel: metrics.ALPHA,
	}, []string{"profile", "in"})

	activations = metrics.NewCounterVec(&metrics.CounterOpts{
		Name:           "netlatency_activations_total",
		Help:           "Pods that had waited for a node within the limits of their targets and were tried again because one may have come.",
		StabilityLevel: metrics.ALPHA,
	}, []string{"profile"})

	placements = metrics.NewCounterVec(&metrics.CounterOpts{
		Name:           "netlatency_placements_total",
		Help:           "Pods with targets by what the cost of their node rests on, the weakest of its targets' (unknown, group, reverse, measured, local), and by what kept them from the nearest node: a plugin that refuses it, scores, unknown (of pods with resource claims or volumes), or nothing where they are as near.",
		StabilityLevel: metrics.ALPHA,
	}, []string{"profile", "basis", "kept_by"})

	placementCosts = metrics.NewHistogramVec(&metrics.HistogramOpts{
		Name:           "netlatency_placement_cost_seconds",
		Help:           "Expected latency of pods to their targets, on the nodes that they were placed on.",
		Buckets:        placementBuckets,
		StabilityLevel: metrics.ALPHA,
	}, []string{"profile"})

	placementExcess = metrics.NewHistogramVec(&metrics.HistogramOpts{
		Name:           "netlatency_placement_excess_seconds",
		Help:           "By how much that is more than on the nearest node of all. Pods that could not go there however free it were, for a taint or by their own selector, are left out.",
		Buckets:        placementBuckets,
		StabilityLevel: metrics.ALPHA,
	}, []string{"profile"})

	// From within a rack to across an ocean.
	placementBuckets = []float64{0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25}

	states = &stateCollector{plugins: make(map[string]*NetLatency)}
)

// profileMetrics is the counters of one profile.
type profileMetrics struct {
	profile     string
	scorings    [outcomes]metrics.CounterMetric
	activations metrics.CounterMetric
	placements  *metrics.CounterVec
	cost        metrics.ObserverMetric
	excess      metrics.ObserverMetric
	panics      *metrics.CounterVec
}

func newProfileMetrics(profile string) *profileMetrics {
	registering.Do(func() {
		register(legacyregistry.MustRegister, legacyregistry.CustomMustRegister, states)
	})
	m := &profileMetrics{
		profile: profile, activations: activations.WithLabelValues(profile), panics: panics,
		placements: placements, cost: placementCosts.WithLabelValues(profile), excess: placementExcess.WithLabelValues(profile),
	}
	for i, name := range outcomeNames {
		m.scorings[i] = scorings.WithLabelValues(profile, name)
	}
	return m
}

// register registers all metrics of the plugin, with what collects its state.
func register(all func(...metrics.Registerable), custom func(...metrics.StableCollector), state metrics.StableCollector) {
	all(scorings, activations, placements, placementCosts, placementExcess, panics)
	custom(state)
}

// Reference gathers a series of every metric, of a profile that does not
// exist, for the documentation.
func Reference() ([]*dto.MetricFamily, error) {
	registry := metrics.NewKubeRegistry()
	register(registry.MustRegister, registry.CustomMustRegister, &referenceCollector{})
	scorings.WithLabelValues("", "")
	activations.WithLabelValues("")
	placements.WithLabelValues("", "", "")
	placementCosts.WithLabelValues("")
	placementExcess.WithLabelValues("")
	panics.WithLabelValues("", "")
	return registry.Gather()
}

// referenceCollector sends one series of each description.
type referenceCollector struct {
	metrics.BaseStableCollector
}

func (*referenceCollector) DescribeWithStability(ch chan<- *metrics.Desc) {
	states.DescribeWithStability(ch)
}

func (*referenceCollector) CollectWithStability(ch chan<- metrics.Metric) {
	for _, d := range allDescriptions {
		ch <- d.metric(0, make([]string, d.labels)...)
	}
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
	matrixAge       = gauge("netlatency_matrix_age_seconds", "Time since the newest round trip that the profile knows of was measured. There is none while it knows of no fresh one.", "profile")
	matrixPairs     = gauge("netlatency_matrix_pairs", "Ordered pairs of nodes with a measurement in the matrix that the profile uses.", "profile")
	sourceAgents    = gauge("netlatency_source_agents", "Nodes with an agent, of the source agents: all that are ready (known), and those that answered in the last round.", "profile", "state")
	sourceFailures  = counter("netlatency_source_failures_total", "Reads of the source that failed, of an agent, a query or the file, by reason: port (the Service has none of that name), connect, timeout, status, query (the server refuses it), limit (too large), decode, identity (the agent speaks for another node), read (the file).", "profile", "source", "reason")
	droppedRows     = counter("netlatency_source_dropped_rows_total", "Rows of answers that were dropped, by reason: malformed, impossible, duplicate, self, future, orphan.", "profile", "source", "reason")
	discoveryErrors = counter("netlatency_source_discovery_errors_total", "Failed attempts to list or watch the EndpointSlices of the agents, of the source agents.", "profile")
	roundDuration   = gauge("netlatency_source_round_seconds", "Time that the last round of reads took.", "profile", "source")
	lastSuccess     = gauge("netlatency_source_last_success_timestamp_seconds", "Unix time at the end of the last round in which the source could be read: an agent answered, every query did, or the file was as it should be. There is none before the first.", "profile", "source")
	targetReplicas  = gauge("netlatency_target_replicas", "Replicas of a target that count: ready ones (nodes, for a node target), others too where its Service publishes them; in its minute of grace the last ones.", "profile", "target")
	targetNodes     = gauge("netlatency_target_nodes", "Nodes on which a target runs.", "profile", "target")
	targetCoverage  = gauge("netlatency_target_coverage_nodes", "Nodes by what their latency to a target rests on: unknown, group, reverse, measured or local.", "profile", "target", "basis")
	targetsKept     = gauge("netlatency_targets", "Targets that are kept current, also of pods' own annotations; empty is those of them that run nowhere.", "profile", "state")
	targetLeftOut   = gauge("netlatency_target_nodes_left_out", "Nodes on which targets run that the agents are not told of, because there are more than 500. Of the replica that tells them; 0 of the others.", "profile")
	targetFailures  = counter("netlatency_target_slices_failures_total", "Failed requests of what tells the agents on which nodes targets run, those for its Lease among them.", "profile")
	staleAfter      = gauge("netlatency_stale_after_seconds", "The age beyond which a pair is no longer measured, as configured.", "profile")

	// About nodes, and the same for all profiles: a series for each node and
	// profile would be too many.
	nodeInfo       = gauge("netlatency_node_info", "Always 1, of every node; the labels say how the scheduler groups it. With this the agents' metrics can be added up over providers. Of profiles that group otherwise the first by name says.", "node", "provider", "region", "zone")
	targetNodeInfo = gauge("netlatency_target_node_info", "Always 1, of nodes on which a target of any profile runs, or one that a pod's own annotation describes. With this what is recorded of the agents' metrics can be kept to the pairs that are asked for.", "node")

	allDescriptions = []description{
		matrixAge, matrixPairs, sourceAgents, sourceFailures, droppedRows, discoveryErrors, roundDuration, lastSuccess,
		targetReplicas, targetNodes, targetCoverage, targetsKept, targetLeftOut, targetFailures, staleAfter, nodeInfo, targetNodeInfo,
	}
)

// description is a metric that is made when it is asked for.
type description struct {
	*metrics.Desc
	kind   metrics.ValueType
	labels int
}

func gauge(name, help string, labels ...string) description {
	return description{metrics.NewDesc(name, help, labels, nil, metrics.ALPHA, ""), metrics.GaugeValue, len(labels)}
}

func counter(name, help string, labels ...string) description {
	return description{metrics.NewDesc(name, help, labels, nil, metrics.ALPHA, ""), metrics.CounterValue, len(labels)}
}

func (d description) metric(value float64, labels ...string) metrics.Metric {
	return metrics.NewLazyConstMetric(d.Desc, d.kind, value, labels...)
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
		ch <- d.Desc
	}
}

// CollectWithStability sends the state of every profile.
func (c *stateCollector) CollectWithStability(ch chan<- metrics.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	groups, targets := make(map[string]latency.NodeGroup), make(map[string]bool)
	// In an order: of a node that profiles group differently one group is told,
	// always the same.
	for _, profile := range slices.Sorted(maps.Keys(c.plugins)) {
		p := c.plugins[profile]
		p.metrics.guard(klog.NewContext(context.Background(), klog.Background()), "metrics", func(context.Context) {
			p.collect(ch)
			p.collectNodes(groups, targets)
		})
	}
	for node, group := range groups {
		ch <- nodeInfo.metric(1, node, group.Provider, group.Region, group.Zone)
	}
	for node := range targets {
		ch <- targetNodeInfo.metric(1, node)
	}
}

// collectNodes adds the nodes that p knows, and those on which targets run.
func (p *NetLatency) collectNodes(groups map[string]latency.NodeGroup, targets map[string]bool) {
	for _, node := range p.targets.Nodes() {
		targets[node] = true
	}
	view := p.view.Load()
	if view == nil {
		return
	}
	for i := range view.nodes.Len() {
		node := view.nodes.Name(i)
		if _, told := groups[node]; !told {
			groups[node] = view.groups[node]
		}
	}
}

func (p *NetLatency) collect(ch chan<- metrics.Metric) {
	send := func(d description, value float64, labels ...string) {
		ch <- d.metric(value, append([]string{p.metrics.profile}, labels...)...)
	}
	if matrix := p.feed.matrix.Load(); matrix != nil {
		if newest := matrix.Newest(); !newest.IsZero() {
			send(matrixAge, p.clock.Since(newest).Seconds())
		}
		send(matrixPairs, float64(matrix.Pairs()))
	}
	stats := p.feed.source.Stats()
	kind := p.args.Source.Kind()
	send(staleAfter, p.args.StaleAfter.Seconds())
	if p.args.Source.Agents != nil {
		send(sourceAgents, float64(stats.Agents), "known")
		send(sourceAgents, float64(stats.Answered), "answered")
		send(discoveryErrors, float64(stats.DiscoveryErrors))
	}
	send(roundDuration, stats.RoundDuration.Seconds(), kind)
	if !stats.LastSuccess.IsZero() {
		send(lastSuccess, float64(stats.LastSuccess.UnixNano())/1e9, kind)
	}
	for reason, count := range stats.Failures {
		send(sourceFailures, float64(count), kind, string(reason))
	}
	for reason, count := range stats.Dropped {
		send(droppedRows, float64(count), kind, string(reason))
	}
	if p.publisher != nil {
		stats := p.publisher.Stats()
		send(targetLeftOut, float64(stats.LeftOut))
		send(targetFailures, float64(stats.Failures))
	}
	for i, set := range p.targets.Sets() {
		if p.targets.Configured(i) == nil {
			continue // it runs elsewhere for each pod
		}
		name, replicas := p.args.Targets[i].Name, 0
		for _, replica := range set.Replicas {
			replicas += replica.Count
		}
		send(targetReplicas, float64(replicas), name)
		send(targetNodes, float64(len(set.Replicas)), name)
	}
	kept, empty := p.targets.Census()
	send(targetsKept, float64(kept), "kept")
	send(targetsKept, float64(empty), "empty")
	if view := p.view.Load(); view != nil {
		for name, latencies := range view.coverage(p.rules) {
			for basis := latency.Unknown; basis <= latency.Local; basis++ {
				send(targetCoverage, float64(latencies.ByBasis(basis)), name, basis.String())
			}
		}
	}
}
