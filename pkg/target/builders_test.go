package target

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/netlatency/netlatency/apis/config"
)

type podOption func(*corev1.Pod)

// pod is a ready one in the namespace search, labelled app=qdrant.
func pod(name, node string, options ...podOption) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "search", Name: name, Labels: map[string]string{"app": "qdrant"}},
		Spec:       corev1.PodSpec{NodeName: node},
		Status: corev1.PodStatus{
			Phase:      corev1.PodRunning,
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
		},
	}
	for _, option := range options {
		option(p)
	}
	return p
}

func notReady(p *corev1.Pod)     { p.Status.Conditions[0].Status = corev1.ConditionFalse }
func neverStarted(p *corev1.Pod) { p.Status.Conditions = nil }
func terminating(p *corev1.Pod)  { p.DeletionTimestamp = &metav1.Time{} }
func succeeded(p *corev1.Pod)    { p.Status.Phase = corev1.PodSucceeded }

func inNamespace(namespace string) podOption {
	return func(p *corev1.Pod) { p.Namespace = namespace }
}

func labelled(key, value string) podOption {
	return func(p *corev1.Pod) { p.Labels = map[string]string{key: value} }
}

type nodeOption func(*corev1.Node)

// node has a GPU and nothing to say about its condition.
func node(name string, options ...nodeOption) *corev1.Node {
	n := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"kubernetes.io/hostname": name}},
		Status: corev1.NodeStatus{
			Allocatable: corev1.ResourceList{"nvidia.com/gpu": resource.MustParse("4")},
		},
	}
	for _, option := range options {
		option(n)
	}
	return n
}

func withGPUs(count string) nodeOption {
	return func(n *corev1.Node) { n.Status.Allocatable["nvidia.com/gpu"] = resource.MustParse(count) }
}

func withRole(role string) nodeOption {
	return func(n *corev1.Node) { n.Labels["role"] = role }
}

func withReady(status corev1.ConditionStatus) nodeOption {
	return func(n *corev1.Node) {
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: status}}
	}
}

func cordoned(n *corev1.Node)     { n.Spec.Unschedulable = true }
func beingDeleted(n *corev1.Node) { n.DeletionTimestamp = &metav1.Time{} }

func service(name string, selector map[string]string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "search", Name: name},
		Spec:       corev1.ServiceSpec{Selector: selector},
	}
}

// withNotReady is the Service qdrant, which publishes pods that are not ready too.
func withNotReady(selector map[string]string) *corev1.Service {
	s := service("qdrant", selector)
	s.Spec.PublishNotReadyAddresses = true
	return s
}

// named is the Service qdrant as nothing but another name.
func named(selector map[string]string) *corev1.Service {
	s := service("qdrant", selector)
	s.Spec.Type, s.Spec.ExternalName = corev1.ServiceTypeExternalName, "qdrant.example"
	return s
}

func namespace(name, key, value string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{key: value}}}
}

// inTeams is qdrantPods in namespaces of team search, and in those given.
func inTeams(namespaces ...string) config.Target {
	t := qdrantPods(namespaces...)
	t.Pods.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"team": "search"}}
	return t
}

func qdrantPods(namespaces ...string) config.Target {
	return config.Target{Name: "qdrant", Pods: &config.PodsTarget{
		LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "qdrant"}},
		Namespaces:    namespaces,
	}}
}

func gpuNodes() config.Target {
	return config.Target{Name: "gpu", Nodes: &config.NodesTarget{Resource: "nvidia.com/gpu"}}
}

func qdrantService() config.Target {
	return config.Target{Name: "qdrant", Service: &config.ServiceTarget{Namespace: "search", Name: "qdrant"}}
}

// still is an Index whose informers do not run: what they would read is put
// into their stores, and their handlers are called, by hand.
type still struct {
	*Index
	clock   *clocktesting.FakeClock
	factory informers.SharedInformerFactory
	client  *fake.Clientset
	ctx     context.Context
}

func newStill(tb testing.TB, targets ...config.Target) *still {
	tb.Helper()
	s := &still{clock: clocktesting.NewFakeClock(metav1.Now().Time), client: fake.NewClientset(), ctx: tb.Context()}
	s.factory = informers.NewSharedInformerFactory(s.client, 0)
	index, err := NewIndex(targets, s.factory, s.client, s.clock)
	if err != nil {
		tb.Fatal(err)
	}
	s.Index = index
	return s
}

func (s *still) store(object runtime.Object) cache.Store {
	core := s.factory.Core().V1()
	switch object.(type) {
	case *corev1.Pod:
		return core.Pods().Informer().GetStore()
	case *corev1.Node:
		return core.Nodes().Informer().GetStore()
	case *corev1.Namespace:
		return core.Namespaces().Informer().GetStore()
	default:
		return core.Services().Informer().GetStore()
	}
}

// read puts objects into the stores before the handlers hear of them.
func (s *still) read(objects ...runtime.Object) {
	for _, object := range objects {
		if err := s.store(object).Add(object); err != nil {
			panic(err)
		}
	}
}

func (s *still) put(objects ...runtime.Object) {
	for _, object := range objects {
		s.read(object)
		switch o := object.(type) {
		case *corev1.Pod:
			s.placePod(o)
		case *corev1.Node:
			s.placeNode(o)
		case *corev1.Service:
			s.placeService(o)
		case *corev1.Namespace:
			s.placeNamespace(o)
		}
	}
}

func (s *still) remove(objects ...runtime.Object) {
	for _, object := range objects {
		if err := s.store(object).Delete(object); err != nil {
			panic(err)
		}
		switch o := object.(type) {
		case *corev1.Pod:
			s.removePod(o)
		case *corev1.Node:
			s.removeNode(o)
		case *corev1.Service:
			s.removeService(o)
		case *corev1.Namespace:
			s.removeNamespace(o)
		}
	}
}

// begin is start with the test's context.
func (s *still) begin() { s.start(s.ctx) }

// counts is a set as nodes and how many replicas they have.
func counts(set *Set) map[string]int {
	counts := map[string]int{}
	for _, replica := range set.Replicas {
		counts[replica.Node] = replica.Count
	}
	return counts
}
