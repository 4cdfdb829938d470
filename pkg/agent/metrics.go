package agent

import (
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/netlatency/netlatency/pkg/exposition"
	"github.com/netlatency/netlatency/pkg/probe"
)

// methodUDP is the method label of probes of package probe.
const methodUDP = "udp"

// outOfBracket is the reason label of answers whose stamps contradict each
// other, beside the probe.Reasons.
const outOfBracket = "out_of_bracket"

// metrics are what the agent shows to Prometheus.
type metrics struct {
	registry *prometheus.Registry
	node     string

	rtt            *prometheus.HistogramVec
	sent, lost     *prometheus.CounterVec
	peers, leftOut prometheus.Gauge
}

func newMetrics(node, version string) *metrics {
	pair := []string{exposition.LabelNode, exposition.LabelPeer, exposition.LabelMethod}
	m := &metrics{
		registry: prometheus.NewRegistry(),
		node:     node,
		rtt: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: exposition.RTTSeconds,
			Help: "Round-trip times from node to peer, every valid sample.",
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
		sent:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: exposition.ProbesSentTotal, Help: "Probes sent from node to peer."}, pair),
		lost:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: exposition.ProbesLostTotal, Help: "Probes from node to peer without an answer in time."}, pair),
		peers:   prometheus.NewGauge(prometheus.GaugeOpts{Name: exposition.AgentPeers, Help: "Peers that are probed."}),
		leftOut: prometheus.NewGauge(prometheus.GaugeOpts{Name: exposition.AgentPeersLeftOut, Help: "Peers that are not probed because there are more than --max-peers."}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        exposition.AgentBuildInfo,
		Help:        "Always 1; the labels say what is running.",
		ConstLabels: prometheus.Labels{exposition.LabelVersion: version, exposition.LabelGoVersion: runtime.Version()},
	})
	build.Set(1)
	m.registry.MustRegister(m.rtt, m.sent, m.lost, m.peers, m.leftOut, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Sent counts a probe to peer. From then on the pair has its counters, losses
// at 0, and no histogram before there is a sample.
func (m *metrics) Sent(peer string) {
	m.sent.WithLabelValues(m.node, peer, methodUDP).Inc()
	m.lost.WithLabelValues(m.node, peer, methodUDP)
}

// Lost counts a probe to peer that was not answered.
func (m *metrics) Lost(peer string) { m.lost.WithLabelValues(m.node, peer, methodUDP).Inc() }

// Answered records the round trip of a probe to peer.
func (m *metrics) Answered(peer string, rtt time.Duration) {
	m.rtt.WithLabelValues(m.node, peer, methodUDP).Observe(rtt.Seconds())
}

// Forget deletes the series of a peer.
func (m *metrics) Forget(peer string) {
	labels := prometheus.Labels{exposition.LabelPeer: peer}
	m.rtt.DeletePartialMatch(labels)
	m.sent.DeletePartialMatch(labels)
	m.lost.DeletePartialMatch(labels)
}

// engineCollector shows what the engine, the plan and the sample stream count
// themselves.
type engineCollector struct {
	engine              func() probe.Counters
	reflector           func() probe.ReflectorCounters
	capped, undelivered func() uint64
}

var (
	samplesDesc = prometheus.NewDesc(exposition.AgentSamplesTotal, "Valid samples by whose time stamps they rest on.", []string{exposition.LabelStamps}, nil)
	invalidDesc = prometheus.NewDesc(exposition.AgentInvalidPacketsTotal, "Packets that were received and did not become a sample.", []string{exposition.LabelReason}, nil)
	repliesDesc = prometheus.NewDesc(exposition.AgentReflectorRepliesTotal, "Probes of others that were answered.", nil, nil)
	refusalDesc = prometheus.NewDesc(exposition.AgentReflectorRefusalsTotal, "Probes of others that the reflector did not answer.", []string{exposition.LabelReason}, nil)
	sendErrDesc = prometheus.NewDesc(exposition.AgentSendErrorsTotal, "Probes that the kernel refused to send.", nil, nil)
	cappedDesc  = prometheus.NewDesc(exposition.AgentProbesCappedTotal, "Probes that were delayed by --packets-per-second.", nil, nil)
	droppedDesc = prometheus.NewDesc(exposition.AgentStreamDroppedTotal, "Samples that a client of the sample stream was too slow to take.", nil, nil)
)

// Describe implements prometheus.Collector.
func (c engineCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{samplesDesc, invalidDesc, repliesDesc, refusalDesc, sendErrDesc, cappedDesc, droppedDesc} {
		ch <- desc
	}
}

// Collect implements prometheus.Collector.
func (c engineCollector) Collect(ch chan<- prometheus.Metric) {
	counter := func(desc *prometheus.Desc, value uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(value), labels...)
	}
	engine, reflector := c.engine(), c.reflector()
	counter(samplesDesc, engine.KernelSamples, string(probe.Kernel))
	counter(samplesDesc, engine.UserSamples, string(probe.User))
	for reason, n := range engine.Ignored {
		counter(invalidDesc, n, string(reason))
	}
	counter(invalidDesc, engine.OutOfBracket, outOfBracket)
	counter(sendErrDesc, engine.SendFailed)
	counter(repliesDesc, reflector.Replies)
	for reason, n := range reflector.Refused {
		counter(refusalDesc, n, string(reason))
	}
	counter(cappedDesc, c.capped())
	counter(droppedDesc, c.undelivered())
}
