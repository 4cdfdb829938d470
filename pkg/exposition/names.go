package exposition

// Paths and parameters of an agent's HTTP port.
const (
	// MetricsPath serves what Prometheus scrapes.
	MetricsPath = "/metrics"
	// MatrixPath serves the agent's Window.
	MatrixPath = "/matrix"
	// WindowParameter, a Go duration in the query of MatrixPath, asks for
	// statistics over at most that span.
	WindowParameter = "window"
)

// Accept is the Accept header with which MatrixPath is read: protobuf, a
// quarter of the bytes and a tenth of the decoding time of text, and text from
// whatever cannot speak it.
const Accept = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.9," +
	"text/plain;version=0.0.4;q=0.5"

// Labels. Nodes are named as Kubernetes names them and never by address:
// addresses change with every roll-out and would leave a trail of dead series.
const (
	LabelNode   = "node"   // where a probe starts
	LabelPeer   = "peer"   // where it goes
	LabelMethod = "method" // how: "udp", "icmp", "tcp"
	LabelReason = "reason"
	// LabelStamps is who took the time stamps of a sample: "kernel" or "user".
	LabelStamps    = "stamps"
	LabelVersion   = "version"
	LabelGoVersion = "goversion"

	labelQuantile = "quantile"
)

// Families of MetricsPath about pairs, labels node, peer and method.
const (
	// RTTSeconds is a native histogram of every valid sample but those of full
	// size.
	RTTSeconds = "netlatency_rtt_seconds"
	// ProbesSentTotal counts probes sent, but for those of full size.
	ProbesSentTotal = "netlatency_probes_sent_total"
	// ProbesLostTotal counts probes without an answer in time.
	ProbesLostTotal = "netlatency_probes_lost_total"
	// FullSizeProbesLostTotal counts probes of full size without an answer in
	// time, which are in none of the others; only for pairs that lost some.
	FullSizeProbesLostTotal = "netlatency_full_size_probes_lost_total"
)

// Families of MetricsPath about the agent itself.
const (
	// AgentBuildInfo is 1, labels version and goversion.
	AgentBuildInfo = "netlatency_agent_build_info"
	// AgentPeers is the number of peers that are probed.
	AgentPeers = "netlatency_agent_peers"
	// AgentPeersLeftOut is the number of known peers that are not probed
	// because there are more than the agent may probe.
	AgentPeersLeftOut = "netlatency_agent_peers_left_out"
	// AgentFullSizeProbesSentTotal counts probes of full size, over all peers.
	AgentFullSizeProbesSentTotal = "netlatency_agent_full_size_probes_sent_total"
	// AgentUnexportedSamplesTotal counts samples of peers that have no series
	// because there are more than the agent may export.
	AgentUnexportedSamplesTotal = "netlatency_agent_unexported_samples_total"
	// AgentProbedBy is the number of sources whose probes were answered lately.
	AgentProbedBy = "netlatency_agent_probed_by"
	// AgentPairs is the number of pairs, label method, by the method of their
	// newest answer.
	AgentPairs = "netlatency_agent_pairs"
	// AgentSamplesTotal counts valid samples, label stamps.
	AgentSamplesTotal = "netlatency_agent_samples_total"
	// AgentReorderedSamplesTotal counts samples whose answer was overtaken by
	// that to a later probe of the same peer.
	AgentReorderedSamplesTotal = "netlatency_agent_reordered_samples_total"
	// AgentInvalidPacketsTotal counts received packets that did not become a
	// sample, label reason.
	AgentInvalidPacketsTotal = "netlatency_agent_invalid_packets_total"
	// AgentSendErrorsTotal counts probes that the kernel refused to send.
	AgentSendErrorsTotal = "netlatency_agent_send_errors_total"
	// AgentProbesCappedTotal counts probes that were delayed by the agent's cap
	// on packets per second.
	AgentProbesCappedTotal = "netlatency_agent_probes_capped_total"
	// AgentReflectorRepliesTotal counts probes of others that were answered.
	AgentReflectorRepliesTotal = "netlatency_agent_reflector_replies_total"
	// AgentReflectorRefusalsTotal counts packets that the reflector did not
	// answer, label reason.
	AgentReflectorRefusalsTotal = "netlatency_agent_reflector_refusals_total"
	// AgentStreamDroppedTotal counts samples that a client of the sample stream
	// was too slow to take.
	AgentStreamDroppedTotal = "netlatency_agent_stream_dropped_total"
)

// Families of MatrixPath.
const (
	// WindowInfo is the agent's unix time in seconds, labels node and version.
	// Exactly one series: it says whose window this is and what the timestamps
	// of the rows are relative to.
	WindowInfo = "netlatency_window_info"
	// WindowRTTSeconds is a summary, labels peer and method: quantiles 0 (the
	// minimum), 0.5, 0.9 and 0.99; count is the number of samples; sum is the
	// count times the clipped mean; the timestamp is that of the newest sample.
	WindowRTTSeconds = "netlatency_window_rtt_seconds"
	// WindowSent and WindowLost are gauges, labels peer and method, of the
	// probes in the loss window; only for pairs that lost some.
	WindowSent = "netlatency_window_sent"
	WindowLost = "netlatency_window_lost"
)
