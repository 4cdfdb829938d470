package chart_test

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	configv1 "github.com/netlatency/netlatency/apis/config/v1"
)

func TestMistakesInValuesAreNamed(t *testing.T) {
	for _, c := range []struct{ name, values, want string }{
		{"a value that does not exist", "agent: {intervall: 5s}", "at '/agent': additional properties 'intervall' not allowed"},
		{"a section that does not exist", "agents: {}", "additional properties 'agents' not allowed"},
		{"a field of the arguments that does not exist", "scheduler: {args: {staleafter: 1m}}", "at '/scheduler/args': additional properties 'staleafter' not allowed"},
		{"targets in the wrong place", "scheduler: {args: {targets: []}}", "at '/scheduler/args': additional properties 'targets' not allowed"},
		{"a field of a target that does not exist", "targets: [{name: a, pod: {}, nodes: {resource: x}}]", "at '/targets/0': additional properties 'pod' not allowed"},
		{"a target of two kinds", "targets: [{name: a, nodes: {resource: x}, service: {namespace: a, name: b}}]", "at '/targets/0': 'oneOf' failed"},
		{"a preset that does not exist", "scheduler: {profiles: [{schedulerName: a, preset: near}]}", "at '/scheduler/profiles/0/preset': value must be one of 'prefer-near', 'pack-near'"},
		{"a duration without unit", "agent: {interval: 10}", "at '/agent/interval': got number, want string"},
		{"a version that YAML took for a number", "scheduler: {emulatedVersion: 1.34}", "at '/scheduler/emulatedVersion': got number, want string"},
		{"a reader that is nobody", "networkPolicy: {readers: [{}]}", "at '/networkPolicy/readers/0': minProperties: got 0, want 1"},
		{"a policy for a scheduler that is not there", "admissionPolicy: {enabled: true, schedulerName: other}", "scheduler.profiles has only netlatency-scheduler, netlatency-scheduler-pack"},
		{"no profile", "scheduler: {profiles: []}", "at '/scheduler/profiles': minItems: got 0, want 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := renderFiles(t, c.values)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got error %v, want one with %q", err, c.want)
			}
		})
	}
}

// Helm hands a dependency the parent's global values.
func TestTheChartMayBeADependency(t *testing.T) {
	if _, err := renderFiles(t, "global: {domain: example.com}"); err != nil {
		t.Error(err)
	}
}

// The schema knows the fields of the plugin's arguments; here it is held to
// them.
func TestTheSchemaFollowsTheArguments(t *testing.T) {
	var schema struct {
		Defs map[string]struct {
			Properties map[string]any
		} `json:"$defs"`
	}
	if err := json.Unmarshal(load(t).Schema, &schema); err != nil {
		t.Fatal(err)
	}
	for definition, kind := range map[string]reflect.Type{
		"Args":              reflect.TypeFor[configv1.NetLatencyArgs](),
		"Source":            reflect.TypeFor[configv1.Source](),
		"AgentsSource":      reflect.TypeFor[configv1.AgentsSource](),
		"TargetSlices":      reflect.TypeFor[configv1.TargetSlices](),
		"PrometheusSource":  reflect.TypeFor[configv1.PrometheusSource](),
		"PrometheusQueries": reflect.TypeFor[configv1.PrometheusQueries](),
		"ClientTLS":         reflect.TypeFor[configv1.ClientTLS](),
		"FileSource":        reflect.TypeFor[configv1.FileSource](),
		"Statistic":         reflect.TypeFor[configv1.Statistic](),
		"Hysteresis":        reflect.TypeFor[configv1.Hysteresis](),
		"Band":              reflect.TypeFor[configv1.Band](),
		"Target":            reflect.TypeFor[configv1.Target](),
		"PodsTarget":        reflect.TypeFor[configv1.PodsTarget](),
		"NodesTarget":       reflect.TypeFor[configv1.NodesTarget](),
		"ServiceTarget":     reflect.TypeFor[configv1.ServiceTarget](),
		"Rule":              reflect.TypeFor[configv1.Rule](),
	} {
		var want []string
		for member := range kind.Fields() {
			name, _, _ := strings.Cut(member.Tag.Get("json"), ",")
			// Targets and rules have their own place among the values.
			if name != "" && !(definition == "Args" && (name == "targets" || name == "rules")) {
				want = append(want, name)
			}
		}
		slices.Sort(want)
		if diff := cmp.Diff(want, slices.Sorted(maps.Keys(schema.Defs[definition].Properties))); diff != "" {
			t.Errorf("properties of %s (-arguments +schema):\n%s", definition, diff)
		}
	}
}
