package netlatency

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/netlatency/netlatency/pkg/target"
)

// nearing is a pod with an annotation.
func nearing(text string) *corev1.Pod {
	pod := worker()
	pod.Annotations = map[string]string{nearAnnotation: text}
	return pod
}

// followed is the targets that the plugin keeps current beyond those of rules.
func (c *cluster) followed() int {
	targets, _ := c.plugin.targets.Census()
	return targets - len(c.plugin.args.Targets)
}

func TestWhatAnnotationsKeepIsBounded(t *testing.T) {
	for _, targets := range []int{1, maxNearTargets} {
		t.Run(fmt.Sprintf("%d targets each", targets), func(t *testing.T) {
			c := newCluster(t, setting{args: newArgs(qdrantTarget())})
			first, last := &demand{}, &demand{}
			for i := range maxFollowed/targets + 100 {
				parts := make([]string, 0, targets)
				for j := range targets {
					parts = append(parts, fmt.Sprintf("pods(app=redis) namespace=team-%d-%d", i, j))
				}
				d, fault := c.plugin.demandFor(nearing(strings.Join(parts, ";")))
				if fault != nil {
					t.Fatal(fault)
				}
				if last = d; i == 0 {
					first = d
				}
			}
			eventually(t, "the targets of demands beyond the bound are let go", func() bool { return c.followed() == maxFollowed })
			if got, want := len(c.plugin.demands.byKey), maxFollowed/targets; got != want {
				t.Errorf("%d demands are kept, want %d", got, want)
			}
			for text, was := range map[string]*demand{"0": first, strconv.Itoa(maxFollowed/targets + 99): last} {
				kept := false
				for _, e := range c.plugin.demands.byKey {
					kept = kept || e.Value.(*keptDemand).demand == was
				}
				if want := text != "0"; kept != want {
					t.Errorf("demand %s is kept: %t, want %t", text, kept, want)
				}
			}
		})
	}
}

func TestADemandThatNobodyAsksForIsLetGo(t *testing.T) {
	c := newCluster(t, setting{args: newArgs(qdrantTarget()), objects: []runtime.Object{node("a"), node("b"), gpuNode("g"), qdrant("q-0", "a")}})
	c.measure(rtts{{"a", "g"}: 1 * ms, {"b", "g"}: 2 * ms})
	if !c.plugin.Settle(c.ctx) {
		t.Fatal("the plugin does not settle")
	}
	used, idle := nearing("nodes(kubernetes.io/os)"), nearing("resource(nvidia.com/gpu)")
	wanted, fault := c.plugin.demandFor(idle)
	if fault != nil {
		t.Fatal(fault)
	}
	before := wanted.wants[0].runs.Set()
	if len(before.Replicas) != 1 {
		t.Fatalf("the target runs on %v", before.Replicas)
	}
	const steps = 9
	for i := range 2 * steps {
		c.clock.Step(idleDemand / steps)
		if _, fault := c.plugin.demandFor(used); fault != nil {
			t.Fatal(fault)
		}
		if i == steps-2 && c.followed() != 2 {
			t.Fatalf("%d targets are followed before their time is over, want 2", c.followed())
		}
	}
	eventually(t, "the target that nobody asked for is let go", func() bool { return c.followed() == 1 })
	if got := len(c.plugin.targets.Nodes()); got != 1 {
		t.Errorf("targets run on %d nodes, want on that of the rule's", got)
	}
	if wanted.wants[0].runs.Set() != before {
		t.Error("who still has the demand reads another set")
	}
	again, _ := c.plugin.demandFor(idle)
	if again == wanted || len(again.wants[0].runs.Set().Replicas) != 1 {
		t.Error("who asks again does not get the target where it is now")
	}
}

func TestTheDemandOfAWaitingPodIsKept(t *testing.T) {
	pod := nearing("pods(app=qdrant) namespace=search maxRTT=1ms")
	pod.Spec.SchedulerName = "another" // so that nothing but its waiting asks
	c := newCluster(t, setting{args: newArgs(), objects: []runtime.Object{node("a"), qdrant("q-0", "store"), pod}})
	c.measure(rtts{{"a", "store"}: 2 * ms})
	if len(c.filter(pod)) != 1 {
		t.Fatal("the pod does not wait")
	}
	asked, _ := c.plugin.demandFor(pod)
	if _, fault := c.plugin.demandFor(nearing("resource(nvidia.com/gpu)")); fault != nil { // which nobody waits for
		t.Fatal(fault)
	}
	for range 30 {
		c.clock.Step(time.Minute)
		c.measure(rtts{{"a", "store"}: 2 * ms})
		c.plugin.activate(c.ctx)
		c.plugin.demands.release()
	}
	if now, _ := c.plugin.demandFor(pod); now != asked || c.followed() != 1 {
		t.Errorf("the demand was let go, and %d targets are followed", c.followed())
	}
}

func demandsAlone(t *testing.T) (*demands, *target.Index) {
	t.Helper()
	client := fake.NewClientset()
	clock := clocktesting.NewFakeClock(time.Now())
	index, err := target.NewIndex(nil, informers.NewSharedInformerFactory(client, 0), client, clock)
	if err != nil {
		t.Fatal(err)
	}
	return newDemands(newArgs(), index, clock), index
}

func of(t *testing.T, ds *demands, text string) *demand {
	t.Helper()
	n := ds.parse(text)
	if n.fault != nil {
		t.Fatal(n.fault)
	}
	d, err := ds.of(text, n.targets, n.shared, worker())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// SignPod asks under the lock of the scheduling queue.
func TestWhoAsksForADemandLetsGoOfNoOther(t *testing.T) {
	ds, index := demandsAlone(t)
	const more = 7
	for i := range maxFollowed + more {
		of(t, ds, "pods(app=redis) namespace=team-"+strconv.Itoa(i))
	}
	if got, _ := index.Census(); got != maxFollowed+more {
		t.Errorf("%d targets are followed, want %d until the goroutine that releases has come", got, maxFollowed+more)
	}
	ds.release()
	if got, _ := index.Census(); got != maxFollowed {
		t.Errorf("%d targets are followed, want %d", got, maxFollowed)
	}
}

func TestManyWhoAskAtOnceGetOneDemand(t *testing.T) {
	ds, index := demandsAlone(t)
	got := make([]*demand, 16)
	for i := range 200 {
		var asking sync.WaitGroup
		for j := range got {
			asking.Go(func() { got[j] = of(t, ds, "pods(app=redis) namespace=team-"+strconv.Itoa(i)) })
		}
		asking.Wait()
		for _, d := range got {
			if d != got[0] {
				t.Fatal("two demands for the same")
			}
		}
	}
	ds.release()
	if kept, _ := index.Census(); kept != 200 || ds.followed != 200 {
		t.Errorf("%d targets are followed, and %d are counted, want 200", kept, ds.followed)
	}
	ds.clock.(*clocktesting.FakeClock).Step(idleDemand)
	if left := ds.release(); left {
		t.Error("a demand is left")
	}
	if kept, _ := index.Census(); kept != 0 || ds.followed != 0 {
		t.Errorf("%d targets are followed, and %d are counted, want none: each that was made twice must be let go twice", kept, ds.followed)
	}
}

// The text of an annotation must not pass for the labels of a pod.
func TestATextWithLinesIsNotTakenForAnother(t *testing.T) {
	ds, _ := demandsAlone(t)
	sharing, plain := "pods(app=redis) same=weight", "pods(app=redis) same=weight\nweight=1"
	n, m := ds.parse(sharing), ds.parse(plain)
	labelled, bare := worker(), worker()
	labelled.Labels["weight"] = "1"
	bare.UID = types.UID("bare")
	a, err := ds.of(sharing, n.targets, n.shared, labelled)
	if err != nil {
		t.Fatal(err)
	}
	b, err := ds.of(plain, m.targets, m.shared, bare)
	if err != nil {
		t.Fatal(err)
	}
	if a == b {
		t.Error("both have the same demand")
	}
}
