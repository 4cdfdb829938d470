package chart_test

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	configv1 "github.com/netlatency/netlatency/apis/config/v1"
	"github.com/netlatency/netlatency/pkg/exposition"
)

// rules is the file of recording rules. That they mean what they should is
// tested with a real Prometheus, in test/integration.
type rules struct {
	Groups []struct {
		Name, Interval string
		Rules          []struct{ Record, Expr string }
	}
}

const rulesFile = chartDirectory + "/files/rules.yaml"

func readRules(t *testing.T) (rules, map[string]bool) {
	t.Helper()
	data, err := os.ReadFile(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	var file rules
	if err := yaml.UnmarshalStrict(data, &file); err != nil {
		t.Fatal(err)
	}
	records := make(map[string]bool)
	for _, group := range file.Groups {
		for _, rule := range group.Rules {
			records[rule.Record] = true
		}
	}
	return file, records
}

// recorded is whether a metric is one that rules record.
func recorded(name string) bool { return strings.Contains(name, ":") }

// series is the metrics and records of netlatency that an expression names.
var series = regexp.MustCompile(`netlatency[_:][\w:]+`)

func TestRecordingRulesAreOfMetricsThatThereAre(t *testing.T) {
	file, records := readRules(t)
	for _, group := range file.Groups {
		for _, rule := range group.Rules {
			for _, name := range series.FindAllString(rule.Expr, -1) {
				if !records[name] && !slices.Contains([]string{exposition.RTTSeconds, exposition.ProbesSentTotal, exposition.ProbesLostTotal}, name) {
					t.Errorf("%s is computed from %s, which there is not", rule.Record, name)
				}
			}
		}
	}
}

func TestTheDefaultQueriesAskForWhatIsRecorded(t *testing.T) {
	_, records := readRules(t)
	q := configv1.DefaultPrometheusQueries()
	asked := map[string]bool{"netlatency:rtt_seconds:increase5m": true} // which the others are made of
	for _, query := range []string{q.Mean, q.P50, q.P90, q.P99, q.Samples, q.Sent, q.Loss, q.Timestamp} {
		names := series.FindAllString(query, -1)
		if len(names) != 1 || !strings.Contains(query, names[0]+`{peer=~"$peers"}`) {
			t.Errorf("the query %s is not for one record of target nodes only", query)
		}
		for _, name := range names {
			asked[name] = true
		}
	}
	if diff := cmp.Diff(records, asked); diff != "" {
		t.Errorf("records (-recorded +asked for):\n%s", diff)
	}
}

func TestEveryRecordIsDocumented(t *testing.T) {
	_, records := readRules(t)
	got := slices.Sorted(maps.Keys(documented(t, "Metrics")))
	got = slices.DeleteFunc(got, func(name string) bool { return !recorded(name) })
	if diff := cmp.Diff(slices.Sorted(maps.Keys(records)), got); diff != "" {
		t.Errorf("records (-rules +documentation):\n%s", diff)
	}
}

func TestThePrometheusOperatorIsOptional(t *testing.T) {
	for name := range render(t, "") {
		if strings.Contains(name, "PodMonitor") || strings.Contains(name, "PrometheusRule") {
			t.Errorf("%s is there by default: without its CRD the chart cannot be installed", name)
		}
	}
}

func TestForThePrometheusOperator(t *testing.T) {
	objects := render(t, "{podMonitor: {enabled: true, interval: 30s, labels: {release: stack}}, prometheusRule: {enabled: true, labels: {release: stack}}}")
	monitor := get[*unstructured.Unstructured](t, objects, "PodMonitor netlatency/netlatency-agent")
	want := map[string]any{
		"selector": map[string]any{"matchLabels": map[string]any{
			"app.kubernetes.io/name": "netlatency", "app.kubernetes.io/instance": "netlatency", "app.kubernetes.io/component": "agent",
		}},
		"scrapeNativeHistograms": true, "nativeHistogramBucketLimit": int64(160),
		"podMetricsEndpoints": []any{map[string]any{"port": "http", "path": exposition.MetricsPath, "interval": "30s", "honorLabels": true}},
	}
	if diff := cmp.Diff(want, monitor.Object["spec"]); diff != "" {
		t.Errorf("PodMonitor (-want +got):\n%s", diff)
	}
	rule := get[*unstructured.Unstructured](t, objects, "PrometheusRule netlatency/netlatency-agent")
	for _, object := range []*unstructured.Unstructured{monitor, rule} {
		if object.GetLabels()["release"] != "stack" || object.GetNamespace() != "netlatency" {
			t.Errorf("%s has labels %v, in %s", object.GetKind(), object.GetLabels(), object.GetNamespace())
		}
	}
	data, err := os.ReadFile(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	var file map[string]any
	if err := yaml.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(file, rule.Object["spec"]); diff != "" {
		t.Errorf("rules (-file +PrometheusRule):\n%s", diff)
	}
	plain := get[*unstructured.Unstructured](t, render(t, "podMonitor: {enabled: true, scrapeNativeHistograms: false}"), "PodMonitor netlatency/netlatency-agent")
	if _, there := plain.Object["spec"].(map[string]any)["scrapeNativeHistograms"]; there {
		t.Error("the field that older operators do not know is there")
	}
}
