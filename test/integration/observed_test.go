package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/api"
	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/netlatency/netlatency/test/sandbox"
)

const dashboardFile = "../../manifests/chart/netlatency/dashboards/netlatency.json"

// unanswered is what a cluster that is well, and minutes old, has no series of:
// names in a query, and why. All else that dashboard, rules and alerts ask for
// must be there.
var unanswered = map[string]string{
	"ALERTS":                                      "an alert must hold for minutes before it fires",
	"netlatency_full_size_probes_lost_total":      "only pairs that lost some have it",
	"netlatency_panics_total":                     "there was none",
	"netlatency_probes_lost_total":                "only pairs that lost some have it",
	"netlatency_source_dropped_rows_total":        "a reason has its series from its first row on",
	"netlatency_source_failures_total":            "a reason has its series from its first failure on",
	"netlatency:probes_lost:ratio30m":             "only pairs that lost some have it",
	"netlatency:provider_probes_lost:ratio30m":    "only pairs that lost some have it",
	"scheduler_plugin_execution_duration_seconds": "kube-scheduler times one cycle of ten",
}

// excused is whether an empty answer to a query has a reason.
func excused(query string) bool {
	return slices.ContainsFunc(slices.Collect(maps.Keys(unanswered)), func(name string) bool { return strings.Contains(query, name) })
}

// whatIsAskedIsAnswered runs every query of the dashboard and every expression
// of a rule or an alert on the Prometheus at url, which has scraped a cluster
// that is well and in which pods were placed.
func whatIsAskedIsAnswered(ctx context.Context, t *testing.T, s *sandbox.Sandbox, url string) {
	t.Helper()
	client, err := api.NewClient(api.Config{Address: url})
	if err != nil {
		t.Fatal(err)
	}
	prometheus := promv1.NewAPI(client)
	const pods = 4
	createWorkers(ctx, t, s, "observed", pods)
	waitBound(ctx, t, s, "observed", pods)
	defer deleteWorkers(ctx, t, s, "observed")

	answer := func(query string) model.Vector {
		t.Helper()
		value, warnings, err := prometheus.Query(ctx, query, time.Now())
		if err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		if len(warnings) > 0 {
			t.Errorf("%s: %v", query, warnings)
		}
		vector, ok := value.(model.Vector)
		if !ok {
			t.Fatalf("%s has an answer of type %s", query, value.Type())
		}
		return vector
	}
	panels := dashboardQueries(t)
	rules := rulesOf(t, rulesFile)
	alerts := rulesOf(t, alertsFile)
	var open []string // queries that should be answered and are not
	ask := func(what, query string) {
		if len(answer(query)) == 0 && !excused(query) {
			open = append(open, what+": "+query)
		}
	}
	waitFor(ctx, t, "queries to be answered", func() (bool, error) {
		open = nil
		for _, panel := range panels {
			ask(panel[0], panel[1])
		}
		for _, rule := range rules {
			ask(rule.Record, rule.Record)
		}
		// A cluster that is well has no answer to what alerts ask. That is worth
		// something if what they are made of is there.
		for _, alert := range alerts {
			for _, name := range selected.FindAllString(alert.Expr, -1) {
				ask(alert.Alert, name)
			}
		}
		return len(open) == 0, fmt.Errorf("no answer to\n%s", strings.Join(open, "\n"))
	})
	t.Logf("%d queries of the dashboard, %d rules and %d alerts", len(panels), len(rules), len(alerts))
	for name, reason := range unanswered {
		if len(answer(`{__name__=~"`+name+`(_bucket)?"}`)) > 0 {
			t.Logf("%s has series, although %s", name, reason)
		}
	}

	firing := make(map[string][]string)
	for _, alert := range alerts {
		for _, sample := range answer(alert.Expr) {
			firing[alert.Alert] = append(firing[alert.Alert], sample.Metric.String())
		}
	}
	want := map[string][]string{"NetlatencyPodsWaiting": {`{name="netlatency-gone"}`}} // as kube-state-metrics was made to say
	if diff := cmp.Diff(want, firing); diff != "" {
		t.Errorf("what alerts see in a cluster that is well (-want +got):\n%s", diff)
	}

	// The server evaluates them by itself too, and would say what is wrong.
	loaded, err := prometheus.Rules(ctx)
	if err != nil {
		t.Fatal(err)
	}
	evaluated := 0
	for _, group := range loaded.Groups {
		for _, rule := range group.Rules {
			evaluated++
			switch r := rule.(type) {
			case promv1.RecordingRule:
				if r.Health != promv1.RuleHealthGood {
					t.Errorf("%s is %s: %s", r.Name, r.Health, r.LastError)
				}
			case promv1.AlertingRule:
				if r.Health != promv1.RuleHealthGood {
					t.Errorf("%s is %s: %s", r.Name, r.Health, r.LastError)
				}
			}
		}
	}
	if evaluated != len(rules)+len(alerts) {
		t.Errorf("the server evaluates %d rules, want %d", evaluated, len(rules)+len(alerts))
	}
}

// selected is the metrics that the expression of an alert selects.
var selected = regexp.MustCompile(`\b(netlatency[_:][\w:]+|leader_election_\w+|kube_\w+|up\b)`)

// dashboardQueries is the queries of the dashboard with the titles of their
// panels, with its variables as it opens.
func dashboardQueries(t *testing.T) [][2]string {
	t.Helper()
	data, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
		Templating struct {
			List []struct{ Name, AllValue string }
		}
	}
	if err := json.Unmarshal(data, &dashboard); err != nil {
		t.Fatal(err)
	}
	replaced := []string{"$__rate_interval", "20s"}
	for _, variable := range dashboard.Templating.List {
		replaced = append(replaced, `"$`+variable.Name+`"`, `"`+variable.AllValue+`"`)
	}
	var queries [][2]string
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			query := strings.NewReplacer(replaced...).Replace(target.Expr)
			if strings.Contains(query, "$") {
				t.Errorf("%s has an unknown variable in %s", panel.Title, query)
			}
			queries = append(queries, [2]string{panel.Title, query})
		}
	}
	return queries
}

type observedRule struct{ Record, Alert, Expr string }

func rulesOf(t *testing.T, file string) []observedRule {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var groups struct {
		Groups []struct{ Rules []observedRule }
	}
	if err := yaml.Unmarshal(data, &groups); err != nil {
		t.Fatal(err)
	}
	var all []observedRule
	for _, group := range groups.Groups {
		all = append(all, group.Rules...)
	}
	return all
}

// targetNodes is the nodes on which the targets of the sandbox run.
func targetNodes(ctx context.Context, t *testing.T, s *sandbox.Sandbox) []string {
	t.Helper()
	unique := make(map[string]bool)
	pods, err := s.Cluster.Client().CoreV1().Pods(sandbox.QdrantNamespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=qdrant"})
	if err != nil {
		t.Fatal(err)
	}
	for _, pod := range pods.Items {
		unique[pod.Spec.NodeName] = true
	}
	nodes, err := s.Cluster.Client().CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, node := range nodes.Items {
		if gpus := node.Status.Allocatable[corev1.ResourceName("nvidia.com/gpu")]; !gpus.IsZero() {
			unique[node.Name] = true
		}
	}
	return slices.Sorted(maps.Keys(unique))
}
