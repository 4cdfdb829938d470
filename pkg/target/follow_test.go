package target

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"

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
	s.dropReleased()
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
	if s.Configured(0).watch != nil {
		t.Error("the watch is left")
	}
}

// unselected follows Services without a selector, in the order of their names.
func unselected(t *testing.T, s *still, names ...string) (followed []*Target) {
	t.Helper()
	for _, name := range names {
		s.put(service(name, nil))
		target := follow(t, s.Index, config.Target{Name: name, Service: &config.ServiceTarget{Namespace: "search", Name: name}})
		target.Set()
		followed = append(followed, target)
	}
	return followed
}

func TestSoManyServicesWithoutASelectorAreWatched(t *testing.T) {
	s := newStill(t, qdrantService())
	s.begin()
	var names []string
	for i := range maxWatches + 2 {
		names = append(names, fmt.Sprintf("s-%03d", i))
	}
	followed := unselected(t, s, names...)
	watched := func(what string, others int, refused ...bool) {
		t.Helper()
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.watches != others {
			t.Errorf("%s: %d watches for pods' targets, want %d", what, s.watches, others)
		}
		var got []bool
		for _, target := range followed[maxWatches:] {
			got = append(got, target.watch == nil)
		}
		if diff := cmp.Diff(refused, got); diff != "" {
			t.Errorf("%s, refused (-want +got):\n%s", what, diff)
		}
	}
	watched("at the limit", maxWatches, true, true)
	s.put(service("qdrant", nil))
	if s.Configured(0).watch == nil {
		t.Error("a target of the configuration is not watched")
	}
	watched("one of the configuration besides", maxWatches, true, true)
	s.put(named(nil))
	if s.Configured(0).watch != nil {
		t.Error("a Service that is but a name is watched")
	}
	watched("it takes no slot and frees none", maxWatches, true, true)

	s.put(service("s-000", map[string]string{"app": "qdrant"}))
	left := 0
	for _, target := range followed[maxWatches:] {
		if target.watch == nil {
			left++
		}
	}
	if left != 1 || s.watches != maxWatches {
		t.Errorf("a Service got a selector: %d are refused with %d watches, want one", left, s.watches)
	}
	s.Release(followed[1])
	s.dropReleased()
	watched("one was released", maxWatches, false, false)
	s.Release(followed[2])
	s.dropReleased()
	watched("another was released", maxWatches-1, false, false)
}

// The handler may hear of an older Service than the lister has.
func TestEndpointsStayWhileTheirWatchLasts(t *testing.T) {
	s := newStill(t, qdrantService())
	s.put(service("qdrant", nil))
	s.begin()
	target := s.Configured(0)
	saw(t, target, sliceOf("one", endpointAt("10.0.0.1", "a", true)))
	s.follow(target, target.watch)
	before := target.Set()
	if diff := cmp.Diff(map[string]int{"a": 1}, counts(before)); diff != "" {
		t.Fatalf("endpoints (-want +got):\n%s", diff)
	}
	s.placeService(service("qdrant", map[string]string{"app": "qdrant"}))
	s.placeService(service("qdrant", nil))
	if after := target.Set(); after != before {
		t.Errorf("set is %+v after %+v, want the same", after, before)
	}
}

// saw puts slices where the watch of target would, in place of what it does.
func saw(t *testing.T, target *Target, seen ...*discoveryv1.EndpointSlice) {
	t.Helper()
	target.index.mu.Lock()
	defer target.index.mu.Unlock()
	target.watch.slices = cache.NewStore(cache.MetaNamespaceKeyFunc)
	for _, slice := range seen {
		if err := target.watch.slices.Add(slice); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAnEndpointOfTwoFamiliesCountsOnce(t *testing.T) {
	typed := func(addressType discoveryv1.AddressType, slice *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
		slice.AddressType = addressType
		return slice
	}
	four := typed(discoveryv1.AddressTypeIPv4, sliceOf("four", endpointAt("10.0.0.1", "a", true), endpointAt("10.0.0.2", "b", true)))
	six := typed(discoveryv1.AddressTypeIPv6, sliceOf("six", endpointAt("fd00::1", "a", true), endpointAt("fd00::3", "c", true)))
	silent := typed(discoveryv1.AddressTypeIPv4, sliceOf("four", endpointAt("10.0.0.1", "a", false)))
	for _, tt := range []struct {
		name     string
		families []corev1.IPFamily
		slices   []*discoveryv1.EndpointSlice
		want     map[string]int
	}{
		{"the Service's first family", []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}, []*discoveryv1.EndpointSlice{four, six}, map[string]int{"a": 1, "b": 1}},
		{"which may be the newer", []corev1.IPFamily{corev1.IPv6Protocol, corev1.IPv4Protocol}, []*discoveryv1.EndpointSlice{four, six}, map[string]int{"a": 1, "c": 1}},
		{"the other where the first has none", []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}, []*discoveryv1.EndpointSlice{silent, six}, map[string]int{"a": 1, "c": 1}},
		{"none that the Service is not of", []corev1.IPFamily{corev1.IPv4Protocol}, []*discoveryv1.EndpointSlice{six}, map[string]int{}},
		{"all of a Service that names none", nil, []*discoveryv1.EndpointSlice{four, six}, map[string]int{"a": 2, "b": 1, "c": 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newStill(t, qdrantService())
			v := service("qdrant", nil)
			v.Spec.IPFamilies = tt.families
			s.put(v)
			s.begin()
			saw(t, s.Configured(0), tt.slices...)
			s.follow(s.Configured(0), s.Configured(0).watch)
			if diff := cmp.Diff(tt.want, counts(s.Sets()[0])); diff != "" {
				t.Errorf("replicas (-want +got):\n%s", diff)
			}
		})
	}
}

// Who follows holds the lock of the scheduling queue.
func TestWhoFollowsWaitsForNobodyWhoCountsPods(t *testing.T) {
	s := newStill(t, qdrantService())
	s.begin()
	followed := follow(t, s.Index, qdrantPods())
	followed.Set()
	s.mu.Lock() // as long as pods are counted
	done := make(chan struct{})
	go func() {
		defer close(done)
		if again, err := s.Follow(qdrantPods()); again != followed || err != nil {
			t.Errorf("followed again it is %v, %v", again, err)
		}
		s.Release(followed)
		s.Release(followed)
		if again, err := s.Follow(qdrantPods()); again == followed || err != nil {
			t.Errorf("followed after its end it is %v, %v", again, err)
		}
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Error("it waits")
	}
	s.mu.Unlock()
	<-done
}

// unlocked are pods that are to be read without the index's lock.
type unlocked struct {
	cache.Indexer
	t     *testing.T
	index *Index
	reads int
}

func (u *unlocked) List() []any {
	u.reads++
	if !u.index.mu.TryLock() {
		u.t.Error("pods are read under the lock of the handlers")
		return nil
	}
	defer u.index.mu.Unlock()
	return u.Indexer.List()
}

func TestAProvisionalSetServesForAWhile(t *testing.T) {
	s := newStill(t, qdrantPods())
	pods := &unlocked{Indexer: s.pods, t: t, index: s.Index}
	s.pods = pods
	s.Sets()
	s.put(pod("q-0", "a"))
	if diff := cmp.Diff(map[string]int{"a": 1}, counts(s.Sets()[0])); diff != "" {
		t.Errorf("while the informers are still reading (-want +got):\n%s", diff)
	}
	s.haveRead = nil
	before := pods.reads
	first := s.Sets()[0]
	s.put(pod("q-1", "b"))
	if again := s.Sets()[0]; again != first || pods.reads != before+1 {
		t.Errorf("set is %+v after %+v at once, and pods were read %d times; want the same, once", again, first, pods.reads-before)
	}
	s.clock.Step(provisionalFor)
	later := s.Sets()[0]
	if diff := cmp.Diff(map[string]int{"a": 1, "b": 1}, counts(later)); diff != "" {
		t.Errorf("a while later (-want +got):\n%s", diff)
	}
	s.clock.Step(provisionalFor)
	if again := s.Sets()[0]; again != later {
		t.Errorf("set is %+v after %+v, want the same as nothing has changed", again, later)
	}
	s.pods = pods.Indexer // from here on they may be read under the lock
	s.begin()
	if again := s.Sets()[0]; again != later {
		t.Errorf("once the handlers have synced it is %+v after %+v, want the same as nothing has changed", again, later)
	}
	s.put(pod("q-2", "c"))
	if diff := cmp.Diff(map[string]int{"a": 1, "b": 1, "c": 1}, counts(s.Sets()[0])); diff != "" {
		t.Errorf("after a change (-want +got):\n%s", diff)
	}
}

// Where nothing happens that a handler could drop it by.
func TestWhatIsReleasedIsDroppedByRun(t *testing.T) {
	s := newStill(t, qdrantPods())
	s.factory.StartWithContext(s.ctx)
	go s.Run(s.ctx)
	if !s.Settle(s.ctx) {
		t.Fatal("the index does not settle")
	}
	target := follow(t, s.Index, qdrantPods("elsewhere"))
	target.Set()
	s.Release(target)
	for range 1000 {
		s.mu.Lock()
		left := len(s.affected.pairs[pair{"app", "qdrant"}])
		s.mu.Unlock()
		if left == 1 { // that of the configuration
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("a target that was released is looked at for pods after ten seconds")
}

// TestFollowedAndReleasedByMany is for the race detector.
func TestFollowedAndReleasedByMany(t *testing.T) {
	s := newStill(t, qdrantPods())
	var running sync.WaitGroup
	for i := range 4 {
		running.Go(func() {
			for range 200 {
				target, err := s.Follow(qdrantPods(fmt.Sprint("n-", i%2)))
				if err != nil {
					t.Error(err)
					return
				}
				target.Set()
				s.Census()
				s.Release(target)
				target.Set()
			}
		})
	}
	running.Go(func() {
		for i := range 200 {
			s.put(pod("q-0", fmt.Sprint("node-", i), inNamespace(fmt.Sprint("n-", i%2))))
			if i == 100 {
				s.begin()
			}
		}
	})
	running.Go(func() {
		for range 200 {
			s.dropReleased()
		}
	})
	running.Wait()
	s.dropReleased()
	if targets, _ := s.Census(); targets != 1 || len(s.released) > 0 {
		t.Errorf("%d targets and %d that are to be dropped are left, want that of the configuration", targets, len(s.released))
	}
	for key, counting := range s.affected.counting {
		if !slices.Equal(counting, []*Target{s.Configured(0)}) {
			t.Errorf("%s is counted by %d targets", key, len(counting))
		}
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
	annotated := func(annotations map[string]string) func(*corev1.Service) {
		return func(s *corev1.Service) { s.Annotations = annotations }
	}
	const mode, hints = corev1.AnnotationTopologyMode, corev1.DeprecatedAnnotationTopologyAwareHints
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
		{"by topology instead", distributed("PreferSameNode", annotated(map[string]string{mode: "Auto"})), placement.ToAll, true},
		{"by no topology", distributed("PreferSameNode", annotated(map[string]string{mode: "Disabled"})), placement.PreferSameNode, true},
		{"by topology, by its older name", distributed("PreferSameNode", annotated(map[string]string{hints: "auto"})), placement.ToAll, true},
		{"the older name goes first", distributed("PreferSameNode", annotated(map[string]string{hints: "Disabled", mode: "Auto"})), placement.PreferSameNode, true},
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
