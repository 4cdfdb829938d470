package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object

// NetLatencyArgs configures the NetLatency plugin of one scheduler profile.
// Durations are written as Go writes them, for instance 10s, 2m or 100us.
type NetLatencyArgs struct {
	metav1.TypeMeta `json:",inline"`

	// Source is where the latency matrix comes from. At most one member may be
	// set. The default is agents with its own defaults.
	Source Source `json:"source,omitzero"`
	// TargetSlices is where the agents are told on which nodes targets run, so
	// that these are measured from every node of a cluster that is too large
	// to measure all.
	TargetSlices TargetSlices `json:"targetSlices,omitzero"`
	// Window is the span of time that a pair's statistics cover, up to 1h.
	// Agents are asked for it and give at most what they keep. The default, 0s,
	// is the agents' own window.
	Window *metav1.Duration `json:"window,omitempty"`
	// StaleAfter is the age of a pair's newest sample beyond which its
	// measurement no longer counts and the next basis (the reverse direction,
	// then the nodes' groups) answers for it. At least the source's interval,
	// at most 24h. The default is 2m.
	StaleAfter *metav1.Duration `json:"staleAfter,omitempty"`
	// Statistic makes one latency out of a pair's distribution.
	Statistic Statistic `json:"statistic,omitzero"`
	// Hysteresis keeps a pair's latency still while it moves only by noise.
	Hysteresis Hysteresis `json:"hysteresis,omitzero"`
	// Band is the difference of cost within which nodes count as equally near;
	// among those the other score plugins choose.
	Band Band `json:"band,omitzero"`
	// ProviderLabels are node labels that name the provider of a node; the
	// first that a node has counts, and without any the scheme of its
	// spec.providerID. Provider, topology.kubernetes.io/region and
	// topology.kubernetes.io/zone together are a node's group. The default is
	// netlatency.io/provider, claudie.io/provider; an empty list leaves only
	// spec.providerID.
	// +listType=atomic
	ProviderLabels []string `json:"providerLabels"` // no omitempty: empty differs from absent
	// Targets are what pods may want to be near, each under a name of its own.
	// The default is none, and the plugin then scores nothing.
	// +listType=map
	// +listMapKey=name
	Targets []Target `json:"targets,omitempty"`
	// Rules say which pods want which targets. The first rule that matches a
	// pod counts, and a pod that none matches has no targets. With no rules at
	// all, the default, every pod wants every target.
	// +listType=atomic
	Rules []Rule `json:"rules,omitempty"`
	// AnnotatePlacement writes onto each pod, as it is bound, why it is where
	// it is: as the annotation netlatency.io/placement. The plugin must be
	// enabled at the extension point bind, before DefaultBinder. The default is
	// false.
	AnnotatePlacement bool `json:"annotatePlacement,omitempty"`
}

// Source is where the latency matrix comes from.
type Source struct {
	// Agents reads the probe agents directly.
	Agents *AgentsSource `json:"agents,omitempty"`
	// Prometheus asks a server with the HTTP API of Prometheus, such as
	// Prometheus itself, Thanos, Mimir or VictoriaMetrics.
	Prometheus *PrometheusSource `json:"prometheus,omitempty"`
	// File reads a recorded matrix, for simulation and bug reports.
	File *FileSource `json:"file,omitempty"`
}

// PrometheusSource asks a server with the HTTP API of Prometheus. By default
// it asks for what the chart's recording rules record of the agents' metrics,
// and only for pairs whose peer is a node on which a target runs.
type PrometheusSource struct {
	// Address is the URL of the API with scheme http or https, without its
	// /api/v1, for instance http://prometheus.monitoring.svc:9090. It is
	// required.
	Address string `json:"address"`
	// Headers are added to every request, for instance X-Scope-OrgID. The
	// default is none.
	Headers map[string]string `json:"headers,omitempty"`
	// BearerTokenFile is the path of a token for the Authorization header. It
	// is read at each request, so the token may be replaced. The default is
	// none.
	BearerTokenFile string `json:"bearerTokenFile,omitempty"`
	// TLS is for an address with https.
	TLS ClientTLS `json:"tls,omitzero"`
	// Interval is the time from one round of queries to the next, from 1s to
	// 10m. The default is 15s.
	Interval *metav1.Duration `json:"interval,omitempty"`
	// Timeout bounds each query, from 100ms to the interval. The default is
	// 10s, or the interval where that is shorter.
	Timeout *metav1.Duration `json:"timeout,omitempty"`
	// MaxBytes bounds the answer to each query, unpacked, from 1024 to 1 GiB;
	// a larger answer counts as a failure. The default is 33554432, 32 MiB.
	MaxBytes *int64 `json:"maxBytes,omitempty"`
	// Queries are what is asked. The default, when none is given, is what the
	// chart's recording rules record; with any given, only those are asked.
	Queries PrometheusQueries `json:"queries,omitzero"`
	// NodeLabel is the label that names the node that a round trip starts at.
	// The default is node.
	NodeLabel string `json:"nodeLabel,omitempty"`
	// PeerLabel is the label that names the node that it goes to. The default
	// is peer.
	PeerLabel string `json:"peerLabel,omitempty"`
	// Scale is the seconds in one unit of the latencies that are returned:
	// 0.001 for milliseconds. The default is 1.
	Scale *float64 `json:"scale,omitempty"`
}

// ClientTLS is how a server is verified and what it is shown. Files are read
// again when they change.
type ClientTLS struct {
	// CAFile is the path of the authorities that are trusted, in PEM. The
	// default is those of the system.
	CAFile string `json:"caFile,omitempty"`
	// CertFile is the path of the client's certificate, in PEM.
	CertFile string `json:"certFile,omitempty"`
	// KeyFile is the path of its key; given with certFile or not at all.
	KeyFile string `json:"keyFile,omitempty"`
	// ServerName is the name in the server's certificate where it is not the
	// host of the address.
	ServerName string `json:"serverName,omitempty"`
	// InsecureSkipVerify trusts any certificate. The default is false.
	InsecureSkipVerify bool `json:"insecureSkipVerify,omitempty"`
}

// PrometheusQueries are instant queries in PromQL, each for one number of
// every pair. $peers in them stands for a regular expression that matches the
// nodes on which targets run, for a label matcher: {peer=~"$peers"}. A query
// that is empty is not asked.
type PrometheusQueries struct {
	// Mean is the mean of a pair's round trips. At least one of mean and p50
	// is required; the other takes its value.
	Mean string `json:"mean,omitempty"`
	// P50 is their median.
	P50 string `json:"p50,omitempty"`
	// P90 is their 90th percentile; without it the larger of mean and p50.
	P90 string `json:"p90,omitempty"`
	// P99 is their 99th percentile; without it p90.
	P99 string `json:"p99,omitempty"`
	// Samples is the number of round trips behind these. Without it there are
	// taken to be enough for every quantile.
	Samples string `json:"samples,omitempty"`
	// Sent is the number of probes that loss is a share of. Without it there
	// are taken to be 1000.
	Sent string `json:"sent,omitempty"`
	// Loss is the share of probes that were lost, from 0 to 1. Without it
	// nothing is.
	Loss string `json:"loss,omitempty"`
	// Timestamp is the unix time in seconds, on the server's clock, of a
	// pair's newest round trip. It is required: that a query succeeds does not
	// say that what it returns is fresh.
	Timestamp string `json:"timestamp,omitempty"`
}

// FileSource reads a recorded matrix, which "kubectl netlatency record" writes.
type FileSource struct {
	// Path is the path of the recording, packed by gzip or not. It is
	// required.
	Path string `json:"path"`
	// Interval is the time from one look at the file to the next, from 1s to
	// 10m; it is read again when it has changed. The default is 10s.
	Interval *metav1.Duration `json:"interval,omitempty"`
	// Ageing counts the pairs' ages on from the time of the recording. The
	// default is false: they stay as fresh as they were when recorded.
	Ageing bool `json:"ageing,omitempty"`
}

// AgentsSource finds the probe agents behind a headless Service and reads the
// /matrix of each.
type AgentsSource struct {
	// Namespace is the namespace of the agents' headless Service. The default
	// is netlatency.
	Namespace string `json:"namespace,omitempty"`
	// Service is the name of the agents' headless Service. The default is
	// netlatency-agent.
	Service string `json:"service,omitempty"`
	// Port is the name of the Service's port that serves /matrix. The default
	// is http.
	Port string `json:"port,omitempty"`
	// Interval is the time from one round of reads to the next, from 1s to 10m.
	// The default is 10s.
	Interval *metav1.Duration `json:"interval,omitempty"`
	// Timeout bounds the read of one agent, from 100ms to the interval. The
	// default is 3s, or the interval where that is shorter.
	Timeout *metav1.Duration `json:"timeout,omitempty"`
}

// TargetSlices are the EndpointSlices that tell the agents on which nodes the
// targets run that rules name, 500 nodes at most.
type TargetSlices struct {
	// Namespace is that of the agents. The default is that of source.agents,
	// and with another source none. Empty, nobody is told.
	Namespace *string `json:"namespace,omitempty"`
	// Service is the name of the Service that the EndpointSlices give as
	// theirs, and of the Lease of who writes them; there is no such Service.
	// Agents look for it by their flag --targets-service. The default is
	// netlatency-targets.
	Service string `json:"service,omitempty"`
}

// Statistic makes one latency out of the distribution of a pair's round trips:
// mean + tailWeight · p99 + loss · lossPenalty.
type Statistic struct {
	// TailWeight is the share of the 99th percentile that is added to the mean,
	// from 0 to 1; of the 90th where there are fewer than 100 samples. It
	// stands for inconsistency: of two paths with the same mean
	// the steadier one is nearer. The default is 0.1.
	TailWeight *float64 `json:"tailWeight,omitempty"`
	// LossPenalty is the latency that a certain loss costs, up to 1m. The
	// default is 200ms, a retransmission timeout of TCP.
	LossPenalty *metav1.Duration `json:"lossPenalty,omitempty"`
}

// Hysteresis is what a pair's latency must move by, both ratio and floor,
// before the change is taken over.
type Hysteresis struct {
	// Ratio is relative to the latency that is held, from 0 up to but not
	// including 1. The default is 0.05: more than half of the band's ratio
	// would keep equally near nodes apart.
	Ratio *float64 `json:"ratio,omitempty"`
	// Floor is absolute, up to 1s. The default is 50us.
	Floor *metav1.Duration `json:"floor,omitempty"`
}

// Band is the larger of floor and ratio times the best cost.
type Band struct {
	// Ratio is relative to the best cost, from 0 to 1. The default is 0.1.
	Ratio *float64 `json:"ratio,omitempty"`
	// Floor is absolute, up to 1s. The default is 100us.
	Floor *metav1.Duration `json:"floor,omitempty"`
}

// Aggregation makes one latency out of the latencies to a target's replicas.
// +enum
type Aggregation string

const (
	// AggregationMean suits load that is spread over all replicas, as a
	// ClusterIP does.
	AggregationMean Aggregation = "Mean"
	// AggregationNearest suits clients that any replica can serve.
	AggregationNearest Aggregation = "Nearest"
	// AggregationWorst suits requests that fan out to all replicas.
	AggregationWorst Aggregation = "Worst"
)

// UnknownPolicy is what a limit does with a latency that is unknown.
// +enum
type UnknownPolicy string

const (
	// UnknownAllow admits the node: the limit holds as far as is known.
	UnknownAllow UnknownPolicy = "Allow"
	// UnknownReject keeps pods off the node until it is known to be near.
	UnknownReject UnknownPolicy = "Reject"
)

// Target is something that pods may want to be near. Exactly one of pods,
// nodes and service is set.
type Target struct {
	// Name is a DNS label, unique among the targets of a profile; rules,
	// metrics and messages use it.
	Name string `json:"name"`
	// Weight, from 1 to 100, is the target's share in a pod's cost, in
	// proportion to the sum over its targets: for instance the number of round
	// trips to it in a request. The default is 1.
	Weight *int32 `json:"weight,omitempty"`
	// Aggregation makes one latency out of the latencies to many replicas:
	// Mean, Nearest or Worst. The default is Mean.
	Aggregation Aggregation `json:"aggregation,omitempty"`
	// Quantile, one of 0.5, 0.9 and 0.99, makes that quantile of a pair's round
	// trips the latency. It needs enough samples in the window, and while there
	// are too few, as without a quantile, the profile's statistic answers.
	Quantile *float64 `json:"quantile,omitempty"`
	// MaxRTT, from 10us to 10s, keeps pods off nodes that are farther from the
	// target. What is compared is what scores rest on: the latency by the
	// statistic or quantile, aggregated over the replicas. The default is no
	// limit. Cluster Autoscaler does not know of limits.
	MaxRTT *metav1.Duration `json:"maxRTT,omitempty"`
	// WhenUnknown says what becomes of nodes from which the latency is unknown,
	// stale measurements and a target without replicas among it: Allow or
	// Reject. Only with maxRTT. The default is Allow.
	WhenUnknown UnknownPolicy `json:"whenUnknown,omitempty"`

	// Pods makes a target of the ready pods that a selector chooses.
	Pods *PodsTarget `json:"pods,omitempty"`
	// Nodes makes a target of nodes, whatever runs on them.
	Nodes *NodesTarget `json:"nodes,omitempty"`
	// Service makes a target of what is behind a Service.
	Service *ServiceTarget `json:"service,omitempty"`
}

// PodsTarget is the ready pods that a selector chooses, each at its node.
type PodsTarget struct {
	// LabelSelector chooses pods by label. It is required and may not be empty.
	LabelSelector *metav1.LabelSelector `json:"labelSelector,omitempty"`
	// Namespaces are where to look, with those that namespaceSelector chooses.
	// With neither, the default, these are all namespaces; or the pod's own, if
	// there are matchLabelKeys.
	// +listType=set
	Namespaces []string `json:"namespaces,omitempty"`
	// NamespaceSelector chooses namespaces by label. An empty one chooses all.
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`
	// MatchLabelKeys are labels of which the target's pods have the values that
	// the pod has that is placed: [ray.io/cluster] is the pods of its own
	// RayCluster. Labels that it lacks are left out. The default is none.
	// +listType=set
	MatchLabelKeys []string `json:"matchLabelKeys,omitempty"`
}

// NodesTarget is the nodes that all given conditions choose. At least one is
// required.
type NodesTarget struct {
	// LabelSelector chooses nodes by label. It may not be empty.
	LabelSelector *metav1.LabelSelector `json:"labelSelector,omitempty"`
	// Resource chooses nodes that have some of this resource allocatable, for
	// instance nvidia.com/gpu.
	Resource string `json:"resource,omitempty"`
}

// ServiceTarget is the ready pods that the selector of a Service chooses; for
// a Service without a selector the nodes that its EndpointSlices name, which
// the scheduler must be allowed to list.
type ServiceTarget struct {
	// Namespace is the Service's namespace.
	Namespace string `json:"namespace"`
	// Name is the Service's name.
	Name string `json:"name"`
}

// Rule gives targets to pods. A pod must match every condition that is given.
type Rule struct {
	// PodSelector chooses pods by label. Absent or empty chooses all.
	PodSelector *metav1.LabelSelector `json:"podSelector,omitempty"`
	// Namespaces are the pods' namespaces. Empty, the default, is all.
	// +listType=set
	Namespaces []string `json:"namespaces,omitempty"`
	// Targets are names of targets, at least one.
	// +listType=set
	Targets []string `json:"targets"`
}
