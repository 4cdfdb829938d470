package integration

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/netlatency/netlatency/test/sandbox"
	"github.com/netlatency/netlatency/test/sandbox/cluster"
	"github.com/netlatency/netlatency/test/sandbox/trial"
)

// The demo's story, and what it must show. Wall-clock times are in the report
// and are not judged here.
func TestTheStoryOfTheDemo(t *testing.T) {
	for _, name := range []string{"metro.yaml", "labels-missing.yaml"} {
		t.Run(name, func(t *testing.T) {
			s := start(t, name, nil)
			var foretold []map[string]int // workers by provider, of each burst of ours
			report, err := trial.Run(t.Context(), s, trial.Options{
				Progress: progress{t},
				BeforeBurst: func(ctx context.Context, service *cluster.RayService, workers int) error {
					places, err := simulated(ctx, t, s, service, workers)
					foretold = append(foretold, places)
					return err
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := report.Write(s.Path("build", "test-"+s.Scenario.Name+".json")); err != nil {
				t.Error(err)
			}
			var table lines
			report.Table(&table, false)
			t.Logf("agents' samples off the truth by %v ms (p50), %v ms (p99)\n%s", report.RTTErrorP50, report.RTTErrorP99, table)

			if report.AgentsReady != report.Nodes || report.PairsFresh != report.Pairs {
				t.Errorf("%d of %d agents are ready, %d of %d pairs fresh", report.AgentsReady, report.Nodes, report.PairsFresh, report.Pairs)
			}
			atMost(t, "rtt_error_p50_ms", report.RTTErrorP50, 0.03)
			atMost(t, "rtt_error_p99_ms", report.RTTErrorP99, 0.1)
			for _, phase := range report.Phases {
				for mode, m := range phase.Modes {
					if m.Bound != m.Workers {
						t.Errorf("%s, %s: %d of %d workers are bound", phase.Name, mode, m.Bound, m.Workers)
					}
					if len(m.Overcommitted) > 0 {
						t.Errorf("%s, %s: nodes promised more than they have: %v", phase.Name, mode, m.Overcommitted)
					}
				}
			}
			steady, drift := report.Phase(trial.PhaseSteady).Modes, report.Phase(trial.PhaseDrift).Modes
			ours := steady[trial.ModeNetLatency]
			atLeast(t, "steady near_share", ours.NearShare, 0.95)
			atMost(t, "steady cost_vs_best", ours.CostVsBest, 1.05)
			atMost(t, "steady search_net_p99_ms against default", ours.SearchNetP99/steady[trial.ModeDefault].SearchNetP99, 0.6)
			atMost(t, "steady search_net_p99_ms against pinned", ours.SearchNetP99/steady[trial.ModePinned].SearchNetP99, 1.05)
			atMost(t, "drift cost_vs_best", drift[trial.ModeNetLatency].CostVsBest, 1.10)
			atMost(t, "drift search_net_p99_ms against pinned", drift[trial.ModeNetLatency].SearchNetP99/drift[trial.ModePinned].SearchNetP99, 0.7)

			evenlyShared(t, s, ours)
			for i, phase := range report.Phases {
				atLeast(t, phase.Name+", share of the workers whose provider simulate foretold", right(s, foretold[i], phase.Modes[trial.ModeNetLatency]), 0.95)
			}
		})
	}
}

// evenlyShared checks that nodes that are alike and equally near have as many
// workers. A provider's nodes are alike. Equally near is what the agents could
// see: a machine whose processors are taken away holds packets back, which
// makes a node truly farther. The half of the band is for the tail and for what
// hysteresis keeps, which the mean cost leaves out.
func evenlyShared(t *testing.T, s *sandbox.Sandbox, m *trial.Mode) {
	t.Helper()
	var shares, costs []float64
	best := math.Inf(1)
	for _, cost := range m.HeldCost {
		best = min(best, cost)
	}
	for _, n := range s.Scenario.NodeList() {
		if n.Provider != "hetzner" {
			continue
		}
		costs = append(costs, m.HeldCost[n.Name])
		if m.HeldCost[n.Name] <= best*1.05 {
			shares = append(shares, float64(m.PerNode[n.Name]))
		}
	}
	if len(shares) < 2 {
		t.Logf("no two nodes were equally near: %v ms", costs)
	} else if slices.Max(shares)-slices.Min(shares) > 2 {
		t.Errorf("equally near nodes share the burst %v, their costs were %v ms", m.PerNode, m.HeldCost)
	}
}

func atMost(t *testing.T, what string, got, limit float64) {
	t.Helper()
	if !(got <= limit) {
		t.Errorf("%s is %.4f, want at most %v", what, got, limit)
	}
}

func atLeast(t *testing.T, what string, got, limit float64) {
	t.Helper()
	if !(got >= limit) {
		t.Errorf("%s is %.4f, want at least %v", what, got, limit)
	}
}

// progress logs the steps of a trial with the test.
type progress struct{ t *testing.T }

func (p progress) Step(format string, args ...any) { p.t.Helper(); p.t.Logf(format, args...) }
func (progress) Status(string, ...any)             {}

// lines is a table in a log.
type lines []byte

func (l *lines) Write(p []byte) (int, error) { *l = append(*l, p...); return len(p), nil }
func (l lines) String() string               { return string(l) }

// simulated is how many workers each provider will have, by what "simulate"
// says of a service that is scaled up by so many.
func simulated(ctx context.Context, t *testing.T, s *sandbox.Sandbox, service *cluster.RayService, workers int) (map[string]int, error) {
	t.Helper()
	running, err := s.Cluster.Workers(ctx, service.Key())
	if err != nil {
		return nil, err
	}
	places := make(map[string]int)
	for _, w := range running {
		places[providerOf(s, w.Spec.NodeName)]++
	}
	manifest, err := json.Marshal(service.Object())
	if err != nil {
		return nil, err
	}
	file := filepath.Join(t.TempDir(), "rayservice.json")
	if err := os.WriteFile(file, manifest, 0o600); err != nil {
		return nil, err
	}
	var forecast struct {
		Groups []struct {
			Waiting int
			Places  []struct {
				Node string
				Pods int
			}
		}
	}
	text := kubectlNetlatency(t, "simulate", "-f", file, "--replicas", strconv.Itoa(workers), "-o", "json", "--kubeconfig", kubeconfigOf(t, s))
	if err := json.Unmarshal([]byte(text), &forecast); err != nil {
		return nil, err
	}
	for _, place := range forecast.Groups[0].Places {
		places[providerOf(s, place.Node)] += place.Pods
	}
	t.Logf("simulate foretells %v, and %d that wait", places, forecast.Groups[0].Waiting)
	return places, nil
}

// right is the share of a burst's workers that are at the provider foretold.
func right(s *sandbox.Sandbox, foretold map[string]int, m *trial.Mode) float64 {
	places := make(map[string]int)
	for node, n := range m.PerNode {
		places[providerOf(s, node)] += n
	}
	sum := 0
	for provider, n := range places {
		sum += min(n, foretold[provider])
	}
	return float64(sum) / float64(m.Bound)
}
