package netlatency

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"github.com/netlatency/netlatency/apis/config"
)

func TestParseNear(t *testing.T) {
	heavy := qdrantTarget()
	heavy.Weight = 3
	known := []config.Target{heavy, gpuTarget()}
	pods := func(name string, change func(*config.Target)) config.Target {
		t := config.Target{Name: name, Weight: 1, Aggregation: config.AggregationMean, Pods: &config.PodsTarget{
			LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "redis"}, MatchExpressions: []metav1.LabelSelectorRequirement{}},
		}}
		change(&t)
		return t
	}
	with := func(target config.Target, change func(*config.Target)) config.Target {
		change(&target)
		return target
	}
	tests := []struct {
		text string
		want []config.Target
	}{
		{"none", nil},
		{" none ", nil},
		{"qdrant", []config.Target{heavy}},
		{"qdrant; gpu", []config.Target{heavy, gpuTarget()}},
		{"gpu weight=5 aggregation=Nearest quantile=0.9 maxRTT=3ms;qdrant maxRTT=1ms whenUnknown=Reject", []config.Target{
			with(gpuTarget(), func(t *config.Target) {
				t.Weight, t.Aggregation, t.Quantile = 5, config.AggregationNearest, new(0.9)
				t.MaxRTT, t.WhenUnknown = &metav1.Duration{Duration: 3 * ms}, config.UnknownAllow
			}),
			with(heavy, func(t *config.Target) {
				t.MaxRTT, t.WhenUnknown = &metav1.Duration{Duration: ms}, config.UnknownReject
			}),
		}},
		{"pods(app=redis)", []config.Target{pods("pods(app=redis)", func(*config.Target) {})}},
		{"pods(app=redis) namespace=cache,other weight=2", []config.Target{pods("pods(app=redis)", func(t *config.Target) {
			t.Weight, t.Pods.Namespaces = 2, []string{"cache", "other"}
		})}},
		{"pods(app=redis) namespace=* same=ray.io/cluster", []config.Target{pods("pods(app=redis)", func(t *config.Target) {
			t.Pods.NamespaceSelector, t.Pods.MatchLabelKeys = &metav1.LabelSelector{}, []string{"ray.io/cluster"}
		})}},
		{"nodes(role in (a, b))", []config.Target{{Name: "nodes(role in (a, b))", Weight: 1, Aggregation: config.AggregationMean, Nodes: &config.NodesTarget{
			LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{}, MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "role", Operator: "In", Values: []string{"a", "b"}}}},
		}}}},
		{"resource(nvidia.com/gpu)", []config.Target{{Name: "resource(nvidia.com/gpu)", Weight: 1, Aggregation: config.AggregationMean, Nodes: &config.NodesTarget{Resource: "nvidia.com/gpu"}}}},
		{"service(redis); service(cache/redis)", []config.Target{
			{Name: "service(redis)", Weight: 1, Aggregation: config.AggregationMean, Service: &config.ServiceTarget{Name: "redis"}},
			{Name: "service(cache/redis)", Weight: 1, Aggregation: config.AggregationMean, Service: &config.ServiceTarget{Namespace: "cache", Name: "redis"}},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			got, err := parseNear(tt.text, known)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("targets (-want +got):\n%s", diff)
			}
		})
	}
	if diff := cmp.Diff([]config.Target{heavy, gpuTarget()}, known); diff != "" {
		t.Errorf("the configuration was changed (-was +is):\n%s", diff)
	}
}

func TestAMistakeInAnAnnotationIsNamed(t *testing.T) {
	for text, want := range map[string]string{
		"":                           `it is empty; name targets, as in "qdrant; pods(app=redis) weight=2", or say none`,
		"qdrnt":                      `there is no target "qdrnt"; the configuration has qdrant, gpu, others are written as pods(...)`,
		"qdrant;":                    "a target is empty; remove the semicolon",
		"qdrant; qdrant":             "qdrant is named twice",
		"qdrant 3":                   `qdrant: "3" is no option; options are weight, aggregation`,
		"qdrant wieght=3":            `qdrant: "wieght" is no option; options are weight, aggregation`,
		"qdrant weight=3 weight=4":   "qdrant: weight is given twice",
		"qdrant weight=three":        "qdrant: weight=three must be a whole number from 1 to 100",
		"qdrant weight=1000":         "qdrant.weight: Invalid value: 1000: must be from 1 to 100",
		"qdrant maxRTT=3":            "qdrant: maxRTT=3 must be a duration, such as 3ms",
		"qdrant maxRTT=1ns":          "qdrant.maxRTT: Invalid value: \"1ns\": must be from 10µs to 10s",
		"qdrant whenUnknown=Allow":   "qdrant.whenUnknown: Forbidden: may be given only with maxRTT",
		"qdrant aggregation=Median":  `qdrant.aggregation: Unsupported value: "Median"`,
		"qdrant quantile=0.95":       "qdrant.quantile: Invalid value: 0.95: must be 0.5, 0.9 or 0.99",
		"gpu namespace=a":            "gpu: namespace is for pods alone",
		"pods(app=redis":             "pods(app=redis lacks its closing parenthesis",
		"pods()":                     "pods().pods.labelSelector: Required value: must have matchLabels or matchExpressions, an empty selector would choose everything",
		"pods(app==)) x":             "pods(app==))",
		"pods(a~b)":                  "pods(a~b)",
		"pods(app=redis) same=a/b/c": "pods(app=redis).pods.matchLabelKeys[0]: Invalid value",
		"service(/redis)":            "service(/redis) has an empty namespace",
		"service(Redis)":             "service(Redis).service.name: Invalid value",
		"deployment(redis)":          `"deployment" is none of pods, nodes, resource and service`,
		strings.Repeat("x", 3000):    "it has 3000 bytes; at most 2048 are read",
		strings.Repeat("a;", 100):    `there is no target "a"`,
	} {
		_, err := parseNear(text, []config.Target{qdrantTarget(), gpuTarget()})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error is %v, want one with %q", text, err, want)
		}
	}
}

func TestTheDocumentedAnnotationIsUnderstood(t *testing.T) {
	text, err := os.ReadFile("../../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := regexp.MustCompile("(?m)^    "+nearAnnotation+": (.*)$").FindAllSubmatch(text, -1)
	if len(examples) == 0 {
		t.Fatal("the documentation has no example of an annotation")
	}
	for _, example := range examples {
		if _, err := parseNear(string(example[1]), []config.Target{qdrantTarget()}); err != nil {
			t.Errorf("%s: %v", example[1], err)
		}
	}
}

func TestAPodsOwnAnnotationReplacesItsRule(t *testing.T) {
	objects := []runtime.Object{node("a"), node("b"), qdrant("q-0", "a"), st.MakePod().Namespace("ray").Name("redis").UID("redis").Label("app", "redis").Node("b").
		Phase("Running").Condition("Ready", "True", "").Obj()}
	c := newCluster(t, setting{args: newArgs(qdrantTarget()), objects: objects})
	c.measure(rtts{{"a", "b"}: 5 * ms, {"b", "a"}: 5 * ms})
	nearQdrant, nearRedis := map[string]int64{"a": 100, "b": 2}, map[string]int64{"a": 2, "b": 100}
	tests := []struct {
		text      string
		namespace string
		want      map[string]int64
		event     string
	}{
		{text: "pods(app=redis)", want: nearRedis},
		{text: "qdrant; pods(app=redis) weight=100", want: map[string]int64{"a": 3, "b": 100}},
		{text: "none"},
		{text: "pods(app=redis)", namespace: "other", event: "Warning NetLatencyNoReplicas"},
		{text: "pods(app=redis) namespace=ray", namespace: "other", want: nearRedis},
		{text: "pods(app=redis) namespace=*", namespace: "other", want: nearRedis},
		{text: "qdrnt", want: nearQdrant,
			event: "Warning NetLatencyBadAnnotation The annotation netlatency.io/near is not understood, and the rules of scheduler profile " + c.plugin.metrics.profile + ` count instead: there is no target "qdrnt"; the configuration has qdrant`},
	}
	for _, tt := range tests {
		t.Run(tt.text+" in "+tt.namespace, func(t *testing.T) {
			pod := worker()
			pod.Name = tt.text + tt.namespace
			pod.UID = "uid-" + pod.UID
			if tt.namespace != "" {
				pod.Namespace = tt.namespace
			}
			pod.Annotations = map[string]string{nearAnnotation: tt.text}
			for range 2 {
				if diff := cmp.Diff(tt.want, c.score(pod)); diff != "" {
					t.Errorf("scores (-want +got):\n%s", diff)
				}
			}
			select {
			case event := <-c.events.Events:
				if tt.event == "" || !strings.HasPrefix(event, tt.event) {
					t.Errorf("event is %q, want %q", event, tt.event)
				}
			default:
				if tt.event != "" {
					t.Errorf("no event, want %q", tt.event)
				}
			}
		})
	}
}

func TestNearMyOwnRayHead(t *testing.T) {
	head := func(cluster, namespace, node string) runtime.Object {
		return st.MakePod().Namespace(namespace).Name("head-"+cluster).UID(namespace+cluster).Label("ray.io/node-type", "head").Label("ray.io/cluster", cluster).
			Node(node).Phase("Running").Condition("Ready", "True", "").Obj()
	}
	target := config.Target{Name: "head", Weight: 1, Aggregation: config.AggregationMean, Pods: &config.PodsTarget{
		LabelSelector:  &metav1.LabelSelector{MatchLabels: map[string]string{"ray.io/node-type": "head"}},
		MatchLabelKeys: []string{"ray.io/cluster"},
	}}
	c := newCluster(t, setting{args: newArgs(target), objects: []runtime.Object{
		node("a"), node("b"), head("one", "ray", "a"), head("two", "ray", "b"), head("one", "other", "b"),
	}})
	c.measure(rtts{{"a", "b"}: 5 * ms, {"b", "a"}: 5 * ms})
	worker := func(cluster, namespace string) map[string]int64 {
		return c.score(st.MakePod().Namespace(namespace).Name("w").UID(cluster+namespace).Label("ray.io/cluster", cluster).Obj())
	}
	for _, tt := range []struct {
		cluster, namespace string
		want               map[string]int64
	}{
		{"one", "ray", map[string]int64{"a": 100, "b": 2}},
		{"two", "ray", map[string]int64{"a": 2, "b": 100}},
		{"one", "other", map[string]int64{"a": 2, "b": 100}},
		{"three", "ray", nil},
	} {
		if diff := cmp.Diff(tt.want, worker(tt.cluster, tt.namespace)); diff != "" {
			t.Errorf("worker of %s in %s (-want +got):\n%s", tt.cluster, tt.namespace, diff)
		}
	}
	if got := c.plugin.demands.byKey.Len(); got != 4 {
		t.Errorf("%d demands are kept, want one for each cluster", got)
	}
}

func TestDemandsAreBounded(t *testing.T) {
	c := newCluster(t, setting{args: newArgs(qdrantTarget())})
	for i := range maxDemands + 100 {
		pod := worker()
		pod.Annotations = map[string]string{nearAnnotation: "pods(app=redis) namespace=team-" + strconv.Itoa(i)}
		if _, fault := c.plugin.demandFor(pod); fault != nil {
			t.Fatal(fault)
		}
	}
	targets, _ := c.plugin.targets.Census()
	if got := c.plugin.demands.byKey.Len(); got != maxDemands || targets != maxDemands+1 {
		t.Errorf("%d demands and %d targets are kept, want %d and one more", got, targets, maxDemands)
	}
}

func TestWhatAViewKeepsIsBounded(t *testing.T) {
	c := newCluster(t, setting{args: newArgs(qdrantTarget()), objects: []runtime.Object{node("a"), qdrant("q-0", "a")}})
	pod := worker()
	c.score(pod)
	for i := range 2*maxKept + 10 {
		pod.Annotations = map[string]string{nearAnnotation: "qdrant; pods(app=redis) namespace=team-" + strconv.Itoa(i)}
		c.score(pod)
	}
	view := c.plugin.view.Load()
	if got := len(view.costs); got > maxKept+1 {
		t.Errorf("costs of %d demands are kept, want at most %d besides that of the rule", got, maxKept)
	}
	if view.costs[c.plugin.rules[0].same] == nil || len(view.coverage(c.plugin.rules)) != 1 {
		t.Error("what is kept for the rule was dropped with the rest")
	}
}

// FuzzNear looks for annotations that break the parser, and for ones that it
// takes although no target can be made of them.
func FuzzNear(f *testing.F) {
	for _, text := range []string{
		"none", "", "qdrant", "qdrant; gpu weight=2", "pods(app=redis) namespace=* same=a,b maxRTT=3ms whenUnknown=Reject",
		"nodes(a in (b,c),!d)", "resource(nvidia.com/gpu)", "service(a/b) aggregation=Worst quantile=0.5", "pods((", "pods())) weight=", ";;;", "qdrant maxRTT=NaN",
	} {
		f.Add(text)
	}
	c := newCluster(f, setting{args: newArgs(qdrantTarget(), gpuTarget()), objects: []runtime.Object{node("a"), node("b"), qdrant("q-0", "store")}})
	c.measure(rtts{{"a", "store"}: 1 * ms, {"b", "store"}: 2 * ms})
	want := c.score(worker())
	f.Fuzz(func(t *testing.T, text string) {
		c.t = t
		targets, err := parseNear(text, c.plugin.args.Targets)
		pod := worker()
		pod.Annotations = map[string]string{nearAnnotation: text}
		d, fault := c.plugin.demandFor(pod)
		if (err == nil) != (fault == nil) {
			t.Fatalf("parsed with %v, and no demand for it: %v", err, fault)
		}
		if err == nil && len(targets) > 0 && len(d.wants) != len(targets) {
			t.Fatalf("%d targets became %d", len(targets), len(d.wants))
		}
		c.filter(pod)
		scores := c.score(pod)
		if err != nil && !cmp.Equal(want, scores) {
			t.Errorf("scores are %v, want those by the rules, %v", scores, want)
		}
		for _, where := range []string{"PreFilter", "PreScore", "NormalizeScore", "pods"} {
			if counted(t, c.plugin.metrics.panics.WithLabelValues(c.plugin.metrics.profile, where)) > 0 {
				t.Fatalf("a panic in %s", where)
			}
		}
		select {
		case <-c.events.Events: // room for the next
		default:
		}
	})
}
