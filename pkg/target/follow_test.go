package target

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"github.com/netlatency/netlatency/apis/config"
	"github.com/netlatency/netlatency/pkg/placement"
)

func TestForAPod(t *testing.T) {
	head := config.Target{Name: "head", Weight: 3, Pods: &config.PodsTarget{
		LabelSelector:  &metav1.LabelSelector{MatchLabels: map[string]string{"ray.io/node-type": "head"}},
		MatchLabelKeys: []string{"ray.io/cluster", "tier"},
	}}
	elsewhere := head
	elsewhere.Pods = head.Pods.DeepCopy()
	elsewhere.Pods.Namespaces = []string{"heads"}
	worker := pod("w-0", "", labelled("ray.io/cluster", "one"), inNamespace("ray"))
	want := config.Target{Name: "head", Weight: 3, Pods: &config.PodsTarget{
		LabelSelector: &metav1.LabelSelector{
			MatchLabels:      map[string]string{"ray.io/node-type": "head"},
			MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "ray.io/cluster", Operator: metav1.LabelSelectorOpIn, Values: []string{"one"}}},
		},
		Namespaces: []string{"ray"},
	}}
	if diff := cmp.Diff(want, For(head, worker)); diff != "" {
		t.Errorf("in the pod's namespace (-want +got):\n%s", diff)
	}
	want.Pods.Namespaces = []string{"heads"}
	if diff := cmp.Diff(want, For(elsewhere, worker)); diff != "" {
		t.Errorf("in the given namespace (-want +got):\n%s", diff)
	}
	if len(head.Pods.LabelSelector.MatchExpressions) > 0 {
		t.Errorf("the target of the configuration was changed: %v", head.Pods.LabelSelector)
	}
	for _, same := range []config.Target{qdrantPods(), gpuNodes(), qdrantService()} {
		if diff := cmp.Diff(same, For(same, worker)); diff != "" {
			t.Errorf("a target that is the same for all (-want +got):\n%s", diff)
		}
	}
}

func follow(tb testing.TB, x *Index, t config.Target) *Target {
	tb.Helper()
	followed, err := x.Follow(t)
	if err != nil {
		tb.Fatal(err)
	}
	return followed
}

func TestATargetIsKeptCurrentWhileItIsFollowed(t *testing.T) {
	s := newStill(t, gpuNodes())
	s.put(pod("q-0", "a"))
	moved := make(chan struct{}, 1)
	s.Notify(moved)
	before := follow(t, s.Index, qdrantPods())
	if diff := cmp.Diff(map[string]int{"a": 1}, counts(before.Set())); diff != "" {
		t.Errorf("before the handlers have synced (-want +got):\n%s", diff)
	}
	s.begin()
	heavier := qdrantPods()
	heavier.Name, heavier.Weight = "other", 9
	if again := follow(t, s.Index, heavier); again != before {
		t.Error("what chooses alike is two targets")
	}
	elsewhere := follow(t, s.Index, qdrantPods("other"))
	s.put(pod("q-1", "b", inNamespace("other")))
	if diff := cmp.Diff(map[string]int{"b": 1}, counts(elsewhere.Set())); diff != "" {
		t.Errorf("the first set of a target that is followed late (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]int{"a": 1, "b": 1}, counts(before.Set())); diff != "" {
		t.Errorf("after a change (-want +got):\n%s", diff)
	}
	nodes := s.Nodes()
	slices.Sort(nodes)
	if diff := cmp.Diff([]string{"a", "b"}, nodes); diff != "" {
		t.Errorf("nodes of all targets (-want +got):\n%s", diff)
	}
	if targets, empty := s.Census(); targets != 3 || empty != 1 {
		t.Errorf("%d targets, of which %d run nowhere; want 3 and the GPUs", targets, empty)
	}
	s.Release(before)
	<-moved
	s.put(pod("q-0", "c"))
	select {
	case <-moved:
	default:
		t.Error("nobody was told that a target moved that is still followed once")
	}
	s.Release(before)
	s.Release(elsewhere)
	s.put(pod("q-0", "d"))
	before.Set()
	if targets, _ := s.Census(); targets != 1 || len(s.affected.counting)+len(s.affected.pairs)+len(s.affected.anyPod) > 0 {
		t.Errorf("%d targets are left and %+v", targets, s.affected)
	}
}

func TestAPodConcernsTheTargetsThatItsLabelsMayChoose(t *testing.T) {
	s := newStill(t)
	s.begin()
	for i := range 1000 {
		target := qdrantPods()
		target.Pods.LabelSelector.MatchLabels = map[string]string{"app": fmt.Sprintf("app-%d", i)}
		follow(t, s.Index, target).Set()
	}
	s.put(pod("p", "a", labelled("app", "app-7")))
	if got := len(s.affected.of("search/other", map[string]string{"app": "app-7", "x": "y"})); got != 1 {
		t.Errorf("%d of 1000 targets are looked at for a pod that one can choose", got)
	}
	if got := len(s.affected.of("search/p", map[string]string{"app": "other"})); got != 1 {
		t.Errorf("%d targets are looked at for a pod that one counts and none can choose, want that one", got)
	}
}

func sliceOf(name string, endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "search", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: "qdrant"}},
		Endpoints:  endpoints,
	}
}

func endpointAt(address, node string, ready bool) discoveryv1.Endpoint {
	return discoveryv1.Endpoint{Addresses: []string{address}, NodeName: &node, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}
}

func TestAServiceWithoutASelectorRunsWhereItsEndpointSlicesSay(t *testing.T) {
	s := newStill(t, qdrantService())
	slices := s.client.DiscoveryV1().EndpointSlices("search")
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(slices.Create(s.ctx, sliceOf("one", endpointAt("10.0.0.1", "a", true), endpointAt("10.0.0.2", "b", false), endpointAt("10.0.0.3", "", true)), metav1.CreateOptions{}))
	s.put(service("qdrant", nil), pod("q-0", "p"))
	s.begin()
	becomes := func(what string, want map[string]int) {
		t.Helper()
		for range 500 {
			if cmp.Equal(want, counts(s.Sets()[0])) {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Fatalf("%s (-want +got):\n%s", what, cmp.Diff(want, counts(s.Sets()[0])))
	}
	becomes("the endpoint that is ready and has a node", map[string]int{"a": 1})
	must(slices.Create(s.ctx, sliceOf("two", endpointAt("10.0.0.1", "a", true), endpointAt("10.0.0.4", "c", true)), metav1.CreateOptions{}))
	becomes("an endpoint in two slices counts once", map[string]int{"a": 1, "c": 1})
	must(slices.Update(s.ctx, sliceOf("one", endpointAt("10.0.0.2", "b", true)), metav1.UpdateOptions{}))
	must(nil, slices.Delete(s.ctx, "two", metav1.DeleteOptions{}))
	becomes("a slice that changed and one that went", map[string]int{"b": 1})
	s.put(service("qdrant", map[string]string{"app": "qdrant"}))
	becomes("a selector takes their place", map[string]int{"p": 1})
	if s.watches != 0 {
		t.Errorf("%d watches are left", s.watches)
	}
}

func TestAServiceLeadsWhereItsTrafficDistributionSays(t *testing.T) {
	distributed := func(value string, change ...func(*corev1.Service)) *corev1.Service {
		s := service("qdrant", map[string]string{"app": "qdrant"})
		s.Spec.TrafficDistribution = &value
		for _, c := range change {
			c(s)
		}
		return s
	}
	headless := func(s *corev1.Service) { s.Spec.ClusterIP = corev1.ClusterIPNone }
	s := newStill(t, qdrantService())
	s.put(distributed(corev1.ServiceTrafficDistributionPreferSameNode), pod("q-0", "a"))
	if got := s.Sets()[0].Distribution; got != placement.PreferSameNode {
		t.Errorf("before the handlers have synced: %q", got)
	}
	s.begin()
	version := s.Sets()[0].Version
	for _, step := range []struct {
		name    string
		service *corev1.Service
		want    placement.Distribution
		moved   bool
	}{
		{"as it was", distributed("PreferSameNode"), placement.PreferSameNode, false},
		{"to the zone", distributed("PreferSameZone"), placement.PreferSameZone, true},
		{"by its older name", distributed("PreferClose"), placement.PreferSameZone, false},
		{"a value that is not known", distributed("PreferSameRack"), placement.ToAll, true},
		{"to the zone again", distributed("PreferSameZone"), placement.PreferSameZone, true},
		{"headless", distributed("PreferSameZone", headless), placement.ToAll, true},
		{"to the node", distributed("PreferSameNode"), placement.PreferSameNode, true},
		{"without", service("qdrant", map[string]string{"app": "qdrant"}), placement.ToAll, true},
	} {
		s.put(step.service)
		set := s.Sets()[0]
		if moved := set.Version > version; set.Distribution != step.want || moved != step.moved {
			t.Errorf("%s: leads to %q, a new set: %t; want %q, %t", step.name, set.Distribution, moved, step.want, step.moved)
		}
		if diff := cmp.Diff(map[string]int{"a": 1}, counts(set)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step.name, diff)
		}
		version = set.Version
	}
	s.put(distributed("PreferSameZone"))
	s.remove(pod("q-0", "a"))
	if set := s.Sets()[0]; !set.Grace || set.Distribution != placement.PreferSameZone {
		t.Errorf("in its grace: %+v", set)
	}
}

func TestAServiceWhoseEndpointSlicesAreForbiddenHasNoReplicas(t *testing.T) {
	s := newStill(t, qdrantService(), gpuNodes())
	asked := make(chan struct{}, 100)
	s.client.PrependReactor("list", "endpointslices", func(clienttesting.Action) (bool, runtime.Object, error) {
		asked <- struct{}{}
		return true, nil, errors.New("forbidden")
	})
	s.put(service("qdrant", nil), node("g"))
	s.begin()
	<-asked
	if diff := cmp.Diff([]map[string]int{{}, {"g": 1}}, []map[string]int{counts(s.Sets()[0]), counts(s.Sets()[1])}); diff != "" {
		t.Errorf("sets (-want +got):\n%s", diff)
	}
}

func BenchmarkAPodsEvent(b *testing.B) {
	for _, targets := range []int{1, 4096} {
		b.Run(fmt.Sprintf("%dtargets", targets), func(b *testing.B) {
			s := newStill(b)
			s.begin()
			for i := range targets {
				target := qdrantPods()
				target.Pods.LabelSelector.MatchLabels = map[string]string{"app": fmt.Sprintf("app-%d", i)}
				follow(b, s.Index, target).Set()
			}
			pods := []*corev1.Pod{pod("p", "a", labelled("app", "app-0")), pod("p", "b", labelled("app", "app-0"))}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				s.placePod(pods[i%2])
			}
		})
	}
}
