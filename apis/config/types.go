package config

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object

// NetLatencyArgs configures the NetLatency plugin of one scheduler profile.
type NetLatencyArgs struct {
	metav1.TypeMeta

	// Source is where the latency matrix comes from.
	Source Source
	// TargetSlices is where the agents are told on which nodes targets run.
	TargetSlices TargetSlices
	// Window is the span of time that a pair's statistics cover. Agents are
	// asked for it and give at most what they keep. 0 is the agents' own
	// window.
	Window metav1.Duration
	// StaleAfter is the age of a pair's newest sample beyond which its
	// measurement no longer counts and the next basis (the reverse direction,
	// the nodes' groups) answers for it.
	StaleAfter metav1.Duration
	// Statistic makes one latency out of a pair's distribution.
	Statistic Statistic
	// Hysteresis keeps a pair's latency still while it moves only by noise.
	Hysteresis Hysteresis
	// Band is the difference of cost within which nodes count as equally near.
	Band Band
	// ProviderLabels are node labels that name the provider of a node; the
	// first that a node has counts, and without any the scheme of its
	// spec.providerID. Provider, region and zone together are a node's group.
	ProviderLabels []string
	// Targets are what pods may want to be near, by name.
	Targets []Target
	// Rules say which pods want which targets; the first rule that matches a
	// pod counts, and a pod that none matches has no targets. With no rules at
	// all every pod wants every target.
	Rules []Rule
	// AnnotatePlacement writes onto each pod, as it is bound, why it is where
	// it is.
	AnnotatePlacement bool
}

// Source is where the latency matrix comes from. Exactly one member is set.
type Source struct {
	// Agents reads the probe agents directly.
	Agents *AgentsSource
	// Prometheus asks a server with the HTTP API of Prometheus.
	Prometheus *PrometheusSource
	// File reads a recorded matrix.
	File *FileSource
}

// Interval is the time from one read of the source to the next, 0 when no
// member is set.
func (s Source) Interval() time.Duration {
	switch {
	case s.Agents != nil:
		return s.Agents.Interval.Duration
	case s.Prometheus != nil:
		return s.Prometheus.Interval.Duration
	case s.File != nil:
		return s.File.Interval.Duration
	}
	return 0
}

// Kind names the member that is set as the configuration does: "agents",
// "prometheus" or "file"; it is empty when none is.
func (s Source) Kind() string {
	switch {
	case s.Agents != nil:
		return "agents"
	case s.Prometheus != nil:
		return "prometheus"
	case s.File != nil:
		return "file"
	}
	return ""
}

// PrometheusSource asks a server with the HTTP API of Prometheus, such as
// Prometheus itself, Thanos, Mimir or VictoriaMetrics.
type PrometheusSource struct {
	// Address is the URL of the API, without its /api/v1.
	Address string
	// Headers are added to every request.
	Headers map[string]string
	// BearerTokenFile holds a token for the Authorization header. It is read
	// at each request. Empty sends none.
	BearerTokenFile string
	// TLS is for an address with https.
	TLS ClientTLS
	// Interval is the time from one round of queries to the next.
	Interval metav1.Duration
	// Timeout bounds each query.
	Timeout metav1.Duration
	// MaxBytes bounds the answer to each query, unpacked.
	MaxBytes int64
	// Queries are what is asked.
	Queries PrometheusQueries
	// NodeLabel and PeerLabel name, in what the queries return, the node that
	// a round trip starts at and the one it goes to.
	NodeLabel string
	PeerLabel string
	// Scale is the seconds in one unit of the latencies that are returned.
	Scale float64
}

// ClientTLS is how a server is verified and what it is shown. Files are read
// again when they change.
type ClientTLS struct {
	// CAFile holds the authorities that are trusted; empty trusts those of the
	// system.
	CAFile string
	// CertFile and KeyFile are the client's certificate; both or none.
	CertFile string
	KeyFile  string
	// ServerName is the name in the server's certificate where it is not that
	// of the address.
	ServerName string
	// InsecureSkipVerify trusts any certificate.
	InsecureSkipVerify bool
}

// PrometheusQueries are instant queries, each for one number of every pair.
// Those of latencies are in units of Scale. An empty one is not asked.
type PrometheusQueries struct {
	// Mean, P50, P90 and P99 are of a pair's round trips. At least one of Mean
	// and P50 is given.
	Mean, P50, P90, P99 string
	// Samples is the number of round trips behind them.
	Samples string
	// Sent is the number of probes and Loss the share of them, from 0 to 1,
	// that was lost.
	Sent, Loss string
	// Timestamp is the unix time in seconds of the newest round trip.
	Timestamp string
}

// FileSource reads a recorded matrix.
type FileSource struct {
	// Path of the recording.
	Path string
	// Interval is the time from one look at the file to the next.
	Interval metav1.Duration
	// Ageing counts the pairs' ages on from the time of the recording.
	Ageing bool
}

// AgentsSource finds the probe agents behind a headless Service and reads
// their /matrix.
type AgentsSource struct {
	// Namespace and Service name the agents' headless Service.
	Namespace string
	Service   string
	// Port is the name of the port of the Service that serves /matrix.
	Port string
	// Interval is the time from one round of reads to the next.
	Interval metav1.Duration
	// Timeout bounds the read of one agent.
	Timeout metav1.Duration
}

// TargetSlices are the EndpointSlices that tell the agents on which nodes
// targets run.
type TargetSlices struct {
	// Namespace is that of the agents. Empty: nobody is told.
	Namespace string
	// Service is the name of the Service that the EndpointSlices give as
	// theirs. There is no such Service.
	Service string
}

// Statistic makes one latency out of a distribution:
// mean + TailWeight · p99 + loss · LossPenalty.
type Statistic struct {
	// TailWeight is the share of the 99th percentile that is added to the
	// mean, from 0 to 1.
	TailWeight float64
	// LossPenalty is the latency that a certain loss costs.
	LossPenalty metav1.Duration
}

// Hysteresis is what a pair's latency must move by, both Ratio and Floor,
// before the change is taken over.
type Hysteresis struct {
	// Ratio is relative to the latency that is held, from 0 up to but not
	// including 1.
	Ratio float64
	Floor metav1.Duration
}

// Band is max(Floor, Ratio · the best cost).
type Band struct {
	// Ratio is relative to the best cost, from 0 to 1.
	Ratio float64
	Floor metav1.Duration
}

// Aggregation makes one latency out of the latencies to a target's replicas.
type Aggregation string

const (
	// AggregationMean suits load spread over all replicas, as a ClusterIP
	// does.
	AggregationMean Aggregation = "Mean"
	// AggregationNearest suits clients that any replica can serve.
	AggregationNearest Aggregation = "Nearest"
	// AggregationWorst suits requests that fan out to all replicas.
	AggregationWorst Aggregation = "Worst"
)

// UnknownPolicy is what a limit does with a latency that is unknown.
type UnknownPolicy string

const (
	// UnknownAllow admits the node: the limit holds as far as is known.
	UnknownAllow UnknownPolicy = "Allow"
	// UnknownReject keeps pods off the node until it is known to be near.
	UnknownReject UnknownPolicy = "Reject"
)

// Target is something that pods may want to be near. Exactly one of Pods,
// Nodes and Service is set.
type Target struct {
	// Name is unique among the targets of a profile; rules, metrics and
	// messages use it.
	Name string
	// Weight, from 1 to 100, is the target's share in a pod's cost, in
	// proportion to the sum over its targets: for instance the number of round
	// trips to it in a request.
	Weight int32
	// Aggregation makes one latency of many replicas.
	Aggregation Aggregation
	// Quantile, one of 0.5, 0.9 and 0.99, makes that quantile of a pair's
	// round trips the latency instead of the profile's statistic. Nil is the
	// profile's statistic.
	Quantile *float64
	// MaxRTT keeps pods off nodes that are farther from the target, by its
	// aggregated latency, as scores are. Nil is no limit.
	MaxRTT *metav1.Duration
	// WhenUnknown says what becomes of nodes from which the latency is unknown,
	// if there is a MaxRTT.
	WhenUnknown UnknownPolicy

	Pods    *PodsTarget
	Nodes   *NodesTarget
	Service *ServiceTarget
}

// PodsTarget is the ready pods that a selector chooses, each at its node.
type PodsTarget struct {
	// LabelSelector chooses pods. It may not be empty.
	LabelSelector *metav1.LabelSelector
	// Namespaces are where to look, with those that NamespaceSelector chooses.
	// With neither these are all namespaces; or the pod's own, if there are
	// MatchLabelKeys.
	Namespaces        []string
	NamespaceSelector *metav1.LabelSelector
	// MatchLabelKeys are labels of which the target's pods have the values that
	// the pod has that is placed. Labels that it lacks are left out.
	MatchLabelKeys []string
}

// NodesTarget is the nodes that all given conditions choose. At least one is
// given.
type NodesTarget struct {
	// LabelSelector chooses nodes by label.
	LabelSelector *metav1.LabelSelector
	// Resource chooses nodes that have some of this resource allocatable, for
	// instance nvidia.com/gpu.
	Resource string
}

// ServiceTarget is the ready pods that the selector of a Service chooses; for
// a Service without a selector the nodes that its EndpointSlices name.
type ServiceTarget struct {
	Namespace string
	Name      string
}

// Rule gives targets to pods.
type Rule struct {
	// PodSelector chooses pods by label; nil and empty choose all.
	PodSelector *metav1.LabelSelector
	// Namespaces are the pods' namespaces; empty is all.
	Namespaces []string
	// Targets are names of targets, at least one.
	Targets []string
}
