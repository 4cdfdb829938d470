package source_test

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/netlatency/netlatency/pkg/exposition"
	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/source"
)

const ms = time.Millisecond

func TestTheFirstMatrixComesWithoutWaitingForAnInterval(t *testing.T) {
	a := newFakeAgent(t, "node-a").measures("node-b", 1*ms, 4*time.Second).measures("node-c", 8*ms, 6*time.Second)
	b := newFakeAgent(t, "node-b").measures("node-a", 2*ms, 5*time.Second)
	r := read(t, clusterOf(a.slice(), b.slice()))

	m := r.matrix() // no step of the clock
	want := map[string]time.Duration{"node-a>node-b": 1 * ms, "node-a>node-c": 8 * ms, "node-b>node-a": 2 * ms}
	if diff := cmp.Diff(want, rtts(m)); diff != "" {
		t.Errorf("matrix (-want +got):\n%s", diff)
	}
	d, _ := m.Measured("node-a", "node-c")
	if age := r.clock.Now().Sub(d.Newest); age < 6*time.Second || age > 6*time.Second+2*ms {
		t.Errorf("the row is of age %v on our clock, want 6s as on the agent's", age)
	}
	if !m.Taken().Equal(r.clock.Now()) {
		t.Errorf("taken at %v, want %v", m.Taken(), r.clock.Now())
	}
	wantStats := source.Stats{
		Synced: true, Agents: 2, Answered: 2, LastSuccess: r.clock.Now(), Version: 1, Pairs: 3,
		Failures: map[source.Failure]uint64{}, Dropped: map[exposition.Reason]uint64{},
	}
	if diff := cmp.Diff(wantStats, r.source.Stats()); diff != "" {
		t.Errorf("stats (-want +got):\n%s", diff)
	}
}

func TestEachRoundBringsANewMatrixWithHysteresis(t *testing.T) {
	a := newFakeAgent(t, "node-a").measures("node-b", 10*ms, 0).measures("node-c", 10*ms, 0)
	r := read(t, clusterOf(a.slice()), func(o *source.AgentsOptions) {
		o.Hysteresis = latency.Hysteresis{Ratio: 0.15, Floor: 100 * time.Microsecond, Statistic: latency.DefaultStatistic()}
	})
	first := r.matrix()
	a.measures("node-b", 11*ms, 0).measures("node-c", 20*ms, 0)
	second := r.round()

	if diff := cmp.Diff(map[string]time.Duration{"node-a>node-b": 10 * ms, "node-a>node-c": 20 * ms}, rtts(second)); diff != "" {
		t.Errorf("after a small and a great change (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]time.Duration{"node-a>node-b": 10 * ms, "node-a>node-c": 10 * ms}, rtts(first)); diff != "" {
		t.Errorf("a published matrix changed (-want +got):\n%s", diff)
	}
	if first.Version() != 1 || second.Version() != 2 {
		t.Errorf("versions are %d and %d, want 1 and 2", first.Version(), second.Version())
	}
	held, _ := second.Measured("node-a", "node-b")
	if age := r.clock.Now().Sub(held.Newest); age > time.Second {
		t.Errorf("the held row is of age %v although the agent measured it anew", age)
	}
}

func TestAgentsAreFollowedThroughTheirEndpointSlices(t *testing.T) {
	a := newFakeAgent(t, "node-a").measures("node-b", 1*ms, 0)
	b := newFakeAgent(t, "node-b").measures("node-a", 2*ms, 0)
	moved := newFakeAgent(t, "node-a").measures("node-b", 7*ms, 0)
	r := read(t, clusterOf(a.slice()))
	slices := r.client.DiscoveryV1().EndpointSlices(namespace)
	ctx := context.Background()
	r.matrix()

	if _, err := slices.Create(ctx, b.slice(), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	r.roundsUntil("the new agent is read", func(m *latency.Matrix) bool { return rtts(m)["node-b>node-a"] == 2*ms })

	if _, err := slices.Update(ctx, moved.slice(), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	r.roundsUntil("the moved agent is read", func(m *latency.Matrix) bool { return rtts(m)["node-a>node-b"] == 7*ms })

	if err := slices.Delete(ctx, b.slice().Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	m := r.roundsUntil("the removed agent is unknown", func(*latency.Matrix) bool { return r.source.Stats().Agents == 1 })
	if _, ok := m.Measured("node-b", "node-a"); !ok {
		t.Error("the rows of the removed agent went at once: a rollout removes each agent for a moment")
	}
	r.clock.Step(staleAfter)
	if diff := cmp.Diff(map[string]time.Duration{"node-a>node-b": 7 * ms}, rtts(r.matrix())); diff != "" {
		t.Errorf("after the removed agent's rows grew stale (-want +got):\n%s", diff)
	}
}

func TestOnlyReadyEndpointsOfTheServiceWithANodeAreRead(t *testing.T) {
	edit := func(f func(*discoveryv1.EndpointSlice)) func(*discoveryv1.EndpointSlice) { return f }
	for name, test := range map[string]struct {
		edit func(*discoveryv1.EndpointSlice)
		read bool
	}{
		"ready":              {edit(func(*discoveryv1.EndpointSlice) {}), true},
		"readiness not said": {edit(func(s *discoveryv1.EndpointSlice) { s.Endpoints[0].Conditions.Ready = nil }), true},
		"not ready":          {edit(func(s *discoveryv1.EndpointSlice) { s.Endpoints[0].Conditions.Ready = new(false) }), false},
		"no node":            {edit(func(s *discoveryv1.EndpointSlice) { s.Endpoints[0].NodeName = nil }), false},
		"another Service":    {edit(func(s *discoveryv1.EndpointSlice) { s.Labels[discoveryv1.LabelServiceName] = "another" }), false},
		"where a target is":  {edit(func(s *discoveryv1.EndpointSlice) { s.Labels[discoveryv1.LabelServiceName] = "netlatency-targets" }), false},
		"another namespace":  {edit(func(s *discoveryv1.EndpointSlice) { s.Namespace = "another" }), false},
	} {
		t.Run(name, func(t *testing.T) {
			a := newFakeAgent(t, "node-a").measures("node-b", 1*ms, 0)
			r := read(t, clusterOf(a.slice(test.edit)))
			pairs, requests := r.matrix().Pairs(), len(a.received())
			want := 0
			if test.read {
				want = 1
			}
			if pairs != want || requests != want || r.source.Stats().Agents != want {
				t.Errorf("%d pairs from %d requests to %d agents, want %d of each", pairs, requests, r.source.Stats().Agents, want)
			}
		})
	}
}

func TestAnEndpointInTwoSlicesIsReadOnce(t *testing.T) {
	a := newFakeAgent(t, "node-a")
	// At fault: of an agent that answers no second address is tried anyway.
	a.answers(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "fault", http.StatusInternalServerError) })
	r := read(t, clusterOf(a.slice(), a.slice(func(s *discoveryv1.EndpointSlice) { s.Name += "-second" })))
	r.matrix()
	if n := len(a.received()); n != 1 || r.source.Stats().Agents != 1 {
		t.Errorf("%d requests to %d agents, want one to one", n, r.source.Stats().Agents)
	}
}

func TestAnAgentWithTwoAddressesIsReadAtOneThatAnswers(t *testing.T) {
	a := newFakeAgentOn(t, "node-a", "127.0.0.2:0").measures("node-b", 1*ms, 0)
	refusing := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), a.addrPort().Port())
	r := read(t, clusterOf(a.slice(), sliceOf("node-a", refusing, func(s *discoveryv1.EndpointSlice) { s.Name += "-second" })))
	if diff := cmp.Diff(map[string]time.Duration{"node-a>node-b": 1 * ms}, rtts(r.matrix())); diff != "" {
		t.Errorf("matrix (-want +got):\n%s", diff)
	}
	if stats := r.source.Stats(); stats.Answered != 1 || len(stats.Failures) != 0 {
		t.Errorf("answered %d, failures %v: want one answer and no failure", stats.Answered, stats.Failures)
	}
}

// A dual-stack agent is in a slice of each family.
func TestAnAgentOfBothFamiliesIsReadOnce(t *testing.T) {
	newIPv6Listener(t).Close()
	ipv4 := newFakeAgentOn(t, "node-a", "127.0.0.1:0").measures("node-b", 1*ms, 0)
	ipv6 := newFakeAgentOn(t, "node-a", "[::1]:0").measures("node-b", 1*ms, 0)
	r := read(t, clusterOf(ipv4.slice(), ipv6.slice(func(s *discoveryv1.EndpointSlice) {
		s.Name, s.AddressType = s.Name+"-ipv6", discoveryv1.AddressTypeIPv6
	})))
	if diff := cmp.Diff(map[string]time.Duration{"node-a>node-b": 1 * ms}, rtts(r.matrix())); diff != "" {
		t.Errorf("matrix (-want +got):\n%s", diff)
	}
	if n := len(ipv4.received()) + len(ipv6.received()); n != 1 || r.source.Stats().Agents != 1 {
		t.Errorf("%d requests to %d agents, want one to one", n, r.source.Stats().Agents)
	}
}

func TestAnAgentOnIPv6(t *testing.T) {
	probe := newIPv6Listener(t)
	probe.Close()
	a := newFakeAgentOn(t, "node-a", "[::1]:0").measures("node-b", 1*ms, 0)
	r := read(t, clusterOf(a.slice(func(s *discoveryv1.EndpointSlice) { s.AddressType = discoveryv1.AddressTypeIPv6 })))
	if diff := cmp.Diff(map[string]time.Duration{"node-a>node-b": 1 * ms}, rtts(r.matrix())); diff != "" {
		t.Errorf("matrix (-want +got):\n%s", diff)
	}
}

func forbidden(clienttesting.Action) (bool, runtime.Object, error) {
	return true, nil, apierrors.NewForbidden(schema.GroupResource{Group: "discovery.k8s.io", Resource: "endpointslices"}, "", errors.New("RBAC"))
}

func TestAnAPIServerThatRefusesBlocksNothing(t *testing.T) {
	a := newFakeAgent(t, "node-a").measures("node-b", 1*ms, 0)
	client := clusterOf(a.slice())
	var refuses atomic.Bool
	refuses.Store(true)
	client.PrependReactor("list", "endpointslices", func(action clienttesting.Action) (bool, runtime.Object, error) {
		if refuses.Load() {
			return forbidden(action)
		}
		return false, nil, nil
	})
	r := read(t, client)
	eventually(t, "the failure shows in the stats", func() bool { return r.source.Stats().DiscoveryErrors > 0 })
	if m := r.round(); m.Pairs() != 0 || r.source.Stats().Synced {
		t.Errorf("%d pairs, synced %t: want nothing but a matrix", m.Pairs(), r.source.Stats().Synced)
	}

	refuses.Store(false)
	// The first list that succeeds starts a round by itself.
	if diff := cmp.Diff(map[string]time.Duration{"node-a>node-b": 1 * ms}, rtts(r.matrix())); diff != "" {
		t.Errorf("after the permission came (-want +got):\n%s", diff)
	}
	if !r.source.Stats().Synced {
		t.Error("not synced")
	}
}

func TestKnownAgentsStayWhenTheAPIServerGoes(t *testing.T) {
	a := newFakeAgent(t, "node-a").measures("node-b", 1*ms, 0)
	client := clusterOf(a.slice())
	var gone atomic.Bool
	refuse := func(action clienttesting.Action) (bool, runtime.Object, error) {
		if gone.Load() {
			return forbidden(action)
		}
		return false, nil, nil
	}
	client.PrependReactor("list", "endpointslices", refuse)
	watcher := watch.NewFakeWithChanSize(1, false)
	var watching atomic.Bool
	client.PrependWatchReactor("endpointslices", func(action clienttesting.Action) (bool, watch.Interface, error) {
		if _, _, err := refuse(action); err != nil {
			return true, nil, err
		}
		watching.Store(true)
		return true, watcher, nil
	})
	r := read(t, client)
	r.matrix()

	eventually(t, "the slices are watched", watching.Load)
	gone.Store(true)
	watcher.Error(&apierrors.NewResourceExpired("the API server was started anew").ErrStatus)
	eventually(t, "the failure shows in the stats", func() bool { return r.source.Stats().DiscoveryErrors > 0 })
	a.measures("node-b", 3*ms, 0)
	if diff := cmp.Diff(map[string]time.Duration{"node-a>node-b": 3 * ms}, rtts(r.round())); diff != "" {
		t.Errorf("matrix (-want +got):\n%s", diff)
	}
}

func TestOptionsThatCannotWorkAreAllNamed(t *testing.T) {
	_, err := source.NewAgents(source.AgentsOptions{Client: fake.NewClientset(), Window: -1})
	if err == nil {
		t.Fatal("no error")
	}
	for _, name := range []string{"Namespace", "Service", "Port", "Publish", "Interval", "Timeout", "StaleAfter", "Window"} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("the error does not name %s: %v", name, err)
		}
	}
	if strings.Contains(err.Error(), "Client") {
		t.Errorf("the error names Client, which is set: %v", err)
	}
}
