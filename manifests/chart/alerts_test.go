package chart_test

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/template"

	"github.com/google/go-cmp/cmp"
)

func TestAlertsSayWhatTheyAreAbout(t *testing.T) {
	repository := load(t).Metadata.Home
	for _, alert := range readRuleFile(t, alertsFile) {
		if !strings.HasPrefix(alert.Alert, "Netlatency") || alert.Expr == "" {
			t.Errorf("%+v is no alert of ours", alert)
			continue
		}
		if !slices.Contains([]string{"info", "warning", "critical"}, alert.Labels["severity"]) || len(alert.Labels) != 1 {
			t.Errorf("%s has labels %v, want its severity", alert.Alert, alert.Labels)
		}
		if want := repository + "/blob/main/docs/operations.md#" + strings.ToLower(alert.Alert); alert.Annotations["runbook_url"] != want {
			t.Errorf("the runbook of %s is %s, want %s", alert.Alert, alert.Annotations["runbook_url"], want)
		}
		for _, name := range []string{"summary", "description"} {
			text := expanded(t, alert.Annotations[name])
			if !strings.HasSuffix(text, ".") || strings.Contains(text, "<no value>") || strings.Contains(text, " .") {
				t.Errorf("the %s of %s is %q", name, alert.Alert, text)
			}
		}
	}
}

// expanded is what Prometheus makes of an annotation of an alert that has every
// label: its template language is Go's, with these variables before and some
// functions of its own.
func expanded(t *testing.T, annotation string) string {
	t.Helper()
	name := func(float64) string { return "1.2" }
	parsed, err := template.New("").Option("missingkey=zero").Funcs(template.FuncMap{"humanizePercentage": name, "humanizeDuration": name}).
		Parse("{{ $labels := .Labels }}{{ $value := .Value }}" + annotation)
	if err != nil {
		t.Fatalf("%s: %v", annotation, err)
	}
	var out strings.Builder
	labels := make(map[string]string)
	for _, label := range []string{"instance", "node", "peer", "provider", "peer_provider", "method", "name", "pod", "target", "profile", "in"} {
		labels[label] = "the-" + label
	}
	if err := parsed.Execute(&out, map[string]any{"Labels": labels, "Value": 1.2}); err != nil {
		t.Fatalf("%s: %v", annotation, err)
	}
	return out.String()
}

func TestEveryAlertHasARunbook(t *testing.T) {
	data, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, heading := range regexp.MustCompile(`(?m)^### (Netlatency\w+)$`).FindAllStringSubmatch(string(data), -1) {
		got = append(got, heading[1])
	}
	var want []string
	for _, alert := range readRuleFile(t, alertsFile) {
		want = append(want, alert.Alert)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("runbooks (-alerts +documentation):\n%s", diff)
	}
}

// That these tests pass is for promtool to say, in test/integration.
func TestEveryAlertIsTested(t *testing.T) {
	data, err := os.ReadFile("../../test/integration/testdata/alerts_test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	fires := make(map[string]bool)
	for _, sample := range regexp.MustCompile(`labels: 'ALERTS\{alertname="(\w+)",alertstate="firing"`).FindAllStringSubmatch(string(data), -1) {
		fires[sample[1]] = true
	}
	want := make(map[string]bool)
	for _, alert := range readRuleFile(t, alertsFile) {
		want[alert.Alert] = true
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(fires))); diff != "" {
		t.Errorf("alerts that fire in a test (-alerts +tests):\n%s", diff)
	}
}
