package cli

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/kubernetes/fake"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"github.com/netlatency/netlatency/pkg/latency"
)

// metroConfiguration scores by latency alone.
const metroConfiguration = `
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
profiles:
- schedulerName: netlatency-scheduler
  plugins: {multiPoint: {enabled: [{name: NetLatency, weight: 10}]}}
  pluginConfig:
  - name: NetLatency
    args:
      targets:
      - {name: qdrant, weight: 3, pods: {labelSelector: {matchLabels: {app: qdrant}}}}
      - {name: gpu, nodes: {resource: nvidia.com/gpu}}
`

// metroFacts is a cluster with room for two pods on each node of gthost and
// hetzner, Qdrant at gthost and a GPU at neuralrack. Nodes of gthost are
// nearest to both.
func metroFacts(t *testing.T, more ...runtime.Object) *facts {
	t.Helper()
	room := map[corev1.ResourceName]string{"cpu": "2", "memory": "8Gi", "pods": "10"}
	var objects []runtime.Object
	for _, n := range []struct{ name, provider string }{{"g-1", "gthost"}, {"g-2", "gthost"}, {"h-1", "hetzner"}, {"h-2", "hetzner"}} {
		objects = append(objects, st.MakeNode().Name(n.name).Label("netlatency.io/provider", n.provider).Capacity(room).Obj())
	}
	objects = append(objects,
		st.MakeNode().Name("n-1").Label("netlatency.io/provider", "neuralrack").Capacity(map[corev1.ResourceName]string{"cpu": "2", "pods": "10", "nvidia.com/gpu": "8"}).
			Taints([]corev1.Taint{{Key: "gpu", Effect: corev1.TaintEffectNoSchedule}}).Obj(),
		st.MakePod().Namespace("search").Name("q-0").UID("q-0").Label("app", "qdrant").Node("g-1").
			Phase(corev1.PodRunning).Condition(corev1.PodReady, corev1.ConditionTrue, "").Obj(),
	)
	client := fake.NewClientset(append(objects, more...)...)
	f := &facts{cluster: &cluster{client: client}}
	var err error
	if f.profiles, err = decodeProfiles([]byte(metroConfiguration)); err != nil {
		t.Fatal(err)
	}
	if f.nodes, err = f.cluster.nodes(t.Context()); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	measured := make(map[latency.Pair]latency.Distribution)
	for _, m := range []struct {
		node, peer string
		rtt        time.Duration
	}{
		{"g-2", "g-1", 200 * time.Microsecond}, {"h-1", "g-1", 2 * time.Millisecond}, {"h-2", "g-1", 2 * time.Millisecond}, {"n-1", "g-1", 4 * time.Millisecond},
		{"g-1", "n-1", 4 * time.Millisecond}, {"g-2", "n-1", 4 * time.Millisecond}, {"h-1", "n-1", 5 * time.Millisecond}, {"h-2", "n-1", 6 * time.Millisecond},
	} {
		measured[latency.Pair{Node: m.node, Peer: m.peer}] = latency.Distribution{Mean: m.rtt, P50: m.rtt, P90: m.rtt, P99: m.rtt, Min: m.rtt, Samples: 1000, Sent: 1000, Newest: now}
	}
	f.matrix = latency.NewMatrix(now, measured)
	return f
}

func worker(name, node string) *corev1.Pod {
	return st.MakePod().Namespace("search").Name(name).UID(name).Label("ray.io/node-type", "worker").SchedulerName("netlatency-scheduler").
		Node(node).Req(map[corev1.ResourceName]string{"cpu": "1"}).Obj()
}

func testOptions() (*options, *genericiooptions.IOStreams, func() string) {
	streams, _, out, _ := genericiooptions.NewTestIOStreams()
	return &options{IOStreams: streams, timeout: 30 * time.Second, config: genericclioptions.NewConfigFlags(true)}, &streams, out.String
}

func explained(t *testing.T, f *facts, pod string, change func(*explainOptions)) string {
	t.Helper()
	shared, _, out := testOptions()
	o := &explainOptions{sceneOptions: sceneOptions{options: shared}, output: outputTable}
	if change != nil {
		change(o)
	}
	if err := o.show(t.Context(), f, "search", pod); err != nil {
		t.Fatal(err)
	}
	return out()
}

func TestExplainShowsWhatANodeCostsAndWhoRefusesIt(t *testing.T) {
	// g-1 is full: the pod is on h-1, and g-2 has room by now.
	f := metroFacts(t, worker("w-0", "g-1"), worker("w-1", "g-1"), worker("w-2", "h-1"))
	want := strings.TrimPrefix(`
           NODE   PROVIDER     COST [ms]   QDRANT    GPU   LATENCY'S SCORE   TOTAL   REFUSED BY
now best   g-2    gthost            1.26     0.22   4.40              1000    1435
is on      h-1    hetzner           3.02     2.20   5.50               880    1315
           h-2    hetzner           3.30     2.20   6.60               870    1305
           g-1    gthost            1.10        0   4.40                 -       -   NodeResourcesFit: Insufficient cpu
           n-1    neuralrack        3.30     4.40      0                 -       -   TaintToleration: node(s) had untolerated taint(s)

Pod w-2 is on h-1, 3.02 ms from its targets. netlatency-scheduler would put it on g-2 now, 1.26 ms from its targets.
Nearest of all is g-1, 1.10 ms from its targets; NodeResourcesFit keeps the pod from it: Insufficient cpu.
`, "\n")
	if diff := cmp.Diff(want, explained(t, f, "w-2", nil)); diff != "" {
		t.Errorf("printed (-want +got):\n%s", diff)
	}
}

func TestExplainForPrograms(t *testing.T) {
	pod := worker("w-0", "g-1")
	pod.Annotations = map[string]string{"netlatency.io/placement": `{"node":"g-1","costMs":1.1}`}
	text := explained(t, metroFacts(t, pod), "w-0", func(o *explainOptions) { o.output = outputJSON })
	var e explanation
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&e); err != nil {
		t.Fatal(err)
	}
	var compact strings.Builder
	if err := json.NewEncoder(&compact).Encode(e.Recorded); err != nil {
		t.Fatal(err)
	}
	if e.Node != "g-1" || e.Choice != "g-1" || e.Nearest != "g-1" || e.Profile != "netlatency-scheduler" || !e.WantsTarget || !strings.Contains(compact.String(), `"costMs":1.1`) {
		t.Errorf("got %+v", e)
	}
	if len(e.Nodes) != 5 || e.Nodes[0].Targets[1].Basis != "measured" || e.Nodes[0].Scores["NetLatency"] != 1000 || e.Nodes[4].RefusedBy != "TaintToleration" {
		t.Errorf("nodes: %+v", e.Nodes)
	}
}

func TestExplainSays(t *testing.T) {
	elsewhere := worker("other", "h-1")
	elsewhere.Spec.SchedulerName = corev1.DefaultSchedulerName
	wrong := worker("wrong", "g-1")
	wrong.Annotations = map[string]string{"netlatency.io/near": "qdrant maxRTT=fast"}
	huge := worker("huge", "")
	huge.Spec.Containers[0].Resources.Requests[corev1.ResourceCPU] = *st.MakePod().Req(map[corev1.ResourceName]string{"cpu": "50"}).Obj().Spec.Containers[0].Resources.Requests.Cpu()
	for _, c := range []struct {
		name   string
		pod    *corev1.Pod
		change func(*explainOptions)
		want   []string
	}{
		{"where a waiting pod would go", worker("w-0", ""), nil, []string{"Pod w-0 would go to g-1, 1.10 ms from its targets.", "best   g-1"}},
		{"where a pod of another scheduler would go", elsewhere, func(o *explainOptions) { o.profile = "netlatency-scheduler" }, []string{"netlatency-scheduler would put it on g-1 now"}},
		{"that an annotation is wrong", wrong, nil, []string{"Its annotation is wrong, and the profile's rules count instead: ", "maxRTT"}},
		{"why a pod waits", huge, nil, []string{"Pod huge waits: no node takes it. 4 Insufficient cpu, 1 node(s) had untolerated taint(s)."}},
		{"what if a link were slow", worker("w-0", "g-1"), func(o *explainOptions) { o.changes = []string{"gthost:neuralrack=40ms"} },
			[]string{"netlatency-scheduler would put it on h-1 now, 3.02 ms from its targets."}},
		{"the score of each plugin", worker("w-0", ""), func(o *explainOptions) { o.output = outputWide }, []string{"NodeResourcesFit   TaintToleration"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := explained(t, metroFacts(t, c.pod), c.pod.Name, c.change)
			for _, want := range c.want {
				if !strings.Contains(got, want) {
					t.Errorf("printed:\n%s\nwant in it: %s", got, want)
				}
			}
		})
	}
}

func TestExplainRefuses(t *testing.T) {
	other := worker("other", "h-1")
	other.Spec.SchedulerName = corev1.DefaultSchedulerName
	for _, c := range []struct {
		pod    string
		change func(*explainOptions)
		want   string
	}{
		{"nothing", func(*explainOptions) {}, `read the pod: pods "nothing" not found`},
		{"other", func(*explainOptions) {}, "pod other has schedulerName default-scheduler, which is not netlatency's: write schedulerName: netlatency-scheduler, or see what that would do with --profile netlatency-scheduler"},
		{"w-0", func(o *explainOptions) { o.profile = "x" }, `the scheduler has no profile "x" with NetLatency: it has netlatency-scheduler`},
		{"w-0", func(o *explainOptions) { o.changes = []string{"gthost:mars=1s"} }, `--set "gthost:mars=1s": there is no provider and no node "mars"; there are g-1, g-2, gthost, h-1, h-2, hetzner, n-1, neuralrack`},
		{"w-0", func(o *explainOptions) { o.changes = []string{"gthost=1s"} }, "there are no two places before the ="},
		{"w-0", func(o *explainOptions) { o.changes = []string{"g-1:g-2"} }, "there is no ="},
		{"w-0", func(o *explainOptions) { o.changes = []string{"g-1:g-2=12"} }, `"12" is no duration`},
		{"w-0", func(o *explainOptions) { o.changes = []string{"g-1:g-2=-1ms"} }, "-1ms is not above 0"},
	} {
		shared, _, _ := testOptions()
		o := &explainOptions{sceneOptions: sceneOptions{options: shared}, output: outputTable}
		c.change(o)
		if err := o.show(t.Context(), metroFacts(t, other, worker("w-0", "g-1")), "search", c.pod); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got error %v, want one with %s", c.pod, err, c.want)
		}
	}
}
