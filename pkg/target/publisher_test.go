package target

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"
	"k8s.io/utils/ptr"

	"github.com/netlatency/netlatency/apis/config"
)

var toAgents = config.TargetSlices{Namespace: "netlatency", Service: "netlatency-targets"}

func at(ips ...string) podOption {
	return func(p *corev1.Pod) {
		p.Status.PodIPs = nil
		for _, ip := range ips {
			p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: ip})
		}
	}
}

func listening(ports ...corev1.ContainerPort) podOption {
	return func(p *corev1.Pod) {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Ports: ports})
	}
}

func withIPs(ips ...string) nodeOption {
	return func(n *corev1.Node) {
		for _, ip := range ips {
			n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: ip})
		}
	}
}

func inZone(zone string) nodeOption {
	return func(n *corev1.Node) { n.Labels[corev1.LabelTopologyZone] = zone }
}

var rest = corev1.ContainerPort{Name: "rest", ContainerPort: 6333}

// told is a publisher of an Index that does not run by itself, and what it has
// written.
type told struct {
	*Publisher
	t      *testing.T
	still  *still
	client *fake.Clientset
	ctx    context.Context
	log    ktesting.Buffer
}

func newTold(t *testing.T, objects []runtime.Object, targets ...config.Target) *told {
	t.Helper()
	s := newStill(t, targets...)
	s.put(objects...)
	s.begin()
	logger := ktesting.NewLogger(t, ktesting.NewConfig(ktesting.BufferLogs(true)))
	w := &told{t: t, still: s, client: fake.NewClientset(), ctx: klog.NewContext(t.Context(), logger)}
	w.log = logger.GetSink().(ktesting.Underlier).GetBuffer()
	w.Publisher = newPublisher(t, w.client, s, targets)
	return w
}

func newPublisher(t *testing.T, client *fake.Clientset, s *still, targets []config.Target) *Publisher {
	t.Helper()
	p := NewPublisher(client, toAgents, "", s.factory.Core().V1().Nodes().Lister())
	var all []int
	for i := range targets {
		all = append(all, i)
	}
	if err := p.Follow(s.Index, targets, all); err != nil {
		t.Fatal(err)
	}
	return p
}

// written is the EndpointSlices that there are, a line each: what the name ends
// with, the port, and the endpoints as node=address@zone.
func written(t *testing.T, client *fake.Clientset) []string {
	t.Helper()
	list, err := client.DiscoveryV1().EndpointSlices("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, s := range list.Items {
		parts := strings.Split(strings.TrimPrefix(s.Name, "netlatency-targets-"), "-")
		line := []string{parts[0], parts[len(parts)-1]}
		for _, port := range s.Ports {
			line = append(line, fmt.Sprintf(":%d", *port.Port))
		}
		for _, e := range s.Endpoints {
			line = append(line, fmt.Sprintf("%s=%s@%s", *e.NodeName, e.Addresses[0], ptr.Deref(e.Zone, "")))
		}
		lines = append(lines, strings.Join(line, " "))
	}
	slices.Sort(lines)
	return lines
}

// writes counts the requests that change slices.
func (w *told) writes() (n int) {
	for _, action := range w.client.Actions() {
		if action.GetResource().Resource == "endpointslices" && !slices.Contains([]string{"list", "watch", "get"}, action.GetVerb()) {
			n++
		}
	}
	return n
}

func (w *told) publish(want ...string) {
	w.t.Helper()
	if err := w.Publisher.publish(w.ctx); err != nil {
		w.t.Error(err)
	}
	if diff := gocmp.Diff(want, written(w.t, w.client)); diff != "" {
		w.t.Errorf("EndpointSlices (-want +got):\n%s", diff)
	}
}

func TestWhatTheAgentsAreTold(t *testing.T) {
	named := service("qdrant", map[string]string{"app": "qdrant"})
	named.Spec.Ports = []corev1.ServicePort{
		{Protocol: corev1.ProtocolUDP, Port: 53},
		{Protocol: corev1.ProtocolTCP, Port: 80, TargetPort: intstr.FromString("rest")},
	}
	numbered := named.DeepCopy()
	numbered.Spec.Ports[1].TargetPort = intstr.FromInt32(7000)
	same := named.DeepCopy()
	same.Spec.Ports[1].TargetPort = intstr.IntOrString{}
	grpc := corev1.ContainerPort{Name: "grpc", ContainerPort: 6334}
	dns := corev1.ContainerPort{ContainerPort: 53, Protocol: corev1.ProtocolUDP}

	tests := []struct {
		name    string
		target  config.Target
		objects []runtime.Object
		want    []string
	}{
		{
			name:   "a replica of each node, at its address and the first TCP port of the pods",
			target: qdrantPods(),
			objects: []runtime.Object{
				node("a", inZone("fra")), pod("q-2", "b", at("10.0.0.2")), pod("q-1", "a", at("10.0.0.9")),
				pod("q-0", "a", at("10.0.0.1"), listening(dns, rest)),
			},
			want: []string{"qdrant ipv4 :6333 a=10.0.0.1@fra b=10.0.0.2@"},
		},
		{
			name:    "each address family apart",
			target:  qdrantPods(),
			objects: []runtime.Object{pod("q-0", "a", at("10.0.0.1", "fd00::1"), listening(rest)), pod("q-1", "b", at("fd00::2"))},
			want:    []string{"qdrant ipv4 :6333 a=10.0.0.1@", "qdrant ipv6 :6333 a=fd00::1@ b=fd00::2@"},
		},
		{
			name:    "nodes at their internal addresses, without a port",
			target:  gpuNodes(),
			objects: []runtime.Object{node("a", withIPs("192.0.2.1", "192.0.2.9"), inZone("fra")), node("b", withIPs("192.0.2.2")), node("c")},
			want:    []string{"gpu ipv4 a=192.0.2.1@fra b=192.0.2.2@"},
		},
		{
			name:    "a Service's port by the name that it has in the pods",
			target:  qdrantService(),
			objects: []runtime.Object{named, pod("q-0", "a", at("10.0.0.1"), listening(grpc, rest))},
			want:    []string{"qdrant ipv4 :6333 a=10.0.0.1@"},
		},
		{
			name:    "a Service's port by number",
			target:  qdrantService(),
			objects: []runtime.Object{numbered, pod("q-0", "a", at("10.0.0.1"), listening(rest))},
			want:    []string{"qdrant ipv4 :7000 a=10.0.0.1@"},
		},
		{
			name:    "a Service's port that is that of the pods",
			target:  qdrantService(),
			objects: []runtime.Object{same, pod("q-0", "a", at("10.0.0.1"))},
			want:    []string{"qdrant ipv4 :80 a=10.0.0.1@"},
		},
		{
			name:    "no address that the API server would refuse",
			target:  qdrantPods(),
			objects: []runtime.Object{pod("q-0", "a", at("127.0.0.1")), pod("q-1", "b", at("169.254.0.1")), pod("q-2", "c"), pod("q-3", "d", at("10.0.0.4"))},
			want:    []string{"qdrant ipv4 d=10.0.0.4@"},
		},
		{name: "nothing of a target that runs nowhere", target: qdrantPods(), objects: []runtime.Object{pod("q-0", "a", at("10.0.0.1"), notReady)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			newTold(t, tt.objects, tt.target).publish(tt.want...)
		})
	}
}

// Whoever writes the slices of a Service without a selector says the port:
// targetPort has no say.
func TestThePortOfAServiceWithoutASelectorIsThatOfItsSlices(t *testing.T) {
	port := func(name string, protocol corev1.Protocol, number int32) discoveryv1.EndpointPort {
		return discoveryv1.EndpointPort{Name: &name, Protocol: &protocol, Port: &number}
	}
	unnamed := discoveryv1.EndpointPort{Port: new(int32(7443))}
	for _, tt := range []struct {
		name  string
		named string // the Service's TCP port
		ports []discoveryv1.EndpointPort
		want  string
	}{
		{"by the name of the Service's first TCP port", "rest", []discoveryv1.EndpointPort{port("grpc", corev1.ProtocolTCP, 7334), port("rest", corev1.ProtocolTCP, 7333)}, "qdrant ipv4 :7333 a=10.0.0.1@"},
		{"without a name", "", []discoveryv1.EndpointPort{unnamed}, "qdrant ipv4 :7443 a=10.0.0.1@"},
		{"none that is not TCP", "rest", []discoveryv1.EndpointPort{port("rest", corev1.ProtocolUDP, 7333)}, "qdrant ipv4 a=10.0.0.1@"},
		{"none of another name", "rest", []discoveryv1.EndpointPort{port("grpc", corev1.ProtocolTCP, 7334)}, "qdrant ipv4 a=10.0.0.1@"},
		{"none where every port will do", "rest", []discoveryv1.EndpointPort{{Name: new("rest")}}, "qdrant ipv4 a=10.0.0.1@"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := service("qdrant", nil)
			v.Spec.Ports = []corev1.ServicePort{
				{Name: "dns", Protocol: corev1.ProtocolUDP, Port: 53},
				{Name: tt.named, Protocol: corev1.ProtocolTCP, Port: 80, TargetPort: intstr.FromInt32(9999)},
			}
			w := newTold(t, []runtime.Object{v}, qdrantService())
			target := w.still.Configured(0)
			slice := sliceOf("one", endpointAt("10.0.0.1", "a", true))
			slice.Ports = tt.ports
			saw(t, target, slice)
			w.still.follow(target, target.watch)
			w.publish(tt.want)
		})
	}
}

func TestSlicesSayWhoseTheyAre(t *testing.T) {
	w := newTold(t, []runtime.Object{pod("q-0", "a", at("10.0.0.1"))}, qdrantPods())
	w.publish("qdrant ipv4 a=10.0.0.1@")
	list, err := w.client.DiscoveryV1().EndpointSlices("netlatency").List(t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) != 1 {
		t.Fatalf("%d slices in the agents' namespace, %v", len(list.Items), err)
	}
	want := map[string]string{
		"kubernetes.io/service-name": "netlatency-targets", "endpointslice.kubernetes.io/managed-by": "netlatency-scheduler",
		"service.kubernetes.io/headless": "", "app.kubernetes.io/name": "netlatency",
	}
	if diff := gocmp.Diff(want, list.Items[0].Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
}

func TestSlicesFollowTheirTargets(t *testing.T) {
	q0 := pod("q-0", "a", at("10.0.0.1"), listening(rest))
	g := node("g", withIPs("192.0.2.1"))
	w := newTold(t, []runtime.Object{q0, g}, qdrantPods(), gpuNodes())
	foreign := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "netlatency", Name: "netlatency-targets-foreign-x", Labels: map[string]string{discoveryv1.LabelServiceName: "netlatency-targets"}},
	}
	if err := w.client.Tracker().Add(foreign); err != nil {
		t.Fatal(err)
	}
	const theirs, gpu = "foreign x", "gpu ipv4 g=192.0.2.1@"
	w.publish(theirs, gpu, "qdrant ipv4 :6333 a=10.0.0.1@")

	before := w.writes()
	w.publish(theirs, gpu, "qdrant ipv4 :6333 a=10.0.0.1@")
	if n := w.writes() - before; n != 0 {
		t.Errorf("%d writes although nothing has changed", n)
	}

	w.still.put(pod("q-1", "b", at("10.0.0.2")))
	w.publish(theirs, gpu, "qdrant ipv4 :6333 a=10.0.0.1@ b=10.0.0.2@")
	if n := w.writes() - before; n != 1 {
		t.Errorf("%d writes for one change", n)
	}

	w.still.remove(q0, pod("q-1", "b"), g)
	w.publish(theirs, gpu, "qdrant ipv4 :6333 a=10.0.0.1@ b=10.0.0.2@") // the minute of grace
	w.still.clock.Step(Grace)
	w.still.endGraces()
	w.publish(theirs)
}

func TestWhatProfilesChooseAlikeIsWrittenOnce(t *testing.T) {
	objects := []runtime.Object{pod("q-0", "a", at("10.0.0.1"))}
	w := newTold(t, objects, qdrantPods())
	again := newStill(t, gpuNodes(), qdrantPods(), qdrantPods("search"))
	again.put(objects...)
	if err := w.Follow(again.Index, []config.Target{gpuNodes(), qdrantPods(), qdrantPods("search")}, []int{1, 2}); err != nil {
		t.Fatal(err)
	}
	w.publish() // not before both have synced
	again.begin()
	// The second chooses the same, the third has the name only.
	w.publish("qdrant ipv4 a=10.0.0.1@", "qdrant ipv4 a=10.0.0.1@")
}

func TestAgentsAreToldOfSoManyNodesOnly(t *testing.T) {
	targets := map[string]reach{"few": {}, "many": {}}
	fill := func(name string, n int) {
		r := targets[name]
		for i := range n {
			r.endpoints = append(r.endpoints, endpoint{node: fmt.Sprintf("%s-%04d", name, i)})
		}
		targets[name] = r
	}
	fill("few", 3)
	fill("many", 1000)
	if leftOut := bound(targets, 500); leftOut != 503 {
		t.Errorf("%d nodes are left out: want 503", leftOut)
	}
	if few, many := len(targets["few"].endpoints), len(targets["many"].endpoints); few != 3 || many != 497 {
		t.Errorf("%d and %d nodes are left: want 3 and 497", few, many)
	}
	if !slices.IsSortedFunc(targets["many"].endpoints, func(a, b endpoint) int { return cmp.Compare(a.node, b.node) }) {
		t.Error("the nodes are out of order: the slice would change")
	}
	// By hashes, lest it be those of one provider.
	early := 0
	for _, e := range targets["many"].endpoints {
		if e.node < "many-0500" {
			early++
		}
	}
	if early < 200 || early > 300 {
		t.Errorf("%d of the 497 are of the first half by name", early)
	}
	if leftOut := bound(targets, 500); leftOut != 0 {
		t.Errorf("%d of 500 nodes are left out", leftOut)
	}
}

func TestWhatFailsIsToldOnceAndTriedAgain(t *testing.T) {
	resource := discoveryv1.Resource("endpointslices")
	for _, fault := range []error{
		apierrors.NewForbidden(resource, "", errors.New("no role")),
		apierrors.NewConflict(resource, "netlatency-targets-qdrant", errors.New("changed")),
	} {
		t.Run(string(apierrors.ReasonForError(fault)), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newTold(t, []runtime.Object{pod("q-0", "a", at("10.0.0.1"))}, qdrantPods())
				var mended atomic.Bool
				w.client.PrependReactor("create", "endpointslices", func(clienttesting.Action) (bool, runtime.Object, error) {
					return !mended.Load(), nil, fault
				})
				ctx, stop := context.WithCancel(w.ctx)
				defer synctest.Wait()
				defer stop()
				go w.Run(ctx)

				time.Sleep(15 * time.Minute)
				synctest.Wait()
				tries := w.writes()
				// After 10 s, 20 s, ... 5 min, and then every 5 min.
				if tries != 7 {
					t.Errorf("%d tries in a quarter of an hour: want 7", tries)
				}
				if failures := w.Stats().Failures; int(failures) != tries {
					t.Errorf("%d failures are counted, of %d tries", failures, tries)
				}
				if n := strings.Count(w.log.String(), "Cannot tell the agents"); n != 1 {
					t.Errorf("the log says so %d times: want once\n%s", n, w.log.String())
				}
				mended.Store(true)
				time.Sleep(publishPauseMost)
				synctest.Wait()
				if got := written(t, w.client); len(got) != 1 {
					t.Errorf("once it works there is %q", got)
				}
			})
		})
	}
}

func TestALeaseThatIsForbiddenIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTold(t, []runtime.Object{pod("q-0", "a", at("10.0.0.1"))}, qdrantPods())
		w.client.PrependReactor("create", "leases", func(clienttesting.Action) (bool, runtime.Object, error) {
			return true, nil, apierrors.NewForbidden(discoveryv1.Resource("leases"), "netlatency-targets", errors.New("no role"))
		})
		ctx, stop := context.WithCancel(w.ctx)
		defer synctest.Wait()
		defer stop()
		go w.Run(ctx)
		time.Sleep(15 * time.Minute)
		synctest.Wait()
		if n := strings.Count(w.log.String(), "Cannot tell the agents"); n != 1 {
			t.Errorf("the log says so %d times: want once\n%s", n, w.log.String())
		}
		if got := written(t, w.client); len(got) > 0 {
			t.Errorf("without the Lease it wrote %q", got)
		}
	})
}

func TestOneReplicaWritesAndAnotherTakesOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTold(t, []runtime.Object{pod("q-0", "a", at("10.0.0.1"))}, qdrantPods())
		other := newStill(t, qdrantPods())
		other.put(pod("q-0", "elsewhere", at("10.0.0.2")))
		other.begin()
		second := newPublisher(t, w.client, other, []config.Target{qdrantPods()})

		ctx, stopSecond := context.WithCancel(w.ctx)
		defer synctest.Wait()
		defer stopSecond()
		ctx1, stopFirst := context.WithCancel(w.ctx)
		defer stopFirst()
		go w.Run(ctx1)
		synctest.Wait()
		go second.Run(ctx)
		for range 10 {
			time.Sleep(publishInterval)
			synctest.Wait()
			if got := written(t, w.client); !slices.Equal(got, []string{"qdrant ipv4 a=10.0.0.1@"}) {
				t.Fatalf("there is %q: want what the first one wrote", got)
			}
		}
		stopFirst()
		time.Sleep(leaseDuration)
		synctest.Wait()
		if got := written(t, w.client); !slices.Equal(got, []string{"qdrant ipv4 elsewhere=10.0.0.2@"}) {
			t.Errorf("after the first one ended there is %q: want what the second one wrote", got)
		}
	})
}
