package netlatency

import (
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/klog/v2"
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
		{"pods(app=redis) namespace=cache,other weight=2", []config.Target{pods("pods(app=redis) namespace=cache,other", func(t *config.Target) {
			t.Weight, t.Pods.Namespaces = 2, []string{"cache", "other"}
		})}},
		{"pods(app=redis) same=ray.io/cluster namespace=*", []config.Target{pods("pods(app=redis) namespace=* same=ray.io/cluster", func(t *config.Target) {
			t.Pods.NamespaceSelector, t.Pods.MatchLabelKeys = &metav1.LabelSelector{}, []string{"ray.io/cluster"}
		})}},
		{"pods(app=redis) namespace=eu weight=3; pods(app=redis) namespace=us", []config.Target{
			pods("pods(app=redis) namespace=eu", func(t *config.Target) { t.Weight, t.Pods.Namespaces = 3, []string{"eu"} }),
			pods("pods(app=redis) namespace=us", func(t *config.Target) { t.Pods.Namespaces = []string{"us"} }),
		}},
		{"gpu\n\tweight=5;\r\n  pods(\n app=redis\n)\u00a0weight=2\n", []config.Target{
			with(gpuTarget(), func(t *config.Target) { t.Weight = 5 }),
			pods("pods( app=redis )", func(t *config.Target) { t.Weight = 2 }),
		}},
		{"pods(tier!=test,app=redis)", []config.Target{pods("pods(tier!=test,app=redis)", func(t *config.Target) {
			t.Pods.LabelSelector.MatchExpressions = []metav1.LabelSelectorRequirement{{Key: "tier", Operator: "NotIn", Values: []string{"test"}}}
		})}},
		{"pods(app in (redis))", []config.Target{pods("pods(app in (redis))", func(t *config.Target) {
			t.Pods.LabelSelector = &metav1.LabelSelector{MatchLabels: map[string]string{}, MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "app", Operator: "In", Values: []string{"redis"}}}}
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
		"qdrant;qdrant namespace=eu": "qdrant is named twice",
		"pods(a in (b,c)) namespace=eu; pods(a in (c, b)) weight=2 namespace=eu": "pods(a in (c, b)) namespace=eu is named twice; give it once, with a weight",
		"qdrant\ngpu":                         `qdrant: "gpu" is no option; options are weight, aggregation, quantile, maxRTT, whenUnknown, namespace, same, as in weight=2, and a semicolon goes before another target`,
		"pods(app=redis) nodes(role=storage)": `pods(app=redis): "nodes(role=storage)" is no option`,
		"pods(app=redis),gpu":                 `pods(app=redis): after its parenthesis comes ",gpu"; put a space before an option, a semicolon before another target`,
		"pods(app=redis),nodes(a=b)":          `pods(app=redis): after its parenthesis comes ",nodes(a=b)"; put a space`,
		"pods(app=redis)weight=2":             `pods(app=redis): after its parenthesis comes "weight=2"; put a space before an option`,
		"pods(app=redis,app=qdrant)":          "pods(app=redis,app=qdrant): app is given twice; write app in (redis,qdrant) for either",
		"nodes(app=redis,app==redis)":         "nodes(app=redis,app==redis): app is given twice; give it once",
		"nodes(cores>4)":                      "nodes(cores>4): cores is compared by > or <, which choose no pods and nodes; name the values, as in cores in (4,8)",
		"pods(app=redis,cores<4)":             "cores is compared by > or <",
		"pods(!debug)":                        "pods(!debug) gives no label a value, and all pods would have to be looked at each time that one changes; add a term with =, == or in, as in pods(app=redis,!debug)",
		"pods(app,tier!=test) namespace=*":    "pods(app,tier!=test) gives no label a value",
		"pods(app notin (a)) same=ray.io/x":   "pods(app notin (a)) gives no label a value",
		"service(redis) namespace=cache":      "service(redis): namespace is for pods alone, a Service is in one; write service(cache/redis)",
		"service(a/redis) namespace=cache,b":  "service(a/redis): namespace is for pods alone, a Service is in one; write service(NAMESPACE/redis)",
		"service(redis) same=app":             "service(redis): same is for pods alone",
		"qdrant 3":                            `qdrant: "3" is no option; options are weight, aggregation`,
		"qdrant wieght=3":                     `qdrant: "wieght" is no option; options are weight, aggregation`,
		"qdrant weight=3 weight=4":            "qdrant: weight is given twice",
		"qdrant weight=three":                 "qdrant: weight=three must be a whole number from 1 to 100",
		"qdrant weight=1000":                  "qdrant.weight: Invalid value: 1000: must be from 1 to 100",
		"qdrant maxRTT=3":                     "qdrant: maxRTT=3 must be a duration, such as 3ms",
		"qdrant maxRTT=1ns":                   "qdrant.maxRTT: Invalid value: \"1ns\": must be from 10µs to 10s",
		"qdrant whenUnknown=Allow":            "qdrant.whenUnknown: Forbidden: may be given only with maxRTT",
		"qdrant aggregation=Median":           `qdrant.aggregation: Unsupported value: "Median"`,
		"qdrant quantile=0.95":                "qdrant.quantile: Invalid value: 0.95: must be 0.5, 0.9 or 0.99",
		"gpu namespace=a":                     "gpu: namespace is for pods alone",
		"pods(app=redis":                      "pods(app=redis lacks its closing parenthesis",
		"pods()":                              "pods().pods.labelSelector: Required value: must have matchLabels or matchExpressions, an empty selector would choose everything",
		"pods(app==)) x":                      `pods(app==): after its parenthesis comes ")"; put a space`,
		"pods(a~b)":                           "pods(a~b)",
		"pods(app=redis) same=a/b/c":          "pods(app=redis).pods.matchLabelKeys[0]: Invalid value",
		"service(/redis)":                     "service(/redis) has an empty namespace",
		"service(Redis)":                      "service(Redis).service.name: Invalid value",
		"deployment(redis)":                   `"deployment" is none of pods, nodes, resource and service`,
		strings.Repeat("x", 3000):             "it has 3000 bytes; at most 2048 are read",
		strings.Repeat("a;", 100):             `there is no target "a"`,
	} {
		_, err := parseNear(text, []config.Target{qdrantTarget(), gpuTarget()})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error is %v, want one with %q", text, err, want)
		}
	}
}

// What is wrong comes after what is quoted, and an event's note is cut.
func TestALongMistakeIsNamedAsWell(t *testing.T) {
	c := newCluster(t, setting{args: newArgs(qdrantTarget(), gpuTarget())})
	long := strings.Repeat("é", 800)
	for text, cause := range map[string]string{
		long:                           "others are written as pods(...), nodes(...), resource(...) or service(...)",
		"qdrant " + long:               "and a semicolon goes before another target",
		"qdrant " + long + "=2":        "is no option; options are weight, aggregation, quantile, maxRTT, whenUnknown, namespace, same",
		"qdrant weight=" + long:        "must be a whole number from 1 to 100",
		"qdrant quantile=" + long:      "must be 0.5, 0.9 or 0.99",
		"qdrant maxRTT=" + long:        "must be a duration, such as 3ms",
		"qdrant aggregation=" + long:   `supported values: "Mean", "Nearest", "Worst"`,
		"pods(a=b) namespace=" + long:  "must be no more than 63 characters",
		"pods(a=b) same=" + long:       "name part must be no more than 63 bytes",
		"pods(a=b" + long:              "lacks its closing parenthesis",
		"pods(a=b)" + long:             "put a space before an option, a semicolon before another target",
		"pods(" + long + "=b)":         "name part must be no more than 63 bytes",
		"pods(a=" + long + ")":         "must be no more than 63 bytes",
		"pods(a in (b, " + long + ")":  "lacks its closing parenthesis",
		"nodes(a=b " + long + ")":      "expected: ',' or 'end of string'",
		long + "(a)":                   "is none of pods, nodes, resource and service",
		"resource(" + long + ")":       "name part must be no more than 63 bytes",
		"service(" + long + ")":        "must be no more than 63 characters",
		"service(/" + long + ")":       "has an empty namespace; leave the slash out for the pod's own",
		"service(" + long + ") same=a": "same is for pods alone",
		"nodes(a in (" + strings.Repeat("b, ", 300) + "c), x=1, x=2)":   "x is given twice; write x in (1,2) for either",
		"nodes(a in (" + strings.Repeat("b, ", 300) + "c)) weight=0":    "must be from 1 to 100",
		"pods(a notin (" + strings.Repeat("b, ", 300) + "c))":           "add a term with =, == or in, as in pods(app=redis,!debug)",
		"nodes(a=b, c in (" + strings.Repeat("d, ", 300) + "d)) same=a": "same is for pods alone",
	} {
		pod := worker()
		pod.UID = types.UID(text)
		pod.Annotations = map[string]string{nearAnnotation: text}
		c.filter(pod)
		select {
		case event := <-c.events.Events:
			if !strings.HasPrefix(event, "Warning NetLatencyBadAnnotation ") || !strings.Contains(event, cause) || !utf8.ValidString(event) {
				t.Errorf("%.40s: event is %q, want one with %q", text, event, cause)
			}
		default:
			t.Errorf("%.40s: no event", text)
		}
	}
}

func TestEachMistakeOfAPodIsTold(t *testing.T) {
	c := newCluster(t, setting{args: newArgs(qdrantTarget())})
	pod := worker()
	var told []string
	for _, text := range []string{"qdrnt", "qdrnt", "qdrant weigth=2", "qdrnt", "qdrant weigth=2"} {
		pod.Annotations = map[string]string{nearAnnotation: text}
		c.filter(pod)
		select {
		case event := <-c.events.Events:
			_, mistake, _ := strings.Cut(event, " count instead: ")
			told = append(told, mistake[:20])
		default:
			told = append(told, "")
		}
	}
	if diff := cmp.Diff([]string{`there is no target "`, "", `qdrant: "weigth" is `, "", ""}, told); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
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
	nearQdrant, nearRedis := map[string]int64{"a": 100, "b": 43}, map[string]int64{"a": 43, "b": 100}
	tests := []struct {
		text      string
		namespace string
		want      map[string]int64
		event     string
	}{
		{text: "pods(app=redis)", want: nearRedis},
		{text: "qdrant; pods(app=redis) weight=100", want: map[string]int64{"a": 49, "b": 100}},
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
		{"one", "ray", map[string]int64{"a": 100, "b": 43}},
		{"two", "ray", map[string]int64{"a": 43, "b": 100}},
		{"one", "other", map[string]int64{"a": 43, "b": 100}},
		{"three", "ray", nil},
	} {
		if diff := cmp.Diff(tt.want, worker(tt.cluster, tt.namespace)); diff != "" {
			t.Errorf("worker of %s in %s (-want +got):\n%s", tt.cluster, tt.namespace, diff)
		}
	}
	if got := len(c.plugin.demands.byKey); got != 4 {
		t.Errorf("%d demands are kept, want one for each cluster", got)
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

// panicked is where panics of profile were recovered from. Unlike exposed it
// asks no other plugin of the process.
func panicked(t *testing.T, profile string) []string {
	t.Helper()
	series := make(chan prometheus.Metric, 1000)
	panics.CounterVec.Collect(series)
	close(series)
	var places []string
	for s := range series {
		var m dto.Metric
		if err := s.Write(&m); err != nil {
			t.Fatal(err)
		}
		labels := make(map[string]string)
		for _, l := range m.GetLabel() {
			labels[l.GetName()] = l.GetValue()
		}
		if labels["profile"] == profile {
			places = append(places, labels["in"])
		}
	}
	return places
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
	for _, text := range []string{
		"qdrant\n\tweight=2;\u00a0gpu", "pods(app=redis),gpu", "pods(app=redis)weight=2", "pods(app=a,app=b)", "nodes(a>1)", "pods(!a)", "service(a) namespace=b",
		"pods(app=qdrant) namespace=eu; pods(app = qdrant) namespace=us same=x maxRTT=1ms", "\xff(", "pods(a=\xff)",
	} {
		f.Add(text)
	}
	args := newArgs(qdrantTarget(), gpuTarget())
	args.AnnotatePlacement = true // so that Bind has something to do
	c := newCluster(f, setting{args: args, objects: []runtime.Object{node("a"), node("b"), qdrant("q-0", "store")}})
	c.measure(rtts{{"a", "store"}: 1 * ms, {"b", "store"}: 2 * ms})
	want := c.score(worker())
	c.ctx = klog.NewContext(c.ctx, klog.Logger{}) // the first logs to f, which may not be while it fuzzes
	pods := 0
	f.Fuzz(func(t *testing.T, text string) {
		c.t = t
		defer func(reactors []clienttesting.Reactor) { // place adds one
			c.client.ReactionChain = reactors
			c.client.ClearActions()
		}(c.client.ReactionChain)
		targets, err := parseNear(text, c.plugin.args.Targets)
		for i := range targets {
			if slices.ContainsFunc(targets[:i], func(other config.Target) bool { return other.Name == targets[i].Name }) {
				t.Fatalf("two targets are called %s", targets[i].Name)
			}
		}
		pod := worker()
		pods++
		pod.UID = types.UID(strconv.Itoa(pods))
		pod.Annotations = map[string]string{nearAnnotation: text}
		d, fault := c.plugin.demandFor(pod)
		if (err == nil) != (fault == nil) {
			t.Fatalf("parsed with %v, and no demand for it: %v", err, fault)
		}
		if err == nil && len(targets) > 0 && len(d.wants) != len(targets) {
			t.Fatalf("%d targets became %d", len(targets), len(d.wants))
		}
		if _, status := c.plugin.SignPod(c.ctx, pod); !status.IsSuccess() {
			t.Fatalf("not signed: %v", status)
		}
		c.filter(pod)
		scores := c.score(pod)
		if err != nil && !cmp.Equal(want, scores) {
			t.Errorf("scores are %v, want those by the rules, %v", scores, want)
		}
		c.place(pod, "a", "a", "b")
		for _, where := range panicked(t, c.plugin.metrics.profile) {
			t.Fatalf("a panic in %s", where)
		}
		told := false
		for len(c.events.Events) > 0 {
			event := <-c.events.Events
			told = told || strings.HasPrefix(event, "Warning NetLatencyBadAnnotation ")
			if !utf8.ValidString(event) {
				t.Errorf("event is %q", event)
			}
		}
		if told != (err != nil) {
			t.Errorf("parsed with %v, and told of a mistake: %t", err, told)
		}
	})
}
