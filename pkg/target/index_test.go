package target

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/netlatency/netlatency/apis/config"
)

func TestWhereATargetRuns(t *testing.T) {
	tests := []struct {
		name    string
		target  config.Target
		objects []runtime.Object
		want    map[string]int
	}{
		{
			name:    "ready pods, each at its node",
			target:  qdrantPods(),
			objects: []runtime.Object{pod("q-0", "a"), pod("q-1", "a"), pod("q-2", "b"), pod("q-3", "b", inNamespace("other"))},
			want:    map[string]int{"a": 2, "b": 2},
		},
		{
			name:    "pods of the given namespaces",
			target:  qdrantPods("search", "third"),
			objects: []runtime.Object{pod("q-0", "a"), pod("q-0", "b", inNamespace("other")), pod("q-0", "c", inNamespace("third"))},
			want:    map[string]int{"a": 1, "c": 1},
		},
		{
			name:   "only pods that serve",
			target: qdrantPods(),
			objects: []runtime.Object{
				pod("q-0", "a"), pod("q-1", "b", notReady), pod("q-2", "c", neverStarted), pod("q-3", "d", terminating),
				pod("q-4", "e", succeeded), pod("q-5", ""), pod("api", "f", labelled("app", "api")),
			},
			want: map[string]int{"a": 1},
		},
		{
			name:   "pods of namespaces with a label, and of those that are given",
			target: inTeams("third"),
			objects: []runtime.Object{
				namespace("search", "team", "search"), namespace("other", "team", "none"),
				pod("q-0", "a"), pod("q-0", "b", inNamespace("other")), pod("q-0", "c", inNamespace("third")),
			},
			want: map[string]int{"a": 1, "c": 1},
		},
		{
			name:    "nodes with a device",
			target:  gpuNodes(),
			objects: []runtime.Object{node("a"), node("b", withGPUs("0")), node("c", withReady(corev1.ConditionTrue))},
			want:    map[string]int{"a": 1, "c": 1},
		},
		{
			name:    "a cordoned node serves on, one that is not ready or goes away does not",
			target:  gpuNodes(),
			objects: []runtime.Object{node("a", cordoned), node("b", withReady(corev1.ConditionFalse)), node("c", withReady(corev1.ConditionUnknown)), node("d", beingDeleted)},
			want:    map[string]int{"a": 1},
		},
		{
			name: "nodes by label",
			target: config.Target{Name: "storage", Nodes: &config.NodesTarget{
				LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"role": "storage"}},
			}},
			objects: []runtime.Object{node("a", withRole("storage"), withGPUs("0")), node("b")},
			want:    map[string]int{"a": 1},
		},
		{
			name: "nodes by label and device",
			target: config.Target{Name: "inference", Nodes: &config.NodesTarget{
				LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"role": "inference"}},
				Resource:      "nvidia.com/gpu",
			}},
			objects: []runtime.Object{node("a", withRole("inference")), node("b"), node("c", withRole("inference"), withGPUs("0"))},
			want:    map[string]int{"a": 1},
		},
		{
			name:   "the pods behind a service, in its namespace",
			target: qdrantService(),
			objects: []runtime.Object{
				service("qdrant", map[string]string{"app": "qdrant"}), service("api", map[string]string{"app": "api"}),
				pod("q-0", "a"), pod("q-1", "b", notReady), pod("q-2", "c", inNamespace("other")), pod("api", "d", labelled("app", "api")),
			},
			want: map[string]int{"a": 1},
		},
		{
			name:    "a service without a selector has its endpoints from elsewhere",
			target:  qdrantService(),
			objects: []runtime.Object{service("qdrant", nil), pod("q-0", "a")},
			want:    map[string]int{},
		},
		{
			name:   "every pod with an address that has not ended, behind a service that publishes those that are not ready",
			target: qdrantService(),
			objects: []runtime.Object{
				withNotReady(map[string]string{"app": "qdrant"}),
				pod("q-0", "a", at("10.0.0.1")), pod("q-1", "b", at("10.0.0.2"), notReady), pod("q-2", "c", at("10.0.0.3"), neverStarted),
				pod("q-3", "d", at("10.0.0.4"), terminating), pod("q-4", "e", at("10.0.0.5"), succeeded), pod("q-5", "f", notReady), pod("q-6", "", at("10.0.0.6")),
			},
			want: map[string]int{"a": 1, "b": 1, "c": 1, "d": 1},
		},
		{
			name:    "a service that is but a name, whatever it would select",
			target:  qdrantService(),
			objects: []runtime.Object{named(map[string]string{"app": "qdrant"}), pod("q-0", "a")},
			want:    map[string]int{},
		},
		{
			name:    "a service that does not exist",
			target:  qdrantService(),
			objects: []runtime.Object{pod("q-0", "a")},
			want:    map[string]int{},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newStill(t, tt.target)
			s.read(tt.objects...)
			if diff := cmp.Diff(tt.want, counts(s.Sets()[0])); diff != "" {
				t.Errorf("read from the listers, before the handlers have synced (-want +got):\n%s", diff)
			}
			s.put(tt.objects...)
			s.begin()
			if diff := cmp.Diff(tt.want, counts(s.Sets()[0])); diff != "" {
				t.Errorf("counted by the handlers (-want +got):\n%s", diff)
			}
		})
	}
}

func TestATargetThatCannotBe(t *testing.T) {
	broken := &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "app", Operator: "Like"}}}
	tests := []struct {
		name   string
		target config.Target
		want   string
	}{
		{"nothing chosen", config.Target{Name: "qdrant"}, `target "qdrant" chooses nothing`},
		{"pods by a broken selector", config.Target{Name: "qdrant", Pods: &config.PodsTarget{LabelSelector: broken}}, `target "qdrant": pods: labelSelector`},
		{"nodes by a broken selector", config.Target{Name: "gpu", Nodes: &config.NodesTarget{LabelSelector: broken}}, `target "gpu": nodes: labelSelector`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			client := fake.NewClientset()
			_, err := NewIndex([]config.Target{tt.target}, informers.NewSharedInformerFactory(client, 0), client, clocktesting.NewFakeClock(time.Now()))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error is %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestATargetMoves(t *testing.T) {
	tests := []struct {
		name   string
		target config.Target
		before []runtime.Object
		change func(*still)
		want   map[string]int
	}{
		{
			name:   "a pod becomes ready",
			target: qdrantPods(),
			before: []runtime.Object{pod("q-0", "a"), pod("q-1", "b", notReady)},
			change: func(s *still) { s.put(pod("q-1", "b")) },
			want:   map[string]int{"a": 1, "b": 1},
		},
		{
			name:   "a pod is no longer ready while another is",
			target: qdrantPods(),
			before: []runtime.Object{pod("q-0", "a"), pod("q-1", "b")},
			change: func(s *still) { s.put(pod("q-0", "a", notReady)) },
			want:   map[string]int{"b": 1},
		},
		{
			name:   "a pod comes back elsewhere under its name",
			target: qdrantPods(),
			before: []runtime.Object{pod("q-0", "a")},
			change: func(s *still) { s.remove(pod("q-0", "a")); s.put(pod("q-0", "", neverStarted)); s.put(pod("q-0", "c")) },
			want:   map[string]int{"c": 1},
		},
		{
			name:   "a pod gets another label",
			target: qdrantPods(),
			before: []runtime.Object{pod("q-0", "a"), pod("q-1", "b")},
			change: func(s *still) { s.put(pod("q-1", "b", labelled("app", "retired"))) },
			want:   map[string]int{"a": 1},
		},
		{
			name:   "a pod that was never counted goes",
			target: qdrantPods(),
			before: []runtime.Object{pod("q-0", "a"), pod("q-1", "b", notReady)},
			change: func(s *still) { s.remove(pod("q-1", "b", notReady)) },
			want:   map[string]int{"a": 1},
		},
		{
			name:   "a namespace gets the label",
			target: inTeams(),
			before: []runtime.Object{namespace("search", "team", "none"), pod("q-0", "a")},
			change: func(s *still) { s.put(namespace("search", "team", "search")) },
			want:   map[string]int{"a": 1},
		},
		{
			name:   "one of two namespaces loses the label",
			target: inTeams(),
			before: []runtime.Object{namespace("search", "team", "search"), namespace("other", "team", "search"), pod("q-0", "a"), pod("q-0", "b", inNamespace("other"))},
			change: func(s *still) { s.put(namespace("search", "team", "none")) },
			want:   map[string]int{"b": 1},
		},
		{
			name:   "a node gets its device plugin",
			target: gpuNodes(),
			before: []runtime.Object{node("a"), node("b", withGPUs("0"))},
			change: func(s *still) { s.put(node("b")) },
			want:   map[string]int{"a": 1, "b": 1},
		},
		{
			name:   "a node goes",
			target: gpuNodes(),
			before: []runtime.Object{node("a"), node("b")},
			change: func(s *still) { s.remove(node("a")) },
			want:   map[string]int{"b": 1},
		},
		{
			name:   "a service appears after its pods",
			target: qdrantService(),
			before: []runtime.Object{pod("q-0", "a")},
			change: func(s *still) { s.put(service("qdrant", map[string]string{"app": "qdrant"})) },
			want:   map[string]int{"a": 1},
		},
		{
			name:   "a service chooses other pods",
			target: qdrantService(),
			before: []runtime.Object{service("qdrant", map[string]string{"app": "qdrant"}), pod("q-0", "a"), pod("new", "b", labelled("app", "green"))},
			change: func(s *still) { s.put(service("qdrant", map[string]string{"app": "green"})) },
			want:   map[string]int{"b": 1},
		},
		{
			name:   "a service comes to publish pods that are not ready",
			target: qdrantService(),
			before: []runtime.Object{service("qdrant", map[string]string{"app": "qdrant"}), pod("q-0", "a", at("10.0.0.1")), pod("q-1", "b", at("10.0.0.2"), notReady)},
			change: func(s *still) { s.put(withNotReady(map[string]string{"app": "qdrant"})) },
			want:   map[string]int{"a": 1, "b": 1},
		},
		{
			name:   "a service publishes them no longer",
			target: qdrantService(),
			before: []runtime.Object{withNotReady(map[string]string{"app": "qdrant"}), pod("q-0", "a", at("10.0.0.1")), pod("q-1", "b", at("10.0.0.2"), notReady)},
			change: func(s *still) { s.put(service("qdrant", map[string]string{"app": "qdrant"})) },
			want:   map[string]int{"a": 1},
		},
		{
			name:   "a pod terminates behind a service that publishes those that are not ready",
			target: qdrantService(),
			before: []runtime.Object{withNotReady(map[string]string{"app": "qdrant"}), pod("q-0", "a", at("10.0.0.1")), pod("q-1", "b", at("10.0.0.2"))},
			change: func(s *still) { s.put(pod("q-1", "b", at("10.0.0.2"), terminating)) },
			want:   map[string]int{"a": 1, "b": 1},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newStill(t, tt.target)
			s.put(tt.before...)
			s.begin()
			before := s.Sets()[0]
			was := counts(before)
			tt.change(s)
			after := s.Sets()[0]
			if diff := cmp.Diff(tt.want, counts(after)); diff != "" {
				t.Errorf("after the change (-want +got):\n%s", diff)
			}
			if moved := !cmp.Equal(was, tt.want); moved != (after != before) || moved != (after.Version > before.Version) {
				t.Errorf("version %d after %d: a new set is due exactly when the target has moved (%t)", after.Version, before.Version, moved)
			}
			if diff := cmp.Diff(was, counts(before)); diff != "" {
				t.Errorf("the earlier set has changed under its reader (-was +is):\n%s", diff)
			}
		})
	}
}

func TestAnUpdateThatMovesNothingLeavesEverySetAsItIs(t *testing.T) {
	s := newStill(t, qdrantPods(), gpuNodes())
	s.put(pod("q-0", "a"), node("a"))
	s.begin()
	before := s.Sets()
	s.put(pod("q-0", "a"), node("a", cordoned), node("b", withGPUs("0")), pod("other", "b", labelled("app", "other")))
	s.put(pod("q-1", "c"))
	after := s.Sets()
	if after[1] != before[1] {
		t.Error("the set of the target that did not move is another one")
	}
	if after[0].Version != before[0].Version+1 {
		t.Errorf("version went from %d to %d, want one step for one move", before[0].Version, after[0].Version)
	}
}

func TestGrace(t *testing.T) {
	setUp := func(t *testing.T) *still {
		t.Helper()
		s := newStill(t, qdrantPods())
		s.put(pod("q-0", "a"), pod("q-1", "b"))
		s.begin()
		s.put(pod("q-0", "a", notReady), pod("q-1", "b", notReady))
		return s
	}
	t.Run("the last nodes are kept when no replica is left", func(t *testing.T) {
		s := setUp(t)
		s.clock.Step(Grace - time.Second)
		s.endGraces()
		if got := s.Sets()[0]; !got.Grace || !cmp.Equal(counts(got), map[string]int{"a": 1, "b": 1}) {
			t.Errorf("set is %+v, want both nodes in grace", got)
		}
	})
	lose := func(name, node string) func(*still) {
		return func(s *still) { s.put(pod(name, node, notReady)) }
	}
	gain := func(name, node string) func(*still) { return func(s *still) { s.put(pod(name, node)) } }
	for _, tt := range []struct {
		name  string
		pause time.Duration // after each step
		steps []func(*still)
		want  map[string]int
	}{
		{"replicas that go one by one are all kept", 10 * time.Second, []func(*still){lose("q-0", "a"), lose("q-1", "b"), lose("q-2", "c"), lose("q-3", "c")}, map[string]int{"a": 1, "b": 1, "c": 2}},
		{"but none that was lost long before", 11 * time.Second, []func(*still){lose("q-0", "a"), lose("q-1", "b"), lose("q-2", "c"), lose("q-3", "c")}, map[string]int{"b": 1, "c": 2}},
		{"nor one for good while others served on", time.Minute, []func(*still){lose("q-0", "a"), lose("q-1", "b"), lose("q-2", "c"), lose("q-3", "c")}, map[string]int{"c": 1}},
		{"one that fails twice counts once", 5 * time.Second, []func(*still){lose("q-0", "a"), gain("q-0", "a"), lose("q-0", "a"), lose("q-1", "b"), lose("q-2", "c"), lose("q-3", "c")}, map[string]int{"a": 1, "b": 1, "c": 2}},
		{"one that came back elsewhere counts there", 5 * time.Second, []func(*still){lose("q-0", "a"), gain("q-0", "d"), lose("q-0", "d"), lose("q-1", "b"), lose("q-2", "c"), lose("q-3", "c")}, map[string]int{"b": 1, "c": 2, "d": 1}},
		{"one that comes back for a moment does not stand for all", 5 * time.Second, []func(*still){lose("q-0", "a"), lose("q-1", "b"), lose("q-2", "c"), lose("q-3", "c"), gain("q-3", "c"), lose("q-3", "c")}, map[string]int{"a": 1, "b": 1, "c": 2}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newStill(t, qdrantPods())
			s.put(pod("q-0", "a"), pod("q-1", "b"), pod("q-2", "c"), pod("q-3", "c"))
			s.begin()
			for _, step := range tt.steps {
				step(s)
				s.clock.Step(tt.pause)
			}
			got := s.Sets()[0]
			if diff := cmp.Diff(tt.want, counts(got)); diff != "" || !got.Grace {
				t.Errorf("in grace: %t (-want +got):\n%s", got.Grace, diff)
			}
		})
	}
	t.Run("nodes are kept as pods are", func(t *testing.T) {
		s := newStill(t, gpuNodes())
		s.put(node("a"), node("b"))
		s.begin()
		s.put(node("a", withReady(corev1.ConditionFalse)))
		s.remove(node("b"))
		if got := s.Sets()[0]; !got.Grace || !cmp.Equal(counts(got), map[string]int{"a": 1, "b": 1}) {
			t.Errorf("set is %+v, want both nodes in grace", got)
		}
	})
	t.Run("until the grace is over", func(t *testing.T) {
		s := setUp(t)
		before := s.Sets()[0]
		s.clock.Step(Grace)
		s.endGraces()
		if got := s.Sets()[0]; got.Grace || len(got.Replicas) != 0 || got.Version != before.Version+1 {
			t.Errorf("set is %+v, want an empty one after version %d", got, before.Version)
		}
	})
	t.Run("or a replica is back", func(t *testing.T) {
		s := setUp(t)
		s.put(pod("q-0", "c"))
		if got := s.Sets()[0]; got.Grace || !cmp.Equal(counts(got), map[string]int{"c": 1}) {
			t.Errorf("set is %+v, want c alone", got)
		}
		s.clock.Step(2 * Grace)
		s.endGraces()
		if got := counts(s.Sets()[0]); !cmp.Equal(got, map[string]int{"c": 1}) {
			t.Errorf("set is %v after the grace would have been over, want c alone", got)
		}
	})
	t.Run("a target that has never run has none", func(t *testing.T) {
		s := newStill(t, qdrantPods())
		s.begin()
		s.put(pod("q-0", "a", notReady))
		if got := s.Sets()[0]; got.Grace || len(got.Replicas) != 0 {
			t.Errorf("set is %+v, want an empty one", got)
		}
	})
}

// TestChangesAddUp compares the sets that thousands of changes have led to
// with sets that are made afresh from what is there.
func TestChangesAddUp(t *testing.T) {
	byApp := func(name string, operator metav1.LabelSelectorOperator, values ...string) config.Target {
		return config.Target{Name: name, Pods: &config.PodsTarget{LabelSelector: &metav1.LabelSelector{
			MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "app", Operator: operator, Values: values}},
		}}}
	}
	targets := []config.Target{
		qdrantPods(), qdrantPods("search"), qdrantService(), gpuNodes(), inTeams(),
		byApp("either", metav1.LabelSelectorOpIn, "green", "qdrant"),
		byApp("other", metav1.LabelSelectorOpNotIn, "green"), // no label tells what it may choose
	}
	hasIP := at("10.0.0.1")
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		s := newStill(t, targets...)
		s.begin()
		for range 500 {
			name, at := fmt.Sprintf("q-%d", r.IntN(12)), fmt.Sprintf("node-%d", r.IntN(5))
			p := pod(name, at, hasIP, []podOption{func(*corev1.Pod) {}, notReady, terminating, inNamespace("other"), labelled("app", "green")}[r.IntN(5)])
			n := node(at, []nodeOption{func(*corev1.Node) {}, withGPUs("0"), cordoned, withReady(corev1.ConditionFalse)}[r.IntN(4)])
			v := service("qdrant", []map[string]string{{"app": "qdrant"}, {"app": "green"}, nil}[r.IntN(3)])
			v.Spec.PublishNotReadyAddresses = r.IntN(2) == 0
			m := namespace([]string{"search", "other"}[r.IntN(2)], "team", []string{"search", "none"}[r.IntN(2)])
			switch r.IntN(14) {
			case 12:
				s.remove(m)
			case 13:
				s.put(m)
			case 0:
				s.remove(p)
			case 1:
				s.remove(n)
			case 2:
				s.remove(v)
			case 3:
				s.put(v)
			case 4, 5:
				s.put(n)
			default:
				s.put(p)
			}
		}
		s.clock.Step(2 * Grace)
		s.endGraces()
		for i, set := range s.Sets() {
			if diff := cmp.Diff(counts(s.afresh(s.Configured(i).choice)), counts(set)); diff != "" {
				t.Errorf("seed %d, target %d (-afresh +changed):\n%s", seed, i, diff)
			}
		}
	}
}

func TestADeletionThatWasMissed(t *testing.T) {
	s := newStill(t, qdrantPods())
	s.put(pod("q-0", "a"), pod("q-1", "b"))
	s.begin()
	handler(s.Index, "pods", s.placePod, s.removePod).OnDelete(cache.DeletedFinalStateUnknown{Key: "search/q-0", Obj: pod("q-0", "a")})
	if diff := cmp.Diff(map[string]int{"b": 1}, counts(s.Sets()[0])); diff != "" {
		t.Errorf("after the tombstone (-want +got):\n%s", diff)
	}
}

func TestFromAnAPIServer(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	client := fake.NewClientset(service("qdrant", map[string]string{"app": "qdrant"}), pod("q-0", "a"), node("g"))
	factory := informers.NewSharedInformerFactory(client, 0)
	clock := clocktesting.NewFakeClock(time.Now())
	index, err := NewIndex([]config.Target{qdrantPods(), qdrantService(), gpuNodes()}, factory, client, clock)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		index.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		factory.Shutdown()
	})
	factory.Start(ctx.Done())

	until := func(what string, want ...map[string]int) {
		t.Helper()
		var got []map[string]int
		for range 1000 {
			got = nil
			for _, set := range index.Sets() {
				got = append(got, counts(set))
			}
			if cmp.Equal(want, got) && index.Configured(0).published.Load() != nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Fatalf("%s (-want +got):\n%s", what, cmp.Diff(want, got))
	}
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	until("what is there at the start", map[string]int{"a": 1}, map[string]int{"a": 1}, map[string]int{"g": 1})
	must(client.CoreV1().Pods("search").Create(ctx, pod("q-1", "b"), metav1.CreateOptions{}))
	must(client.CoreV1().Nodes().Update(ctx, node("g", withGPUs("0")), metav1.UpdateOptions{}))
	must(client.CoreV1().Nodes().Create(ctx, node("h"), metav1.CreateOptions{}))
	until("a new pod, a lost device", map[string]int{"a": 1, "b": 1}, map[string]int{"a": 1, "b": 1}, map[string]int{"h": 1})
	must(nil, client.CoreV1().Pods("search").Delete(ctx, "q-0", metav1.DeleteOptions{}))
	must(nil, client.CoreV1().Services("search").Delete(ctx, "qdrant", metav1.DeleteOptions{}))
	for range 1000 { // until the end of the service's grace is waited for
		if clock.HasWaiters() && index.Sets()[1].Grace && len(index.Sets()[0].Replicas) == 1 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	clock.Step(Grace)
	until("a deleted pod, a deleted service after its grace", map[string]int{"b": 1}, map[string]int{}, map[string]int{"h": 1})
}
