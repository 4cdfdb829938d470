package cli

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"github.com/netlatency/netlatency/pkg/placement"
	"github.com/netlatency/netlatency/pkg/ui"
)

// watched is a page of someCluster with more objects in it, after change.
func watched(t *testing.T, change func(*fake.Clientset), objects ...runtime.Object) *ui.Server {
	t.Helper()
	c := someCluster()
	c.service, c.config = "netlatency-agent", &rest.Config{Host: "http://127.0.0.1:1"}
	client := c.client.(*fake.Clientset)
	for _, o := range objects {
		if err := client.Tracker().Add(o); err != nil {
			t.Fatal(err)
		}
	}
	if change != nil {
		change(client)
	}
	server, err := ui.NewServer(false)
	if err != nil {
		t.Fatal(err)
	}
	streams, _, _, _ := genericiooptions.NewTestIOStreams()
	w := &watcher{uiOptions: &uiOptions{options: &options{IOStreams: streams}, interval: minInterval}, cluster: c, server: server}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return server
}

// told is what the page gets of a path, once it is as wanted.
func told[T any](t *testing.T, server *ui.Server, path string, wanted func(T) bool) (answer T) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		recorder := httptest.NewRecorder()
		server.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, path, nil))
		var now T
		if recorder.Code == http.StatusOK {
			if err := json.Unmarshal(recorder.Body.Bytes(), &now); err != nil {
				t.Fatal(err)
			}
			if wanted(now) {
				return now
			}
		}
		if time.Now().After(end) {
			t.Fatalf("%s is %d %s", path, recorder.Code, recorder.Body)
		}
	}
}

type placed struct {
	Name, Node, Waits string
	Explanation       *placement.Record
	Events            []struct{ Reason, Note string }
}

type placements struct{ Placements []placed }

func TestThePageHasTargetsAndPlacements(t *testing.T) {
	pod := func(name, node string) *st.PodWrapper {
		return st.MakePod().Namespace("search").Name(name).UID(name).SchedulerName("netlatency-scheduler").Node(node)
	}
	explained := pod("explained", "h-1").Annotation("netlatency.io/placement", `{"node":"h-1","costMs":1.5,"rank":2,"of":4,"targets":[{"name":"qdrant","ms":1.5,"weight":3,"basis":"measured"}]}`).
		Phase(corev1.PodRunning).Condition(corev1.PodScheduled, corev1.ConditionTrue, "").Obj()
	waiting := pod("waiting", "").Condition(corev1.PodScheduled, corev1.ConditionFalse, "Unschedulable").Obj()
	waiting.Status.Conditions[0].Message = "0/4 nodes are available"
	broken := pod("broken", "g-1").Annotation("netlatency.io/placement", "{").Annotation("netlatency.io/near", "gpu").Obj()
	ended := pod("ended", "g-1").Phase(corev1.PodSucceeded).Obj()
	other := st.MakePod().Namespace("search").Name("other").UID("other").SchedulerName("default-scheduler").Node("g-1").Obj()
	event := &eventsv1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: "search", Name: "e"}, Reason: "NetLatencyFar", Note: "far away", Regarding: corev1.ObjectReference{UID: "explained"}}
	server := watched(t, func(client *fake.Clientset) {
		client.PrependReactor("list", "events", func(action clienttesting.Action) (bool, runtime.Object, error) {
			list := &eventsv1.EventList{}
			if strings.Contains(action.(clienttesting.ListAction).GetListRestrictions().Fields.String(), event.Reason) {
				list.Items = append(list.Items, *event)
			}
			return true, list, nil
		})
	}, explained, waiting, broken, ended, other)

	got := told(t, server, "/api/placements", func(p placements) bool { return len(p.Placements) == 4 }).Placements
	slices.SortFunc(got, func(a, b placed) int { return strings.Compare(a.Name, b.Name) })
	if p := got[0]; p.Name != "broken" || p.Explanation != nil {
		t.Errorf("an annotation that is none: %+v", p)
	}
	if p := got[2]; p.Node != "h-1" || p.Explanation == nil || *p.Explanation.CostMS != 1.5 || p.Explanation.Rank != 2 || len(p.Events) != 1 || p.Events[0].Note != "far away" {
		t.Errorf("the explained one: %+v", p)
	}
	if p := got[3]; p.Node != "" || p.Waits != "0/4 nodes are available" {
		t.Errorf("the waiting one: %+v", p)
	}

	type targets struct{ Profiles []ui.Profile }
	profiles := told(t, server, "/api/targets", func(x targets) bool { return len(x.Profiles) == 1 && len(x.Profiles[0].Targets) == 4 }).Profiles
	qdrant, gpu := profiles[0].Targets[0], profiles[0].Targets[1]
	want := []ui.TargetPlace{{Node: "g-1", Replicas: 2, Latency: new(0.0)}, {Node: "g-2", Replicas: 1}, {Node: "h-1", Replicas: 1, Users: 1}}
	if diff := cmp.Diff(want, qdrant.Nodes); diff != "" || qdrant.MaxRTT != "5ms" || qdrant.Weight != 3 {
		t.Errorf("qdrant is %+v; its nodes (-want +got):\n%s", qdrant, diff)
	}
	// One pod by the rules, one by its annotation.
	if diff := cmp.Diff([]ui.TargetPlace{{Node: "g-1", Users: 1}, {Node: "h-1", Users: 1}, {Node: "n-1", Replicas: 1, Latency: new(0.0)}}, gpu.Nodes); diff != "" {
		t.Errorf("the nodes of gpu (-want +got):\n%s", diff)
	}
	if head := profiles[0].Targets[2]; !head.PerPod {
		t.Errorf("head is %+v", head)
	}
}

type overview struct {
	Nodes    [][]any
	Problems []string
}

func TestThePageSaysWhatCannotBeRead(t *testing.T) {
	server := watched(t, func(client *fake.Clientset) {
		for _, what := range []string{"pods", "events", "configmaps"} {
			client.PrependReactor("list", what, func(clienttesting.Action) (bool, runtime.Object, error) {
				return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: what}, "", errors.New("no"))
			})
		}
	})
	got := told(t, server, "/api/overview", func(o overview) bool { return len(o.Nodes) == 4 && len(o.Problems) >= 4 })
	all := strings.Join(got.Problems, "\n")
	for _, want := range []string{"list and watch pods: ", "list events: ", "read the scheduler's configuration in namespace netlatency: ", "there is no ready agent"} {
		if !strings.Contains(all, want) {
			t.Errorf("the problems are %q: want %q among them", all, want)
		}
	}
}

func TestUIRefusesWhatCannotBe(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"--address", "here"}, `--address is "here": want an IP address`},
		{[]string{"--interval", "10ms"}, "--interval is 10ms: want at least 1s"},
		{[]string{"--matrix", "nothing.jsonl"}, "nothing.jsonl"},
		{[]string{"--port", "70000"}, "70000"},
	} {
		if _, notes, code := kubectl(t, append([]string{"ui"}, tt.args...)...); code == 0 || !strings.Contains(notes, tt.want) {
			t.Errorf("%v: exit code %d and %q, want %q", tt.args, code, notes, tt.want)
		}
	}
}
