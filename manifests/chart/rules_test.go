package chart_test

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	configv1 "github.com/netlatency/netlatency/apis/config/v1"
	"github.com/netlatency/netlatency/pkg/exposition"
)

// ruleFile is a file of rules. That they mean what they should is tested with
// Prometheus itself, in test/integration.
type ruleFile struct {
	Groups []struct {
		Name, Interval string
		Rules          []rule
	}
}

type rule struct {
	Record, Alert, Expr, For string
	Labels, Annotations      map[string]string
}

const (
	rulesFile  = chartDirectory + "/files/rules.yaml"
	alertsFile = chartDirectory + "/files/alerts.yaml"
)

func readRuleFile(t *testing.T, name string) []rule {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var file ruleFile
	if err := yaml.UnmarshalStrict(data, &file); err != nil {
		t.Fatal(err)
	}
	var all []rule
	for _, group := range file.Groups {
		all = append(all, group.Rules...)
	}
	return all
}

// readRecords is the recording rules, and the names of what they record.
func readRecords(t *testing.T) ([]rule, map[string]bool) {
	t.Helper()
	all, records := readRuleFile(t, rulesFile), make(map[string]bool)
	for _, rule := range all {
		records[rule.Record] = true
	}
	return all, records
}

// recorded is whether a metric is one that rules record.
func recorded(name string) bool { return strings.Contains(name, ":") }

// series is the metrics and records of netlatency that an expression names.
var series = regexp.MustCompile(`netlatency[_:][\w:]+`)

// suffixes are what Prometheus adds to the name of a histogram for its parts.
var suffixes = regexp.MustCompile("_(sum|count|bucket)$")

// unknownSeries is the metrics and records of ours that an expression names and
// that there are not.
func unknownSeries(t *testing.T, expr string) []string {
	t.Helper()
	_, records := readRecords(t)
	metrics := metricNames(t)
	return slices.DeleteFunc(series.FindAllString(expr, -1), func(name string) bool {
		return records[name] || metrics[name] || metrics[suffixes.ReplaceAllString(name, "")]
	})
}

func TestRulesAreOfMetricsThatThereAre(t *testing.T) {
	for _, rule := range slices.Concat(readRuleFile(t, rulesFile), readRuleFile(t, alertsFile)) {
		for _, name := range unknownSeries(t, rule.Expr) {
			t.Errorf("%s%s is computed from %s, which there is not", rule.Record, rule.Alert, name)
		}
	}
}

// What is recorded of every pair costs series; what of providers does not.
func TestOfPairsIsRecordedWhatTheDefaultQueriesAskFor(t *testing.T) {
	_, records := readRecords(t)
	maps.DeleteFunc(records, func(name string, _ bool) bool {
		return strings.Contains(name, "provider") || name == "netlatency:recorded_peers:info"
	})
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
	_, records := readRecords(t)
	got := slices.Sorted(maps.Keys(tableRows(metricsPage(t))))
	got = slices.DeleteFunc(got, func(name string) bool { return !recorded(name) })
	if diff := cmp.Diff(slices.Sorted(maps.Keys(records)), got); diff != "" {
		t.Errorf("records (-rules +documentation):\n%s", diff)
	}
}

func TestThePrometheusOperatorIsOptional(t *testing.T) {
	for name := range render(t, "") {
		if strings.Contains(name, "Monitor") || strings.Contains(name, "PrometheusRule") {
			t.Errorf("%s is there by default: without its CRD the chart cannot be installed", name)
		}
	}
}

func TestForThePrometheusOperator(t *testing.T) {
	objects := render(t, "{podMonitor: {enabled: true, interval: 30s, labels: {release: stack}}, prometheusRule: {enabled: true, labels: {release: stack}}}")
	monitor := get[*unstructured.Unstructured](t, objects, "PodMonitor netlatency/netlatency-agent")
	relabelled := []any{
		map[string]any{"targetLabel": "job", "replacement": "netlatency-agent"},
		map[string]any{"sourceLabels": []any{"__meta_kubernetes_pod_node_name"}, "targetLabel": "node"},
	}
	endpoint := map[string]any{"port": "http", "path": exposition.MetricsPath, "interval": "30s", "honorLabels": true, "relabelings": relabelled}
	want := map[string]any{
		"selector": map[string]any{"matchLabels": map[string]any{
			"app.kubernetes.io/name": "netlatency", "app.kubernetes.io/instance": "netlatency", "app.kubernetes.io/component": "agent",
		}},
		"scrapeNativeHistograms": true, "nativeHistogramBucketLimit": int64(160),
		"podMetricsEndpoints": []any{endpoint},
	}
	if diff := cmp.Diff(want, monitor.Object["spec"]); diff != "" {
		t.Errorf("PodMonitor (-want +got):\n%s", diff)
	}
	records := get[*unstructured.Unstructured](t, objects, "PrometheusRule netlatency/netlatency-agent")
	alerts := get[*unstructured.Unstructured](t, objects, "PrometheusRule netlatency/netlatency-alerts")
	scheduler := get[*unstructured.Unstructured](t, objects, "ServiceMonitor netlatency/netlatency-scheduler")
	for _, object := range []*unstructured.Unstructured{monitor, records, alerts, scheduler} {
		if object.GetLabels()["release"] != "stack" || object.GetNamespace() != "netlatency" {
			t.Errorf("%s has labels %v, in %s", object.GetKind(), object.GetLabels(), object.GetNamespace())
		}
	}
	for name, object := range map[string]*unstructured.Unstructured{rulesFile: records, alertsFile: alerts} {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var file map[string]any
		if err := yaml.Unmarshal(data, &file); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(file, object.Object["spec"]); diff != "" {
			t.Errorf("rules (-%s +PrometheusRule):\n%s", name, diff)
		}
	}
	if _, there := objects["ServiceMonitor netlatency/netlatency-agent"]; there {
		t.Error("a ServiceMonitor scrapes the agents a second time")
	}

	// The same by Services.
	objects = render(t, "{serviceMonitor: {enabled: true, interval: 30s}, prometheusRule: {enabled: true, alerts: false}}")
	if _, there := objects["PrometheusRule netlatency/netlatency-alerts"]; there {
		t.Error("there are alerts although they are switched off")
	}
	delete(want, "podMetricsEndpoints")
	want["endpoints"] = []any{endpoint}
	if diff := cmp.Diff(want, get[*unstructured.Unstructured](t, objects, "ServiceMonitor netlatency/netlatency-agent").Object["spec"]); diff != "" {
		t.Errorf("ServiceMonitor (-want +got):\n%s", diff)
	}
	monitored := get[*unstructured.Unstructured](t, objects, "ServiceMonitor netlatency/netlatency-scheduler").Object["spec"].(map[string]any)
	service := get[*corev1.Service](t, objects, "Service netlatency/netlatency-scheduler")
	for label, value := range monitored["selector"].(map[string]any)["matchLabels"].(map[string]any) {
		if service.Labels[label] != value {
			t.Errorf("the scheduler's ServiceMonitor looks for %s=%v, its Service has %q", label, value, service.Labels[label])
		}
	}
	if got := monitored["endpoints"].([]any)[0].(map[string]any)["port"]; got != service.Spec.Ports[0].Name || service.Spec.Ports[0].TargetPort.StrVal != "https" {
		t.Errorf("the scheduler's ServiceMonitor scrapes port %v, its Service has %+v", got, service.Spec.Ports)
	}
	other := get[*unstructured.Unstructured](t, render(t, "{fullnameOverride: other, prometheusRule: {enabled: true}}"), "PrometheusRule netlatency/other-alerts")
	if text := fmt.Sprint(other.Object["spec"]); strings.Contains(text, `daemonset="netlatency-agent"`) || !strings.Contains(text, `daemonset="other-agent"`) {
		t.Error("alerts are about a DaemonSet of another name than the chart's")
	}

	plain := get[*unstructured.Unstructured](t, render(t, "podMonitor: {enabled: true, scrapeNativeHistograms: false}"), "PodMonitor netlatency/netlatency-agent")
	if _, there := plain.Object["spec"].(map[string]any)["scrapeNativeHistograms"]; there {
		t.Error("the field that older operators do not know is there")
	}
}
