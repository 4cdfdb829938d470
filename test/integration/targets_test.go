package integration

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/netlatency/netlatency/pkg/exposition"
	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/probe"
	"github.com/netlatency/netlatency/test/sandbox"
)

// Where agents may have fewer peers than there are nodes, each measures the way
// to all nodes of targets, and where no agent is to the target itself.
func TestTargetsAreMeasured(t *testing.T) {
	// One of eleven peers is a sample, and six are targets' (two and five, seen
	// from one of these).
	const maxPeers, agentLabel = 7, "example.com/agent"
	s := start(t, "metro.yaml", nil)
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	qdrant, err := s.StartQdrant(ctx)
	if err != nil {
		t.Fatal(err)
	}
	bare, others := qdrant[0], slices.DeleteFunc(s.NodeNames(), func(name string) bool { return name == qdrant[0] })
	for _, name := range others {
		label(ctx, t, s, name, agentLabel)
	}
	if _, err := s.StartApplications(qdrant); err != nil {
		t.Fatal(err)
	}
	values := s.Values()
	agent := values["agent"].(map[string]any)
	agent["maxPeers"] = maxPeers
	agent["nodeSelector"] = map[string]any{agentLabel: ""}
	if err := s.InstallChart(ctx, values); err != nil {
		t.Fatal(err)
	}

	targets := append(slices.Clone(qdrant), s.Scenario.GPUNodes()...)
	measured := func(agents []string, want func(peer string) probe.Method) func() (bool, error) {
		return func() (bool, error) {
			for _, node := range agents {
				window, err := s.Window(ctx, node)
				if err != nil {
					return false, err
				}
				by := make(map[string]latency.Distribution)
				for _, row := range window.Rows {
					by[row.Peer] = row.Distribution
				}
				for _, peer := range targets {
					d, known := by[peer]
					fresh := known && time.Since(d.Newest) <= rounds(s, 2)
					if peer != node && (!fresh || probe.Method(d.Method) != want(peer)) {
						return false, fmt.Errorf("%s measures %s by %q", node, peer, d.Method)
					}
				}
			}
			return true, nil
		}
	}
	waitFor(ctx, t, "every agent to measure all nodes of targets", measured(others, func(peer string) probe.Method {
		if peer == bare {
			return probe.MethodTCP
		}
		return probe.MethodUDP
	}))
	for _, node := range others {
		families, err := s.AgentMetrics(ctx, node)
		if err != nil {
			t.Fatal(err)
		}
		if n := sandbox.MetricValue(families, exposition.AgentPeers, nil); n != maxPeers {
			t.Errorf("the agent on %s has %v peers: want %d", node, n, maxPeers)
		}
	}
	if err := s.SchedulersKnow(ctx, 2, len(others)*maxPeers); err != nil {
		t.Fatal(err)
	}

	// The same way, measured at the target and at the agent next to it.
	sleep(ctx, t, rounds(s, 5))
	before := targetSlices(ctx, t, s)
	window, err := s.Window(ctx, "hetzner-1")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range window.Rows {
		if !slices.Contains(qdrant, row.Peer) {
			continue
		}
		t.Logf("hetzner-1 to %s: a median of %v over %d by %s", row.Peer, row.P50, row.Samples, row.Method)
		if row.P50 < 450*time.Microsecond || row.P50 > time.Millisecond {
			t.Errorf("hetzner-1 to %s: a median of %v, where the network takes 0.5 ms and some jitter", row.Peer, row.P50)
		}
	}

	label(ctx, t, s, bare, agentLabel)
	waitFor(ctx, t, "the agent of a node to take the target's place", measured(s.NodeNames(), func(string) probe.Method { return probe.MethodUDP }))
	if after := targetSlices(ctx, t, s); !slices.Equal(before, after) {
		t.Errorf("slices were written although no target has moved: %q, then %q", before, after)
	}
}

// targetSlices is the names and versions of the slices about targets.
func targetSlices(ctx context.Context, t *testing.T, s *sandbox.Sandbox) (names []string) {
	t.Helper()
	list, err := s.Cluster.Client().DiscoveryV1().EndpointSlices(sandbox.Namespace).List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=netlatency-targets"})
	if err != nil {
		t.Fatal(err)
	}
	for _, slice := range list.Items {
		names = append(names, slice.Name+"@"+slice.ResourceVersion)
	}
	slices.Sort(names)
	if len(names) != 2 || !strings.HasPrefix(names[0], "netlatency-targets-gpu-") || !strings.HasPrefix(names[1], "netlatency-targets-qdrant-") {
		t.Errorf("slices %q: want one of the target gpu and one of qdrant", names)
	}
	return names
}

func label(ctx context.Context, t *testing.T, s *sandbox.Sandbox, node, key string) {
	t.Helper()
	patch := fmt.Sprintf(`{"metadata":{"labels":{%q:""}}}`, key)
	if _, err := s.Cluster.Client().CoreV1().Nodes().Patch(ctx, node, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
}
