package chart_test

import (
	"encoding/json"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	cliflag "k8s.io/component-base/cli/flag"

	"github.com/netlatency/netlatency/pkg/agent"
)

func documentation(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// documented is the rows of the tables in a section of the documentation that
// begin with code, such as the name of a value: that name to the second cell.
func documented(t *testing.T, section string) map[string]string {
	t.Helper()
	_, text, found := strings.Cut(documentation(t), "\n## "+section+"\n")
	if !found {
		t.Fatalf("the documentation has no section %q", section)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	return tableRows(text)
}

// tableRows is the rows of tables that begin with code: that to the second cell.
func tableRows(text string) map[string]string {
	rows := make(map[string]string)
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ([^|]*) \\|").FindAllStringSubmatch(text, -1) {
		rows[row[1]] = strings.Trim(row[2], "`")
	}
	return rows
}

// leaves is the values that schema names, below path.
func leaves(schema map[string]any, path string) []string {
	properties, ok := schema["properties"].(map[string]any)
	if !ok {
		return []string{path}
	}
	var found []string
	for name, property := range properties {
		found = append(found, leaves(property.(map[string]any), strings.TrimPrefix(path+"."+name, "."))...)
	}
	return found
}

// What helm-docs makes of values.yaml is up to date (hack/update-manifests.sh
// --verify), but it leaves out what has no comment of its kind.
func TestEveryValueIsDocumentedWithItsDefault(t *testing.T) {
	chart := load(t)
	var schema map[string]any
	if err := json.Unmarshal(chart.Schema, &schema); err != nil {
		t.Fatal(err)
	}
	delete(schema["properties"].(map[string]any), "global") // Helm's own
	readme, err := os.ReadFile("netlatency/README.md")
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]any)
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| `([^|]*)` \\| [A-Z`].+\\. \\|$").FindAllStringSubmatch(string(readme), -1) {
		var value any
		if err := json.Unmarshal([]byte(row[2]), &value); err != nil {
			t.Errorf("the documented default of %s: %v", row[1], err)
		}
		got[row[1]] = value
	}
	want := make(map[string]any)
	for _, path := range leaves(schema, "") {
		data, err := json.Marshal(at(chart.Values, path)) // so that both have their numbers of the same type
		if err != nil {
			t.Fatal(err)
		}
		var value any
		if err := json.Unmarshal(data, &value); err != nil {
			t.Fatal(err)
		}
		want[path] = value
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("values and their defaults (-schema and values.yaml +README.md):\n%s", diff)
	}
}

// at is the value at path, nil where there is none.
func at(values map[string]any, path string) any {
	name, rest, deeper := strings.Cut(path, ".")
	if !deeper {
		return values[name]
	}
	inner, _ := values[name].(map[string]any)
	return at(inner, rest)
}

func TestDocumentedValuesLeadToAValidConfiguration(t *testing.T) {
	blocks := regexp.MustCompile("(?s)\n```yaml\n(# values.yaml\n.*?)\n```\n").FindAllStringSubmatch(documentation(t), -1)
	if len(blocks) == 0 {
		t.Fatal("the documentation has no example of values")
	}
	for _, block := range blocks {
		configuration(t, block[1])
	}
}

func TestEveryFlagOfTheAgentIsDocumentedWithItsDefault(t *testing.T) {
	for _, name := range []string{"NODE_NAME", "POD_IPS", "POD_NAMESPACE"} {
		t.Setenv(name, "$"+name) // as the documentation writes it
	}
	options := agent.DefaultOptions()
	var sets cliflag.NamedFlagSets
	options.AddFlags(&sets)
	rows := documented(t, "Agent flags")
	for _, set := range sets.FlagSets {
		set.VisitAll(func(flag *pflag.Flag) {
			cell, ok := rows["--"+flag.Name]
			delete(rows, "--"+flag.Name)
			if !ok {
				t.Errorf("the documentation lacks the flag --%s", flag.Name)
			} else if err := flag.Value.Set(cell); err != nil || flag.Value.String() != flag.DefValue {
				t.Errorf("the documented default of --%s is %s, the agent's is %s (%v)", flag.Name, cell, flag.DefValue, err)
			}
		})
	}
	for name := range rows {
		if strings.HasPrefix(name, "--") {
			t.Errorf("the documentation has %s, which is no flag", name)
		}
	}
}

// metricNames is the metrics that agents and schedulers have, by the code.
func metricNames(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for _, file := range []string{"../../pkg/exposition/names.go", "../../pkg/plugins/netlatency/metrics.go"} {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile(`"(netlatency_\w+)"`).FindAllStringSubmatch(string(source), -1) {
			names[name[1]] = true
		}
	}
	return names
}

func metricsPage(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// The tables are generated of what is registered; this finds what is not.
func TestEveryMetricIsDocumented(t *testing.T) {
	want := metricNames(t)
	got := slices.DeleteFunc(slices.Sorted(maps.Keys(tableRows(metricsPage(t)))), recorded)
	if diff := cmp.Diff(slices.Sorted(maps.Keys(want)), got); diff != "" {
		t.Errorf("metrics (-code +documentation):\n%s", diff)
	}
}

func TestNoOtherMetricIsNamed(t *testing.T) {
	want := metricNames(t)
	for _, page := range []string{"architecture.md", "configuration.md", "metrics.md", "operations.md"} {
		data, err := os.ReadFile("../../docs/" + page)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile(`netlatency_\w+`).FindAllString(string(data), -1) {
			if !want[suffixes.ReplaceAllString(name, "")] && !strings.HasSuffix(name, "_") { // as in netlatency_source_*
				t.Errorf("%s: there is no metric %s", page, name)
			}
		}
	}
}
