package config

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object

// NetLatencyArgs configures the NetLatency plugin of one scheduler profile.
type NetLatencyArgs struct {
	metav1.TypeMeta

	// Source is where the latency matrix comes from.
	Source Source
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
}

// Source is where the latency matrix comes from. Exactly one member is set.
type Source struct {
	// Agents reads the probe agents directly.
	Agents *AgentsSource
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

	Pods    *PodsTarget
	Nodes   *NodesTarget
	Service *ServiceTarget
}

// PodsTarget is the ready pods that a selector chooses, each at its node.
type PodsTarget struct {
	// LabelSelector chooses pods. It may not be empty.
	LabelSelector *metav1.LabelSelector
	// Namespaces are where to look; empty is all namespaces.
	Namespaces []string
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

// ServiceTarget is the ready pods that the selector of a Service chooses.
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
