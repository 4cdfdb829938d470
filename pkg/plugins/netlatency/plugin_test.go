package netlatency

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	corelisters "k8s.io/client-go/listers/core/v1"
	fwk "k8s.io/kube-scheduler/framework"
	schedulerconfig "k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	st "k8s.io/kubernetes/pkg/scheduler/testing"
	tf "k8s.io/kubernetes/pkg/scheduler/testing/framework"
	"k8s.io/utils/clock"

	"github.com/netlatency/netlatency/apis/config"
	"github.com/netlatency/netlatency/apis/config/scheme"
	configv1 "github.com/netlatency/netlatency/apis/config/v1"
	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/placement"
	"github.com/netlatency/netlatency/pkg/source"
)

func TestNewRefuses(t *testing.T) {
	invalid := newArgs(qdrantTarget(), qdrantTarget())
	invalid.Band.Ratio = 2
	tests := []struct {
		name string
		args runtime.Object
		want []string
	}{
		{"no arguments, as when their type is not registered", nil, []string{"want args to be of type NetLatencyArgs, got <nil>"}},
		{"the arguments of another plugin", &schedulerconfig.NodeResourcesFitArgs{}, []string{"got *config.NodeResourcesFitArgs"}},
		{"invalid arguments, all faults at once", invalid, []string{"band.ratio", "targets[1].name"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newCluster(t, setting{args: newArgs()})
			_, err := c.profile("refused", tt.args, newFactory(c.sources.open, clock.RealClock{}))
			for _, want := range tt.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("error is %v, want one with %q", err, want)
				}
			}
		})
	}
}

func TestATargetThatMovesTakesTheNextPodsAlong(t *testing.T) {
	c := newCluster(t, setting{args: newArgs(qdrantTarget()), objects: []runtime.Object{
		node("a"), node("b"), node("store-a"), node("store-b"), qdrant("q-0", "store-a"),
	}})
	c.measure(rtts{
		{"a", "store-a"}: 1 * ms, {"a", "store-b"}: 4 * ms,
		{"b", "store-a"}: 4 * ms, {"b", "store-b"}: 1 * ms,
	})
	feasible := []string{"a", "b"}
	if diff := cmp.Diff(map[string]int64{"a": 100, "b": 81}, c.score(worker(), feasible...)); diff != "" {
		t.Errorf("before the move (-want +got):\n%s", diff)
	}
	pods := c.client.CoreV1().Pods("search")
	if err := pods.Delete(c.ctx, "q-0", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := pods.Create(c.ctx, qdrant("q-0", "store-b"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "pods follow the target", func() bool {
		return cmp.Equal(map[string]int64{"a": 81, "b": 100}, c.score(worker(), feasible...))
	})
}

func TestThePluginFollowsByItself(t *testing.T) {
	objects := []runtime.Object{zoned("a-1", "hetzner", "a"), zoned("a-2", "elsewhere", "b"), zoned("store", "gthost", "a"), qdrant("q-0", "store")}
	feasible := []string{"a-1", "a-2", "a-3"}
	t.Run("a matrix and changes of nodes", func(t *testing.T) {
		args := newArgs(qdrantTarget())
		args.Source.Agents.Interval.Duration = time.Minute // nothing happens by the clock
		c := newCluster(t, setting{realClock: true, args: args, objects: objects})
		c.nodes = append(c.nodes, zoned("a-3", "hetzner", "a"))
		scoresBecome := func(what string, want map[string]int64) {
			t.Helper()
			eventually(t, what, func() bool { return cmp.Equal(want, c.score(worker(), feasible...)) })
			// The view that an earlier change has asked for must not pass for
			// an answer to the next.
			time.Sleep(3 * viewSpacing)
		}
		nodes := c.client.CoreV1().Nodes()
		c.measure(rtts{{"a-1", "store"}: 1 * ms})
		scoresBecome("a matrix that is published is used", map[string]int64{"a-1": 100, "a-2": 0, "a-3": 0})
		if _, err := nodes.Update(c.ctx, zoned("a-2", "hetzner", "a"), metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		scoresBecome("a node that changes its group is estimated by it", map[string]int64{"a-1": 100, "a-2": 100, "a-3": 0})
		if _, err := nodes.Create(c.ctx, zoned("a-3", "hetzner", "a"), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		scoresBecome("a node that joins is estimated by its group", map[string]int64{"a-1": 100, "a-2": 100, "a-3": 100})
		c.measure(rtts{{"a-1", "store"}: 1 * ms, {"a-2", "store"}: 2 * ms})
		// a-3 is nearer to the lower median, 1 ms, than to the mean of the two.
		scoresBecome("the next matrix is used", map[string]int64{"a-1": 100, "a-2": 91, "a-3": 98})
	})
	t.Run("a matrix that none follows grows stale", func(t *testing.T) {
		args := newArgs(qdrantTarget())
		args.Source.Agents.Interval.Duration = time.Second
		args.Source.Agents.Timeout.Duration = time.Second
		args.StaleAfter.Duration = time.Second
		c := newCluster(t, setting{realClock: true, args: args, objects: objects})
		eventually(t, "it is used", func() bool {
			c.measure(rtts{{"a-1", "store"}: 1 * ms}) // again, or it is stale before it is used
			return c.score(worker(), feasible...) != nil
		})
		eventually(t, "it is stale", func() bool { return c.score(worker(), feasible...) == nil })
	})
}

func TestTheFirstPodIsNotPlacedBlind(t *testing.T) {
	c := newCluster(t, setting{args: newArgs(qdrantTarget()), objects: []runtime.Object{node("a"), node("b"), qdrant("q-0", "store")}})
	if scores := c.score(worker()); scores != nil {
		t.Fatalf("scores before the first matrix are %v", scores)
	}
	// The source has published; the plugin's own goroutine has not got to it.
	c.sources.opened[0].publish(rtts{{"a", "store"}: 1 * ms, {"b", "store"}: 2 * ms}.matrix(c.clock.Now()))
	if diff := cmp.Diff(map[string]int64{"a": 100, "b": 91}, c.score(worker())); diff != "" {
		t.Errorf("scores (-want +got):\n%s", diff)
	}
}

func TestTheFirstPodIsPlacedAmongAllNodes(t *testing.T) {
	c := newCluster(t, setting{args: newArgs(qdrantTarget()), objects: []runtime.Object{node("a"), qdrant("q-0", "store")}})
	synced := c.plugin.nodesSynced
	c.plugin.nodesSynced = func() bool { return false }
	c.measure(rtts{{"a", "store"}: 1 * ms, {"b", "store"}: 2 * ms})
	c.nodes = append(c.nodes, node("b"))
	if _, err := c.client.CoreV1().Nodes().Create(c.ctx, node("b"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the informer has both nodes", func() bool {
		_, err := c.plugin.nodes.Get("b")
		return err == nil
	})
	if diff := cmp.Diff(map[string]int64{"a": 100, "b": 0}, c.score(worker())); diff != "" {
		t.Errorf("scores by the view that was made while the nodes came in (-want +got):\n%s", diff)
	}
	c.plugin.nodesSynced = synced
	if diff := cmp.Diff(map[string]int64{"a": 100, "b": 91}, c.score(worker())); diff != "" {
		t.Errorf("scores once all nodes are in (-want +got):\n%s", diff)
	}
}

func TestProfilesShareASource(t *testing.T) {
	args := newArgs(qdrantTarget())
	c := newCluster(t, setting{args: newArgs(), objects: []runtime.Object{node("a"), node("b"), qdrant("q-0", "store")}})
	shared := &sources{}
	factory := newFactory(shared.open, c.clock)
	weighted := newArgs(qdrantTarget(), gpuTarget())
	slower := newArgs(qdrantTarget())
	slower.Source.Agents.Interval.Duration = 20 * time.Second
	var frameworks []framework.Framework
	for name, args := range map[string]*config.NetLatencyArgs{"first": args, "second": weighted} {
		f, err := c.profile(name, args, factory)
		if err != nil {
			t.Fatal(err)
		}
		frameworks = append(frameworks, f)
	}
	if len(shared.opened) != 1 {
		t.Fatalf("%d sources were opened for two profiles that ask for the same", len(shared.opened))
	}
	shared.opened[0].publish(rtts{{"a", "store"}: 1 * ms, {"b", "store"}: 2 * ms}.matrix(c.clock.Now()))
	for _, f := range frameworks {
		if diff := cmp.Diff(map[string]int64{"a": 100, "b": 91}, c.scoreIn(f, worker())); diff != "" {
			t.Errorf("scores of %s (-want +got):\n%s", f.ProfileName(), diff)
		}
	}
	// The source is asked about the nodes of all their targets.
	if diff := cmp.Diff([]string{"store"}, slices.Sorted(slices.Values(shared.opened[0].peers()))); diff != "" {
		t.Errorf("nodes on which targets run (-want +got):\n%s", diff)
	}
	if _, err := c.profile("third", slower, factory); err != nil {
		t.Fatal(err)
	}
	if len(shared.opened) != 2 {
		t.Errorf("%d sources are open after a profile asked for another", len(shared.opened))
	}
}

// What is asked of a source depends on all of its arguments, also on those
// behind pointers and in maps.
func TestProfilesShareASourceOnlyIfItIsTheSame(t *testing.T) {
	prometheus := func(change func(*config.PrometheusSource)) *config.NetLatencyArgs {
		args := newArgs()
		args.Source = config.Source{Prometheus: &config.PrometheusSource{Address: "http://a", Headers: map[string]string{"X-Scope-OrgID": "a", "X": "b"}}}
		change(args.Source.Prometheus)
		return args
	}
	key := func(args *config.NetLatencyArgs) string {
		key, err := feedKey(args)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	one := key(prometheus(func(*config.PrometheusSource) {}))
	for _, c := range []struct {
		name string
		args *config.NetLatencyArgs
		same bool
	}{
		{"the same again", prometheus(func(*config.PrometheusSource) {}), true},
		{"another kind", newArgs(), false},
		{"another tenant", prometheus(func(p *config.PrometheusSource) { p.Headers["X-Scope-OrgID"] = "b" }), false},
		{"another query", prometheus(func(p *config.PrometheusSource) { p.Queries.Mean = "x" }), false},
		{"another authority", prometheus(func(p *config.PrometheusSource) { p.TLS.CAFile = "/x" }), false},
	} {
		if got := key(c.args) == one; got != c.same {
			t.Errorf("%s: shared is %v, want %v", c.name, got, c.same)
		}
	}
}

func TestEachKindOfSourceCanBeOpened(t *testing.T) {
	for kind, want := range map[string]matrixSource{"agents": &source.Agents{}, "prometheus": &source.Prometheus{}, "file": &source.File{}} {
		t.Run(kind, func(t *testing.T) {
			versioned := &configv1.NetLatencyArgs{}
			switch kind {
			case "prometheus":
				versioned.Source.Prometheus = &configv1.PrometheusSource{Address: "http://prometheus:9090"}
			case "file":
				versioned.Source.File = &configv1.FileSource{Path: "/matrix.jsonl"}
			}
			scheme.Scheme.Default(versioned)
			args := &config.NetLatencyArgs{}
			if err := scheme.Scheme.Convert(versioned, args, nil); err != nil {
				t.Fatal(err)
			}
			opened, err := openSource(args, fake.NewClientset(), func() []string { return nil }, func(*latency.Matrix) {})
			if err != nil {
				t.Fatal(err)
			}
			if fmt.Sprintf("%T", opened) != fmt.Sprintf("%T", want) || args.Source.Kind() != kind || args.Source.Interval() <= 0 {
				t.Errorf("a %T of kind %q every %v", opened, args.Source.Kind(), args.Source.Interval())
			}
			c := newCluster(t, setting{args: args})
			c.plugin.args.Source = args.Source
			if _, note := c.plugin.note(outcomeNoData, &demand{}, placement.NewCosts(placement.NewNodes(nil), nil)); !strings.Contains(note, "Check that the ") {
				t.Errorf("an event that does not say what to check: %s", note)
			}
		})
	}
}

func TestSignPod(t *testing.T) {
	qdrant, gpu := qdrantTarget(), gpuTarget()
	rule := func(app string, targets ...string) config.Rule {
		return config.Rule{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}, Targets: targets}
	}
	args := newArgs(qdrant, gpu)
	args.Rules = []config.Rule{rule("one", "qdrant", "gpu"), rule("two", "gpu", "qdrant"), rule("three", "qdrant")}
	heavier := newArgs(qdrant, gpu)
	heavier.Targets[0].Weight = 5
	heavier.Rules = args.Rules
	plugin, other := newCluster(t, setting{args: args}).plugin, newCluster(t, setting{args: heavier}).plugin

	sign := func(p *NetLatency, pod *corev1.Pod) []fwk.SignFragment {
		fragments, status := p.SignPod(context.Background(), pod)
		if !status.IsSuccess() {
			t.Fatalf("sign %s: %v", pod.Name, status.AsError())
		}
		return fragments
	}
	pod := func(name, namespace, app string) *corev1.Pod {
		return st.MakePod().Name(name).Namespace(namespace).Label("app", app).Label("replica-index", name).Obj()
	}
	one := sign(plugin, pod("w-0", "ray", "one"))
	tests := []struct {
		name string
		got  []fwk.SignFragment
		same bool
	}{
		{"another pod of the rule, in another namespace, with labels of its own", sign(plugin, pod("w-1", "other", "one")), true},
		{"a rule that gives the same targets in another order", sign(plugin, pod("w-0", "ray", "two")), true},
		{"a rule that gives other targets", sign(plugin, pod("w-0", "ray", "three")), false},
		{"the same names with another weight", sign(other, pod("w-0", "ray", "one")), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if same := cmp.Equal(one, tt.got); same != tt.same {
				t.Errorf("signatures equal: %t, want %t\n%v\n%v", same, tt.same, one, tt.got)
			}
		})
	}
	t.Run("what differs from pod to pod", func(t *testing.T) {
		head := config.Target{Name: "head", Weight: 1, Aggregation: config.AggregationMean, Pods: &config.PodsTarget{
			LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}, MatchLabelKeys: []string{"ray.io/cluster"},
		}}
		limit := limited(qdrant, config.UnknownAllow)
		rejecting := limited(qdrant, config.UnknownReject)
		near := func(target config.Target) *NetLatency { return newCluster(t, setting{args: newArgs(target)}).plugin }
		shared, plain, allows, rejects := near(head), near(qdrant), near(limit), near(rejecting)
		labelled := func(namespace, cluster string) *corev1.Pod {
			return st.MakePod().Name("w").Namespace(namespace).Label("ray.io/cluster", cluster).Obj()
		}
		annotated := func(namespace, text string) *corev1.Pod {
			return st.MakePod().Name("w").Namespace(namespace).Annotation(nearAnnotation, text).Obj()
		}
		for name, tt := range map[string]struct {
			a, b []fwk.SignFragment
			same bool
		}{
			"the same Ray cluster":                   {sign(shared, labelled("ray", "one")), sign(shared, labelled("ray", "one")), true},
			"another Ray cluster":                    {sign(shared, labelled("ray", "one")), sign(shared, labelled("ray", "two")), false},
			"one of the same name elsewhere":         {sign(shared, labelled("ray", "one")), sign(shared, labelled("other", "one")), false},
			"a limit":                                {sign(plain, labelled("ray", "one")), sign(allows, labelled("ray", "one")), false},
			"a limit that rejects what is unknown":   {sign(rejects, labelled("ray", "one")), sign(allows, labelled("ray", "one")), false},
			"the same annotation":                    {sign(plain, annotated("ray", "pods(a=b)")), sign(plain, annotated("ray", "pods(a=b)")), true},
			"the same annotation in another":         {sign(plain, annotated("ray", "pods(a=b)")), sign(plain, annotated("other", "pods(a=b)")), false},
			"an annotation that says what rules say": {sign(plain, annotated("ray", "qdrant")), sign(plain, labelled("ray", "one")), true},
			"an annotation that says nothing at all": {sign(plain, annotated("ray", "none")), nil, true},
			"an annotation that is not understood":   {sign(plain, annotated("ray", "???")), sign(plain, labelled("ray", "one")), true},
			"an annotation of a target with a limit": {sign(plain, annotated("ray", "qdrant maxRTT=3ms")), sign(allows, labelled("ray", "one")), true},
			"the same limit of another annotation":   {sign(plain, annotated("ray", "qdrant maxRTT=3ms")), sign(plain, annotated("ray", "qdrant maxRTT=4ms")), false},
			"one annotation in two spellings":        {sign(plain, annotated("ray", " qdrant ")), sign(plain, annotated("ray", "qdrant weight=1")), true},
		} {
			if same := cmp.Equal(tt.a, tt.b); same != tt.same {
				t.Errorf("%s: signatures equal: %t, want %t\n%v\n%v", name, same, tt.same, tt.a, tt.b)
			}
		}
	})
	t.Run("a pod without targets signs nothing", func(t *testing.T) {
		if got := sign(plugin, pod("w-0", "ray", "none")); got != nil {
			t.Errorf("signed %v", got)
		}
	})
}

// brokenLister stands for a dependency that panics.
type brokenLister struct{ corelisters.NodeLister }

func (brokenLister) List(labels.Selector) ([]*corev1.Node, error) { panic("broken lister") }

func TestAPanicIsNeutral(t *testing.T) {
	setUp := func(t *testing.T) *cluster {
		t.Helper()
		c := newCluster(t, setting{args: newArgs(qdrantTarget()), objects: []runtime.Object{node("a"), node("b"), qdrant("q-0", "store")}})
		c.measure(rtts{{"a", "store"}: 1 * ms, {"b", "store"}: 2 * ms})
		return c
	}
	wantCounted := func(t *testing.T, c *cluster, in string) {
		t.Helper()
		if got := counted(t, c.plugin.metrics.panics.WithLabelValues(c.plugin.metrics.profile, in)); got != 1 {
			t.Errorf("%v panics are counted in %s, want 1", got, in)
		}
	}
	t.Run("PreScore skips", func(t *testing.T) {
		c := setUp(t)
		c.plugin.view.Store(nil)
		c.plugin.nodes = brokenLister{}
		if scores := c.score(worker()); scores != nil {
			t.Errorf("scores are %v", scores)
		}
		wantCounted(t, c, "PreScore")
	})
	t.Run("NormalizeScore leaves no cost behind", func(t *testing.T) {
		c := setUp(t)
		state := framework.NewCycleState()
		c.plugin.PreScore(c.ctx, state, worker(), tf.BuildNodeInfos(c.nodes))
		c.plugin.cycleOf(state).costs = nil
		scores := fwk.NodeScoreList{{Name: "a", Score: 7}}
		if status := c.plugin.NormalizeScore(c.ctx, state, worker(), scores); !status.IsSuccess() || scores[0].Score != 0 {
			t.Errorf("scores are %v (%v)", scores, status)
		}
		wantCounted(t, c, "NormalizeScore")
	})
	t.Run("SignPod does without batching", func(t *testing.T) {
		c := setUp(t)
		c.plugin.rules[0].pods = nil
		if fragments, status := c.plugin.SignPod(c.ctx, worker()); fragments != nil || status.Code() != fwk.Unschedulable {
			t.Errorf("signed %v (%v)", fragments, status)
		}
		wantCounted(t, c, "SignPod")
	})
	t.Run("a source that dies leaves the scheduler alive", func(t *testing.T) {
		died := make(chan struct{})
		c := newCluster(t, setting{args: newArgs(qdrantTarget()), objects: []runtime.Object{node("a")}, sources: &sources{
			run: func(context.Context) { defer close(died); panic("source") },
		}})
		<-died
		eventually(t, "the panic is counted", func() bool {
			return counted(t, c.plugin.metrics.panics.WithLabelValues(c.plugin.metrics.profile, "source")) == 1
		})
		if scores := c.score(worker()); scores != nil {
			t.Errorf("scores are %v", scores)
		}
	})
}
