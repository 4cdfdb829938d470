package chart_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	cliflag "k8s.io/component-base/cli/flag"

	"github.com/netlatency/netlatency/pkg/agent"
)

// agentOptions is what the agent makes of its pod's arguments and environment
// on the node near-1.
func agentOptions(t *testing.T, values string) agent.Options {
	t.Helper()
	container := get[*appsv1.DaemonSet](t, render(t, values), agentKey).Spec.Template.Spec.Containers[0]
	fields := map[string]string{"spec.nodeName": "near-1", "status.podIPs": "10.244.0.7,fd00::7", "metadata.namespace": "netlatency"}
	for _, variable := range container.Env {
		t.Setenv(variable.Name, fields[variable.ValueFrom.FieldRef.FieldPath])
	}
	options := agent.DefaultOptions()
	var sets cliflag.NamedFlagSets
	options.AddFlags(&sets)
	flags := pflag.NewFlagSet("agent", pflag.ContinueOnError)
	for _, set := range sets.FlagSets {
		flags.AddFlagSet(set)
	}
	if err := flags.Parse(container.Args); err != nil {
		t.Fatalf("the agent refuses its arguments: %v", err)
	}
	if err := options.Validate(); err != nil {
		t.Fatalf("the agent refuses its arguments: %v", err)
	}
	return options
}

// The chart repeats the agent's defaults, so that they are seen among the
// values: they must be the same.
func TestTheChartsDefaultsAreTheAgents(t *testing.T) {
	got := agentOptions(t, "")
	if got.NodeName != "near-1" || !slices.Equal(got.BindAddresses, []string{"10.244.0.7", "fd00::7"}) || got.Namespace != "netlatency" {
		t.Errorf("the agent does not know its node, addresses and namespace: %+v", got)
	}
	if diff := cmp.Diff(agent.DefaultOptions(), got); diff != "" {
		t.Errorf("options (-agent's own +chart's):\n%s", diff)
	}
}

func TestValuesReachTheAgent(t *testing.T) {
	want := agent.Options{
		NodeName:         "near-1",
		Namespace:        "netlatency",
		Service:          "netlatency-agent",
		BindAddresses:    []string{"10.244.0.7", "fd00::7"},
		TargetsService:   "near-targets",
		HTTPPort:         9465,
		ProbePort:        9465,
		Interval:         5 * time.Second,
		Burst:            3,
		Spacing:          10 * time.Millisecond,
		Timeout:          time.Second,
		Window:           150 * time.Second,
		LossWindow:       10 * time.Minute,
		Methods:          []string{"tcp", "udp"},
		FullSize:         1400,
		MaxPeers:         20,
		PacketsPerSecond: 100,
		MaxSeries:        10,
		SampleStream:     true,
	}
	if diff := cmp.Diff(want, agentOptions(t, everyValue)); diff != "" {
		t.Errorf("options (-want +got):\n%s", diff)
	}
}

func TestInADualStackClusterAgentsAreKnownByBothFamilies(t *testing.T) {
	spec := get[*corev1.Service](t, render(t, ""), "Service netlatency/netlatency-agent").Spec
	if spec.IPFamilyPolicy == nil || *spec.IPFamilyPolicy != corev1.IPFamilyPolicyPreferDualStack {
		t.Errorf("the agents' Service has the family policy %v, want %s", spec.IPFamilyPolicy, corev1.IPFamilyPolicyPreferDualStack)
	}
}

func TestAgentsListenWhereTheirServiceLeads(t *testing.T) {
	options := agentOptions(t, "")
	want := map[corev1.Protocol]int{corev1.ProtocolTCP: options.HTTPPort, corev1.ProtocolUDP: options.ProbePort}
	for _, port := range get[*corev1.Service](t, render(t, ""), "Service netlatency/netlatency-agent").Spec.Ports {
		if int(port.Port) != want[port.Protocol] {
			t.Errorf("port %s is %d/%s, the agent listens at %d", port.Name, port.Port, port.Protocol, want[port.Protocol])
		}
	}
}
