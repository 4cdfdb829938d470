package agent

import (
	"cmp"
	"maps"
	"runtime"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	dto "github.com/prometheus/client_model/go"

	"github.com/netlatency/netlatency/pkg/exposition"
	"github.com/netlatency/netlatency/pkg/probe"
)

// outOfBracket is the reason label of answers whose stamps contradict each
// other, beside the probe.Reasons.
const outOfBracket = "out_of_bracket"

// metrics are what the agent shows to Prometheus.
type metrics struct {
	registry *prometheus.Registry
	node     string

	rtt            *prometheus.HistogramVec
	sent, lost     *prometheus.CounterVec
	fullLost       *prometheus.CounterVec
	fullSent       prometheus.Counter
	peers, leftOut prometheus.Gauge

	// shown are the peers that have series; unshown counts the samples of the
	// others. The run loop's own.
	shown   map[string]bool
	unshown prometheus.Counter
}

func newMetrics(node, version string) *metrics {
	pair := []string{exposition.LabelNode, exposition.LabelPeer, exposition.LabelMethod}
	m := &metrics{
		registry: prometheus.NewRegistry(),
		node:     node,
		shown:    make(map[string]bool),
		rtt: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: exposition.RTTSeconds,
			Help: "Round-trip times from node to peer, every valid sample but those of full size. A native histogram, without classic buckets.",
			// Schema 3: a quantile read from it is off by less than 5 %. A pair
			// fills some 35 buckets in a day; 160 is a bound, and the reset
			// keeps one hour's resolution when it is reached.
			NativeHistogramBucketFactor:     1.1,
			NativeHistogramMaxBucketNumber:  160,
			NativeHistogramMinResetDuration: time.Hour,
			// No exemplars are given; a negative number keeps the room for
			// them out of every pair.
			NativeHistogramMaxExemplars: -1,
		}, pair),
		sent:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: exposition.ProbesSentTotal, Help: "Probes sent from node to peer, but those of full size; from the first answer on."}, pair),
		lost:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: exposition.ProbesLostTotal, Help: "Probes from node to peer without an answer in time, whole lost bursts included, but those of full size; from the first loss on."}, pair),
		fullSent: prometheus.NewCounter(prometheus.CounterOpts{Name: exposition.AgentFullSizeProbesSentTotal, Help: "Probes of full size sent, over all peers."}),
		fullLost: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: exposition.FullSizeProbesLostTotal,
			Help: "Probes of full size from node to peer without an answer in time, which are counted nowhere else. Where it grows and the loss of other probes does not, large packets do not pass: look at the MTU of the path.",
		}, pair),
		unshown: prometheus.NewCounter(prometheus.CounterOpts{Name: exposition.AgentUnexportedSamplesTotal, Help: "Samples of peers that have no series here because there would be more than --max-series in the cluster; the matrix has them."}),
		peers:   prometheus.NewGauge(prometheus.GaugeOpts{Name: exposition.AgentPeers, Help: "Peers that are probed."}),
		leftOut: prometheus.NewGauge(prometheus.GaugeOpts{Name: exposition.AgentPeersLeftOut, Help: "Peers that are not probed because there are more than --max-peers."}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        exposition.AgentBuildInfo,
		Help:        "Always 1; the labels say what runs.",
		ConstLabels: prometheus.Labels{exposition.LabelVersion: version, exposition.LabelGoVersion: runtime.Version()},
	})
	build.Set(1)
	m.registry.MustRegister(m.rtt, m.sent, m.lost, m.fullSent, m.fullLost, m.unshown, m.peers, m.leftOut, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// series are what /metrics shows of a pair by one method. Each exists from its
// first event on: nothing is shown of a pair that never answered but its
// losses. Its methods are called one at a time.
type series struct {
	metrics *metrics
	labels  []string // nil of a peer that is not shown
	// sent counts probes that are not shown yet.
	sent           float64
	shown          prometheus.Counter // of probes sent; nil before there is an answer
	rtt            prometheus.Observer
	lost, fullLost prometheus.Counter // nil before there is a loss
}

// share is how many peers an agent may show in a cluster of so many nodes, for
// all agents together to have no more than maxSeries.
func share(maxSeries, nodes int) int { return max(1, maxSeries/2/max(1, nodes)) }

// Show chooses which peers have series, at most limit of them: by names only,
// so that they are the same after a restart. It calls change for each whose
// choice is another than before, with its series of before deleted.
func (m *metrics) Show(peers []peer, limit int, change func(node string)) {
	rank := make(map[string]float64, len(peers))
	for _, p := range peers {
		rank[p.Node] = fraction("series", m.node, p.Node)
	}
	ranked := slices.SortedFunc(maps.Keys(rank), func(a, b string) int { return cmp.Compare(rank[a], rank[b]) })
	before := m.shown
	m.shown = make(map[string]bool)
	for _, node := range ranked[:min(limit, len(ranked))] {
		m.shown[node] = true
	}
	for _, node := range ranked {
		if before[node] == m.shown[node] {
			continue
		}
		if before[node] {
			m.deleteSeries(node)
		}
		change(node)
	}
}

// Series are those of a peer, by each of the methods.
func (m *metrics) Series(peer string, methods []probe.Method) []series {
	all := make([]series, len(methods))
	for i, method := range methods {
		all[i].metrics = m
		if m.shown[peer] {
			all[i].labels = []string{m.node, peer, string(method)}
		}
	}
	return all
}

// Sent counts a probe.
func (s *series) Sent(full bool) {
	if full {
		s.metrics.fullSent.Inc()
		return
	}
	if s.shown == nil {
		s.sent++
		return
	}
	s.shown.Inc()
}

// Lost counts a probe that was not answered.
func (s *series) Lost(full bool) {
	if s.labels == nil {
		return
	}
	counter, of := &s.lost, s.metrics.lost
	if full {
		counter, of = &s.fullLost, s.metrics.fullLost
	}
	if *counter == nil {
		*counter = of.WithLabelValues(s.labels...)
	}
	(*counter).Inc()
}

// Answered records the round trip of a probe.
func (s *series) Answered(rtt time.Duration) {
	if s.labels == nil {
		s.metrics.unshown.Inc()
		return
	}
	if s.shown == nil {
		s.shown = s.metrics.sent.WithLabelValues(s.labels...)
		s.shown.Add(s.sent)
		s.rtt = s.metrics.rtt.WithLabelValues(s.labels...)
	}
	s.rtt.Observe(rtt.Seconds())
}

// Forget deletes the series of a peer that is gone.
func (m *metrics) Forget(peer string) {
	delete(m.shown, peer)
	m.deleteSeries(peer)
}

func (m *metrics) deleteSeries(peer string) {
	labels := prometheus.Labels{exposition.LabelPeer: peer}
	m.rtt.DeletePartialMatch(labels)
	m.sent.DeletePartialMatch(labels)
	m.lost.DeletePartialMatch(labels)
	m.fullLost.DeletePartialMatch(labels)
}

// engineCollector shows what the engine, the plan and the sample stream count
// themselves.
type engineCollector struct {
	engines             func() []probe.Counters
	reflector           func() probe.ReflectorCounters
	probedBy            func() int
	methods             []probe.Method
	pairs               func() map[probe.Method]int
	capped, undelivered func() uint64
}

var (
	pairsDesc    = prometheus.NewDesc(exposition.AgentPairs, "Peers that have answered, by the method of their newest answer.", []string{exposition.LabelMethod}, nil)
	probedByDesc = prometheus.NewDesc(exposition.AgentProbedBy, "Addresses whose probes came here in the last three intervals. Far fewer than others have peers: this node is hardly measured.", nil, nil)
	samplesDesc  = prometheus.NewDesc(exposition.AgentSamplesTotal, "Valid samples by whose time stamps they rest on: kernel when all are the kernels' own, user when one is not.", []string{exposition.LabelStamps}, nil)
	reorderDesc  = prometheus.NewDesc(exposition.AgentReorderedSamplesTotal, "Valid samples whose answer came after that to a later probe of the same peer (RFC 4737). They count like any other.", nil, nil)
	invalidDesc  = prometheus.NewDesc(exposition.AgentInvalidPacketsTotal, "Packets that were received and did not become a sample, by reason: malformed, size, source, session, unsent, duplicate, late, unwanted, or out_of_bracket, for stamps that contradict each other.", []string{exposition.LabelReason}, nil)
	repliesDesc  = prometheus.NewDesc(exposition.AgentReflectorRepliesTotal, "Probes of others that were answered.", nil, nil)
	refusalDesc  = prometheus.NewDesc(exposition.AgentReflectorRefusalsTotal, "Probes of others that were not answered, by reason: source_limit, total_limit, send_failed.", []string{exposition.LabelReason}, nil)
	sendErrDesc  = prometheus.NewDesc(exposition.AgentSendErrorsTotal, "Probes that the kernel refused to send.", nil, nil)
	cappedDesc   = prometheus.NewDesc(exposition.AgentProbesCappedTotal, "Probes that were delayed by --packets-per-second.", nil, nil)
	droppedDesc  = prometheus.NewDesc(exposition.AgentStreamDroppedTotal, "Samples that a reader of /samples was too slow for.", nil, nil)
)

// Describe implements prometheus.Collector.
func (c engineCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{pairsDesc, probedByDesc, samplesDesc, reorderDesc, invalidDesc, repliesDesc, refusalDesc, sendErrDesc, cappedDesc, droppedDesc} {
		ch <- desc
	}
}

// Collect implements prometheus.Collector.
func (c engineCollector) Collect(ch chan<- prometheus.Metric) {
	counter := func(desc *prometheus.Desc, value uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(value), labels...)
	}
	pairs := c.pairs()
	for _, method := range c.methods {
		ch <- prometheus.MustNewConstMetric(pairsDesc, prometheus.GaugeValue, float64(pairs[method]), string(method))
	}
	ch <- prometheus.MustNewConstMetric(probedByDesc, prometheus.GaugeValue, float64(c.probedBy()))
	var kernel, user, reordered, bracket, failed uint64
	ignored := make(map[probe.Reason]uint64)
	for _, engine := range c.engines() {
		kernel += engine.KernelSamples
		user += engine.UserSamples
		reordered += engine.Reordered
		bracket += engine.OutOfBracket
		failed += engine.SendFailed
		for reason, n := range engine.Ignored {
			ignored[reason] += n
		}
	}
	reflector := c.reflector()
	counter(samplesDesc, kernel, string(probe.Kernel))
	counter(samplesDesc, user, string(probe.User))
	counter(reorderDesc, reordered)
	for reason, n := range ignored {
		counter(invalidDesc, n, string(reason))
	}
	counter(invalidDesc, bracket, outOfBracket)
	counter(sendErrDesc, failed)
	counter(repliesDesc, reflector.Replies)
	for reason, n := range reflector.Refused {
		counter(refusalDesc, n, string(reason))
	}
	counter(cappedDesc, c.capped())
	counter(droppedDesc, c.undelivered())
}

// Reference gathers a series of every metric, of an agent that does not exist,
// for the documentation.
func Reference() ([]*dto.MetricFamily, error) {
	m := newMetrics("", "")
	one := []string{"", "", ""}
	m.rtt.WithLabelValues(one...)
	m.sent.WithLabelValues(one...)
	m.lost.WithLabelValues(one...)
	m.fullLost.WithLabelValues(one...)
	none := func() uint64 { return 0 }
	m.registry.MustRegister(engineCollector{
		engines: func() []probe.Counters { return nil },
		reflector: func() probe.ReflectorCounters {
			return probe.ReflectorCounters{Refused: map[probe.Reason]uint64{"": 0}}
		},
		probedBy: func() int { return 0 },
		methods:  []probe.Method{probe.MethodUDP},
		pairs:    func() map[probe.Method]int { return nil },
		capped:   none, undelivered: none,
	})
	return m.registry.Gather()
}
