package netlatency

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
	"k8s.io/component-base/metrics/testutil"

	"github.com/netlatency/netlatency/pkg/exposition"
	"github.com/netlatency/netlatency/pkg/source"
)

func counted(tb testing.TB, counter metrics.CounterMetric) float64 {
	tb.Helper()
	value, err := testutil.GetCounterMetricValue(counter)
	if err != nil {
		tb.Fatal(err)
	}
	return value
}

// observed is how many observations a histogram has.
func observed(tb testing.TB, histogram metrics.ObserverMetric) int {
	tb.Helper()
	count, err := testutil.GetHistogramMetricCount(histogram)
	if err != nil {
		tb.Fatal(err)
	}
	return int(count)
}

// exposed is the lines of the scheduler's metrics that are ours and about
// profile.
func exposed(t *testing.T, profile string) []string {
	t.Helper()
	families, err := legacyregistry.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, family := range families {
		if !strings.HasPrefix(family.GetName(), "netlatency_") {
			continue
		}
		for _, m := range family.GetMetric() {
			var labels strings.Builder
			mine := false
			for _, l := range m.GetLabel() {
				if l.GetName() == "profile" {
					mine = l.GetValue() == profile
					continue
				}
				fmt.Fprintf(&labels, "%s=%s ", l.GetName(), l.GetValue())
			}
			value := m.GetGauge().GetValue()
			if family.GetType() == dto.MetricType_COUNTER {
				value = m.GetCounter().GetValue()
			}
			if h := m.GetHistogram(); h != nil {
				value = float64(h.GetSampleCount())
			}
			if mine {
				lines = append(lines, fmt.Sprintf("%s %s%v", family.GetName(), labels.String(), value))
			}
		}
	}
	slices.Sort(lines)
	return lines
}

func TestMetrics(t *testing.T) {
	c := newCluster(t, setting{
		args:    newArgs(qdrantTarget(), gpuTarget()),
		objects: []runtime.Object{node("a"), node("b"), qdrant("q-0", "store"), qdrant("q-1", "store"), qdrant("q-2", "a")},
		sources: &sources{stats: source.Stats{
			Agents: 5, Answered: 3, DiscoveryErrors: 1, RoundDuration: 250 * ms, LastSuccess: time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC),
			Failures: map[source.Failure]uint64{source.FailureTimeout: 7},
			Dropped:  map[exposition.Reason]uint64{exposition.Malformed: 2},
		}},
	})
	before := exposed(t, c.plugin.metrics.profile)
	if slices.ContainsFunc(before, func(line string) bool { return strings.HasPrefix(line, "netlatency_matrix_") }) {
		t.Errorf("there is a matrix before the first:\n%s", strings.Join(before, "\n"))
	}
	c.measure(rtts{{"a", "store"}: 1 * ms, {"b", "store"}: 2 * ms, {"b", "a"}: 1 * ms})
	c.score(worker())
	c.clock.Step(90 * time.Second)
	want := []string{
		"netlatency_activations_total 0",
		"netlatency_matrix_age_seconds 90",
		"netlatency_matrix_pairs 3",
		"netlatency_placement_cost_seconds 0",
		"netlatency_placement_excess_seconds 0",
		"netlatency_scorings_total outcome=no_data 0",
		"netlatency_scorings_total outcome=no_replicas 0",
		"netlatency_scorings_total outcome=no_targets 0",
		"netlatency_scorings_total outcome=scored 1",
		"netlatency_source_agents state=answered 3",
		"netlatency_source_agents state=known 5",
		"netlatency_source_discovery_errors_total 1",
		"netlatency_source_dropped_rows_total reason=malformed source=agents 2",
		"netlatency_source_failures_total reason=timeout source=agents 7",
		"netlatency_source_last_success_timestamp_seconds source=agents 1.7829072e+09",
		"netlatency_source_round_seconds source=agents 0.25",
		"netlatency_stale_after_seconds 120",
		"netlatency_target_coverage_nodes basis=group target=gpu 0",
		"netlatency_target_coverage_nodes basis=group target=qdrant 0",
		"netlatency_target_coverage_nodes basis=local target=gpu 0",
		"netlatency_target_coverage_nodes basis=local target=qdrant 0",
		"netlatency_target_coverage_nodes basis=measured target=gpu 0",
		"netlatency_target_coverage_nodes basis=measured target=qdrant 2",
		"netlatency_target_coverage_nodes basis=reverse target=gpu 0",
		"netlatency_target_coverage_nodes basis=reverse target=qdrant 0",
		"netlatency_target_coverage_nodes basis=unknown target=gpu 2",
		"netlatency_target_coverage_nodes basis=unknown target=qdrant 0",
		"netlatency_target_nodes target=gpu 0",
		"netlatency_target_nodes target=qdrant 2",
		"netlatency_target_replicas target=gpu 0",
		"netlatency_target_replicas target=qdrant 3",
		"netlatency_targets state=empty 1",
		"netlatency_targets state=kept 2",
	}
	if diff := cmp.Diff(want, exposed(t, c.plugin.metrics.profile)); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
}

// Two profiles: what is said of nodes is said once.
func TestMetricsOfNodes(t *testing.T) {
	grouped := zoned("grouped", "hetzner", "1")
	grouped.Labels[corev1.LabelTopologyRegion] = "eu"
	for range 2 {
		c := newCluster(t, setting{
			args:    newArgs(qdrantTarget()),
			objects: []runtime.Object{grouped, node("bare"), qdrant("q-0", "grouped")},
		})
		c.measure(rtts{{"bare", "grouped"}: 1 * ms})
		c.score(worker())
	}
	families, err := legacyregistry.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, family := range families {
		if family.GetName() != "netlatency_node_info" && family.GetName() != "netlatency_target_node_info" {
			continue
		}
		for _, m := range family.GetMetric() {
			words := []string{family.GetName()}
			for _, l := range m.GetLabel() {
				words = append(words, l.GetName()+"="+l.GetValue())
			}
			line := strings.Join(words, " ")
			if strings.Contains(line, "node=grouped") || strings.Contains(line, "node=bare") { // there are other tests
				got = append(got, line)
			}
		}
	}
	slices.Sort(got)
	want := []string{
		"netlatency_node_info node=bare provider= region= zone=",
		"netlatency_node_info node=grouped provider=hetzner region=eu zone=1",
		"netlatency_target_node_info node=grouped",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("metrics of nodes (-want +got):\n%s", diff)
	}
}

func TestAnnouncedRemembersTheLastPods(t *testing.T) {
	var a announced
	uid := func(i int) announcement { return announcement{types.UID(strconv.Itoa(i)), reasonNoData} }
	for i := range announcedMost + 10 {
		if !a.first(uid(i)) {
			t.Fatalf("pod %d is new and was not", i)
		}
	}
	if a.first(uid(announcedMost + 9)) {
		t.Error("the last pod is forgotten")
	}
	if !a.first(uid(0)) {
		t.Error("the first pod is still known: what is kept must be bounded")
	}
	if len(a.known) != announcedMost || len(a.order) != announcedMost {
		t.Errorf("%d and %d pods are kept, want %d", len(a.known), len(a.order), announcedMost)
	}
}
