package v1

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Where the Helm chart puts the agents.
const (
	DefaultAgentsNamespace = "netlatency"
	DefaultAgentsService   = "netlatency-agent"
	DefaultAgentsPort      = "http"
	DefaultTargetsService  = "netlatency-targets"
)

// SetDefaults_NetLatencyArgs fills in what a user left out. It never overrides
// what a user wrote, explicit zeros and empty lists included.
func SetDefaults_NetLatencyArgs(args *NetLatencyArgs) { //nolint:revive // defaulter-gen looks for this name
	if args.Source == (Source{}) {
		args.Source.Agents = &AgentsSource{}
	}
	if agents := args.Source.Agents; agents != nil {
		setString(&agents.Namespace, DefaultAgentsNamespace)
		setString(&agents.Service, DefaultAgentsService)
		setString(&agents.Port, DefaultAgentsPort)
		setDuration(&agents.Interval, 10*time.Second)
		// Whoever reads the agents more often than every 3 s means it.
		setDuration(&agents.Timeout, min(3*time.Second, agents.Interval.Duration))
	}
	if prometheus := args.Source.Prometheus; prometheus != nil {
		setDuration(&prometheus.Interval, 15*time.Second)
		setDuration(&prometheus.Timeout, min(10*time.Second, prometheus.Interval.Duration))
		setPointer(&prometheus.MaxBytes, 32<<20)
		if prometheus.Queries == (PrometheusQueries{}) {
			prometheus.Queries = DefaultPrometheusQueries()
		}
		setString(&prometheus.NodeLabel, "node")
		setString(&prometheus.PeerLabel, "peer")
		setPointer(&prometheus.Scale, 1)
	}
	if file := args.Source.File; file != nil {
		setDuration(&file.Interval, 10*time.Second)
	}
	namespace := ""
	if args.Source.Agents != nil {
		namespace = args.Source.Agents.Namespace
	}
	setPointer(&args.TargetSlices.Namespace, namespace)
	setString(&args.TargetSlices.Service, DefaultTargetsService)
	setDuration(&args.Window, 0)
	setDuration(&args.StaleAfter, 2*time.Minute)
	setPointer(&args.Statistic.TailWeight, 0.1)
	setDuration(&args.Statistic.LossPenalty, 200*time.Millisecond)
	setPointer(&args.Hysteresis.Ratio, 0.05)
	setDuration(&args.Hysteresis.Floor, 50*time.Microsecond)
	setPointer(&args.Band.Ratio, 0.1)
	setDuration(&args.Band.Floor, 100*time.Microsecond)
	if args.ProviderLabels == nil {
		args.ProviderLabels = []string{"netlatency.io/provider", "claudie.io/provider"}
	}
	for i := range args.Targets {
		setPointer(&args.Targets[i].Weight, 1)
		if args.Targets[i].Aggregation == "" {
			args.Targets[i].Aggregation = AggregationMean
		}
		if args.Targets[i].MaxRTT != nil && args.Targets[i].WhenUnknown == "" {
			args.Targets[i].WhenUnknown = UnknownAllow
		}
	}
}

// DefaultPrometheusQueries ask for what the chart's rules record. They name no
// raw series: a query that computes quantiles of every pair of a large cluster
// costs the server more than the answer is worth. The newest sample is looked
// for in ten minutes, so that pairs grow old and do not vanish at once.
func DefaultPrometheusQueries() PrometheusQueries {
	const peers = `{peer=~"$peers"}`
	return PrometheusQueries{
		Mean:      "netlatency:rtt_seconds:mean5m" + peers,
		P50:       "netlatency:rtt_seconds:p50_5m" + peers,
		P90:       "netlatency:rtt_seconds:p90_5m" + peers,
		P99:       "netlatency:rtt_seconds:p99_5m" + peers,
		Samples:   "netlatency:rtt_samples:count5m" + peers,
		Sent:      "netlatency:probes_sent:increase30m" + peers,
		Loss:      "netlatency:probes_lost:ratio30m" + peers,
		Timestamp: "max_over_time(netlatency:rtt_newest_timestamp_seconds:max" + peers + "[10m])",
	}
}

func setString(s *string, value string) {
	if *s == "" {
		*s = value
	}
}

func setPointer[T any](p **T, value T) {
	if *p == nil {
		*p = &value
	}
}

func setDuration(p **metav1.Duration, value time.Duration) {
	setPointer(p, metav1.Duration{Duration: value})
}
