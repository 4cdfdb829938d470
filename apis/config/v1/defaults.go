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
