package scheme_test

import (
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	schedulervalidation "k8s.io/kubernetes/pkg/scheduler/apis/config/validation"
	"sigs.k8s.io/yaml"

	"github.com/netlatency/netlatency/apis/config"
	"github.com/netlatency/netlatency/apis/config/scheme"
	configv1 "github.com/netlatency/netlatency/apis/config/v1"
	"github.com/netlatency/netlatency/apis/config/validation"
)

func documentation(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("../../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// examples is the documentation's YAML blocks of that kind.
func examples(t *testing.T, kind string) []string {
	t.Helper()
	var found []string
	for _, block := range regexp.MustCompile("(?s)\n```yaml\n(.*?)\n```\n").FindAllStringSubmatch(documentation(t), -1) {
		if regexp.MustCompile("(?m)^kind: " + kind + "$").MatchString(block[1]) {
			found = append(found, block[1])
		}
	}
	if len(found) == 0 {
		t.Fatalf("the documentation has no example of a %s", kind)
	}
	return found
}

func TestDocumentedConfigurationsAreValid(t *testing.T) {
	for _, example := range examples(t, "KubeSchedulerConfiguration") {
		cfg, err := decode(example)
		if err != nil {
			t.Fatalf("%v in\n%s", err, example)
		}
		cfg.APIVersion = "kubescheduler.config.k8s.io/v1" // as kube-scheduler's options do
		if err := schedulervalidation.ValidateKubeSchedulerConfiguration(cfg); err != nil {
			t.Errorf("%v in\n%s", err, example)
		}
		args := argsOf(t, cfg).(*config.NetLatencyArgs)
		if faults := validation.ValidateNetLatencyArgs(nil, args); len(faults) > 0 || len(args.Targets) == 0 {
			t.Errorf("%v, %d targets in\n%s", faults.ToAggregate(), len(args.Targets), example)
		}
	}
}

func TestTheDocumentedMistakeIsReportedAsDocumented(t *testing.T) {
	for _, example := range examples(t, "NetLatencyArgs") {
		object, err := runtime.Decode(scheme.Codecs.UniversalDecoder(), []byte(example))
		if err != nil {
			t.Fatal(err)
		}
		faults := validation.ValidateNetLatencyArgs(nil, object.(*config.NetLatencyArgs)).ToAggregate()
		if faults == nil || !strings.Contains(documentation(t), faults.Error()) {
			t.Errorf("the documentation does not have the message: %v", faults)
		}
	}
}

// documentedFields is the table of the plugin's arguments: path to default.
func documentedFields(t *testing.T) map[string]string {
	t.Helper()
	_, section, _ := strings.Cut(documentation(t), "\n## Plugin arguments\n")
	section, _, _ = strings.Cut(section, "\n### ")
	fields := make(map[string]string)
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ([^|]*) \\|").FindAllStringSubmatch(section, -1) {
		fields[row[1]] = row[2]
	}
	return fields
}

// fieldsOf is the paths of all fields below kind.
func fieldsOf(kind reflect.Type, path string) []string {
	switch {
	case kind.Kind() == reflect.Pointer:
		return fieldsOf(kind.Elem(), path)
	case kind.Kind() == reflect.Slice && kind.Elem().Kind() == reflect.Struct:
		return fieldsOf(kind.Elem(), path+"[]")
	case kind.Kind() != reflect.Struct, kind == reflect.TypeFor[metav1.Duration](), kind == reflect.TypeFor[metav1.LabelSelector]():
		return []string{path}
	}
	var fields []string
	for member := range kind.Fields() {
		if name, _, _ := strings.Cut(member.Tag.Get("json"), ","); name != "" {
			fields = append(fields, fieldsOf(member.Type, strings.TrimPrefix(path+"."+name, "."))...)
		}
	}
	return fields
}

func TestEveryArgumentIsDocumented(t *testing.T) {
	want := slices.Sorted(slices.Values(fieldsOf(reflect.TypeFor[configv1.NetLatencyArgs](), "")))
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(documentedFields(t)))); diff != "" {
		t.Errorf("fields (-code +documentation):\n%s", diff)
	}
}

// What the documentation calls a default must change nothing when written down.
func TestDocumentedDefaultsAreTheDefaults(t *testing.T) {
	written := map[string]any{}
	for path, value := range documentedFields(t) {
		if code, ok := strings.CutPrefix(value, "`"); ok {
			var parsed any
			if err := yaml.Unmarshal([]byte(strings.TrimSuffix(code, "`")), &parsed); err != nil {
				t.Fatalf("default of %s: %v", path, err)
			}
			put(written, path, parsed)
		}
	}
	put(written, "targets[].name", "a")
	read := func(args map[string]any) runtime.Object {
		data, err := yaml.Marshal(map[string]any{"pluginConfig": []any{map[string]any{"name": "NetLatency", "args": args}}})
		if err != nil {
			t.Fatal(err)
		}
		cfg, err := decode(header + "  " + strings.ReplaceAll(strings.TrimSpace(string(data)), "\n", "\n  ") + "\n")
		if err != nil {
			t.Fatal(err)
		}
		return argsOf(t, cfg)
	}
	// A source at a time, as only one may be given.
	sources := written["source"].(map[string]any)
	for kind, documented := range sources {
		want := map[string]any{"targets": []any{map[string]any{"name": "a"}}, "source": map[string]any{kind: map[string]any{}}}
		written["source"] = map[string]any{kind: documented}
		if diff := cmp.Diff(read(want), read(written)); diff != "" {
			t.Errorf("arguments with the source %s (-defaults +documented defaults):\n%s", kind, diff)
		}
	}
	if len(sources) != 3 {
		t.Errorf("defaults are documented for %d sources, want 3", len(sources))
	}
	if got := len(written); got != 10 {
		t.Errorf("defaults are documented for %d fields at the top, want 10: the comparison is without the others", got)
	}
}

// put sets the value at path; "[]" is the one element of a list.
func put(object map[string]any, path string, value any) {
	name, rest, deeper := strings.Cut(path, ".")
	if !deeper {
		object[name] = value
		return
	}
	name, isList := strings.CutSuffix(name, "[]")
	inner := map[string]any{}
	switch known := object[name].(type) {
	case map[string]any:
		inner = known
	case []any:
		inner = known[0].(map[string]any)
	default:
		object[name] = inner
		if isList {
			object[name] = []any{inner}
		}
	}
	put(inner, rest, value)
}
