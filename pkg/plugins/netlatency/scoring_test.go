package netlatency

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	st "k8s.io/kubernetes/pkg/scheduler/testing"
	tf "k8s.io/kubernetes/pkg/scheduler/testing/framework"

	"github.com/netlatency/netlatency/apis/config"
	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/placement"
)

func TestScores(t *testing.T) {
	nearest := qdrantTarget()
	nearest.Aggregation = config.AggregationNearest
	heavy := qdrantTarget()
	heavy.Weight = 3
	tests := []struct {
		name     string
		targets  []config.Target
		objects  []runtime.Object
		measured rtts
		feasible []string
		want     map[string]int64
	}{
		{
			name:    "the near provider first, then the next, then the far one",
			targets: []config.Target{qdrantTarget()},
			objects: []runtime.Object{node("near-1"), node("near-2"), node("middle"), node("far"), qdrant("q-0", "store")},
			measured: rtts{
				{"near-1", "store"}: 500 * time.Microsecond, {"near-2", "store"}: 550 * time.Microsecond,
				{"middle", "store"}: 2500 * time.Microsecond, {"far", "store"}: 8 * ms,
			},
			// The band is 0.1 ms: both near nodes are equally near.
			want: map[string]int64{"near-1": 100, "near-2": 100, "middle": 79, "far": 62},
		},
		{
			name:    "when the near nodes are full, the next tier is the best there is",
			targets: []config.Target{qdrantTarget()},
			objects: []runtime.Object{node("near"), node("middle"), node("far"), qdrant("q-0", "store")},
			measured: rtts{
				{"near", "store"}: 500 * time.Microsecond, {"middle", "store"}: 2500 * time.Microsecond, {"far", "store"}: 8 * ms,
			},
			feasible: []string{"middle", "far"},
			want:     map[string]int64{"middle": 100, "far": 84},
		},
		{
			name:     "a node of which nothing is known comes after the farthest",
			targets:  []config.Target{qdrantTarget()},
			objects:  []runtime.Object{node("near"), node("far"), node("new"), qdrant("q-0", "store")},
			measured: rtts{{"near", "store"}: 100 * time.Microsecond, {"far", "store"}: 900 * ms},
			want:     map[string]int64{"near": 100, "far": 1, "new": 0},
		},
		{
			name:     "measured in the other direction alone",
			targets:  []config.Target{qdrantTarget()},
			objects:  []runtime.Object{node("near"), node("far"), qdrant("q-0", "store")},
			measured: rtts{{"store", "near"}: 1 * ms, {"far", "store"}: 2 * ms},
			want:     map[string]int64{"near": 100, "far": 91},
		},
		{
			name:    "not measured, but others of its group are",
			targets: []config.Target{qdrantTarget()},
			objects: []runtime.Object{
				zoned("a-1", "hetzner", "a"), zoned("a-2", "hetzner", "a"), zoned("b-1", "hetzner", "b"),
				zoned("store", "gthost", "a"), qdrant("q-0", "store"),
			},
			measured: rtts{{"a-1", "store"}: 1 * ms, {"b-1", "store"}: 2 * ms},
			feasible: []string{"a-1", "a-2", "b-1"},
			want:     map[string]int64{"a-1": 100, "a-2": 100, "b-1": 91},
		},
		{
			name:     "on the target's own node there is no distance",
			targets:  []config.Target{qdrantTarget()},
			objects:  []runtime.Object{node("store"), node("next"), qdrant("q-0", "store")},
			measured: rtts{{"next", "store"}: 200 * time.Microsecond},
			want:     map[string]int64{"store": 100, "next": 90},
		},
		{
			name:    "two targets by weight, pods and nodes",
			targets: []config.Target{heavy, gpuTarget()},
			objects: []runtime.Object{node("a"), node("b"), gpuNode("gpu"), qdrant("q-0", "store")},
			measured: rtts{
				{"a", "store"}: 1 * ms, {"a", "gpu"}: 5 * ms, // (3·1 + 5) / 4 = 2
				{"b", "store"}: 5 * ms, {"b", "gpu"}: 1 * ms, // (3·5 + 1) / 4 = 4
			},
			feasible: []string{"a", "b"},
			want:     map[string]int64{"a": 100, "b": 91},
		},
		{
			name:    "the nearest of the replicas",
			targets: []config.Target{nearest},
			objects: []runtime.Object{node("a"), node("b"), qdrant("q-0", "store-1"), qdrant("q-1", "store-2")},
			measured: rtts{
				{"a", "store-1"}: 1 * ms, {"a", "store-2"}: 9 * ms,
				{"b", "store-1"}: 4 * ms, {"b", "store-2"}: 4 * ms,
			},
			want: map[string]int64{"a": 100, "b": 81},
		},
		{
			name:    "a Service that leads to the replicas in the zone, though others be nearer",
			targets: []config.Target{{Name: "qdrant", Weight: 1, Aggregation: config.AggregationMean, Service: &config.ServiceTarget{Namespace: "search", Name: "qdrant"}}},
			objects: []runtime.Object{
				zoned("a-1", "hetzner", "a"), zoned("store-a", "hetzner", "a"), zoned("b-1", "hetzner", "b"), zoned("store-b", "hetzner", "b"),
				qdrant("q-0", "store-a"), qdrant("q-1", "store-b"),
				&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "search", Name: "qdrant"}, Spec: corev1.ServiceSpec{
					Selector: map[string]string{"app": "qdrant"}, TrafficDistribution: new(corev1.ServiceTrafficDistributionPreferSameZone),
				}},
			},
			measured: rtts{
				{"a-1", "store-a"}: 4 * ms, {"a-1", "store-b"}: 1 * ms,
				{"b-1", "store-a"}: 9 * ms, {"b-1", "store-b"}: 2 * ms,
			},
			feasible: []string{"a-1", "b-1"},
			want:     map[string]int64{"a-1": 91, "b-1": 100},
		},
		{
			name:     "a target that runs nowhere does not take the others along",
			targets:  []config.Target{qdrantTarget(), gpuTarget()},
			objects:  []runtime.Object{node("a"), node("b"), qdrant("q-0", "store")},
			measured: rtts{{"a", "store"}: 1 * ms, {"b", "store"}: 2 * ms},
			want:     map[string]int64{"a": 100, "b": 91},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newCluster(t, setting{args: newArgs(tt.targets...), objects: tt.objects})
			c.measure(tt.measured)
			if diff := cmp.Diff(tt.want, c.score(worker(), tt.feasible...)); diff != "" {
				t.Errorf("scores (-want +got):\n%s", diff)
			}
		})
	}
}

func TestATargetsQuantileReplacesTheProfilesStatistic(t *testing.T) {
	target := qdrantTarget()
	target.Quantile = new(0.9)
	c := newCluster(t, setting{args: newArgs(target), objects: []runtime.Object{node("steady"), node("erratic"), qdrant("q-0", "store")}})
	now := c.clock.Now()
	c.publish(latency.NewMatrix(now, map[latency.Pair]latency.Distribution{
		{Node: "steady", Peer: "store"}:  {Mean: 4 * ms, P50: 4 * ms, P90: 5 * ms, P99: 5 * ms, Min: 3 * ms, Samples: 1000, Newest: now},
		{Node: "erratic", Peer: "store"}: {Mean: 3 * ms, P50: 1 * ms, P90: 11 * ms, P99: 40 * ms, Min: 1 * ms, Samples: 1000, Newest: now},
	}))
	if diff := cmp.Diff(map[string]int64{"steady": 100, "erratic": 90}, c.score(worker())); diff != "" {
		t.Errorf("scores by the ninth decile (-want +got):\n%s", diff)
	}
}

func TestAStaleMeasurementGivesWayToTheNextBasis(t *testing.T) {
	c := newCluster(t, setting{args: newArgs(qdrantTarget()), objects: []runtime.Object{
		zoned("a-1", "hetzner", "a"), zoned("a-2", "hetzner", "a"), node("reference"), zoned("store", "gthost", "a"), qdrant("q-0", "store"),
	}})
	old, fresh := c.clock.Now().Add(-3*time.Minute), c.clock.Now()
	observed := map[latency.Pair]latency.Distribution{}
	add := func(from, to string, rtt time.Duration, newest time.Time) {
		observed[latency.Pair{Node: from, Peer: to}] = latency.Distribution{Mean: rtt, P50: rtt, P90: rtt, P99: rtt, Min: rtt, Samples: 50, Newest: newest}
		c.publish(latency.NewMatrix(fresh, observed))
	}
	add("reference", "store", 1*ms, fresh)
	add("a-1", "store", 1*ms, old)
	feasible := []string{"a-1", "reference"}
	steps := []struct {
		name string
		step func()
		want map[string]int64
	}{
		{"nothing else is known", func() {}, map[string]int64{"a-1": 0, "reference": 100}},
		{"the group is", func() { add("a-2", "store", 4*ms, fresh) }, map[string]int64{"a-1": 81, "reference": 100}},
		{"the other direction is", func() { add("store", "a-1", 2*ms, fresh) }, map[string]int64{"a-1": 91, "reference": 100}},
		{"it is measured again", func() { add("a-1", "store", 1*ms, fresh) }, map[string]int64{"a-1": 100, "reference": 100}},
	}
	for _, s := range steps {
		s.step()
		if diff := cmp.Diff(s.want, c.score(worker(), feasible...)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", s.name, diff)
		}
	}
}

func TestWhenLatencyIsLeftOut(t *testing.T) {
	forWorkers := newArgs(qdrantTarget())
	forWorkers.Rules = []config.Rule{{
		PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"ray.io/node-type": "worker"}},
		Namespaces:  []string{"ray"},
		Targets:     []string{"qdrant"},
	}}
	objects := []runtime.Object{node("a"), node("b"), qdrant("q-0", "store")}
	some := rtts{{"a", "store"}: 1 * ms}
	tests := []struct {
		name     string
		args     *config.NetLatencyArgs
		objects  []runtime.Object
		pod      *corev1.Pod
		measured rtts
		silent   bool // no agent has ever been read
		feasible []string
		outcome  outcome
		event    string // the beginning; empty for none
	}{
		{name: "no rule matches the pod's labels", args: forWorkers, objects: objects, measured: some,
			pod: st.MakePod().Namespace("ray").Name("head").UID("head").Obj(), outcome: outcomeNoTargets},
		{name: "no rule matches the pod's namespace", args: forWorkers, objects: objects, measured: some,
			pod: st.MakePod().Namespace("other").Name("w").UID("w").Label("ray.io/node-type", "worker").Obj(), outcome: outcomeNoTargets},
		{name: "no targets are configured", args: newArgs(), objects: objects, measured: some, pod: worker(), outcome: outcomeNoTargets},
		{name: "no agent has been read yet", args: newArgs(qdrantTarget()), objects: objects, silent: true, pod: worker(), outcome: outcomeNoData,
			event: "Warning NetLatencyNoData Network latency is left out of this pod's placement: there is no fresh measurement of the way to qdrant. Check that the agents behind Service netlatency/netlatency-agent are ready"},
		{name: "no agent answers", args: newArgs(qdrantTarget()), objects: objects, pod: worker(), outcome: outcomeNoData, event: "Warning NetLatencyNoData"},
		{name: "nothing is known but that the target runs beside itself", args: newArgs(qdrantTarget()), pod: worker(), outcome: outcomeNoData,
			objects: []runtime.Object{node("store"), node("b"), qdrant("q-0", "store")}, measured: rtts{{"b", "elsewhere"}: 1 * ms},
			event: "Warning NetLatencyNoData Network latency is left out of this pod's placement: there is no fresh measurement of the way to qdrant."},
		{name: "nothing is known of the nodes that the pod can go to", args: newArgs(qdrantTarget()), objects: objects, measured: some, pod: worker(),
			feasible: []string{"b"}, outcome: outcomeNoData, event: "Warning NetLatencyNoData"},
		{name: "the targets run nowhere", args: newArgs(qdrantTarget(), gpuTarget()), objects: []runtime.Object{node("a")}, measured: some, pod: worker(),
			outcome: outcomeNoReplicas,
			event:   "Warning NetLatencyNoReplicas Network latency is left out of this pod's placement: nothing of its targets runs anywhere (qdrant, gpu). Check the selectors"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newCluster(t, setting{args: tt.args, objects: tt.objects})
			if !tt.silent {
				c.measure(tt.measured)
			}
			for range 2 { // the pod is tried twice
				if scores := c.score(tt.pod, tt.feasible...); scores != nil {
					t.Fatalf("scores are %v, want the plugin skipped", scores)
				}
			}
			for i, name := range outcomeNames {
				want := 0.0
				if outcome(i) == tt.outcome {
					want = 2
				}
				if got := counted(t, c.plugin.metrics.scorings[i]); got != want {
					t.Errorf("counted as %s: %v, want %v", name, got, want)
				}
			}
			close(c.events.Events)
			var events []string
			for event := range c.events.Events {
				events = append(events, event)
			}
			switch {
			case tt.event == "" && len(events) > 0:
				t.Errorf("events are %q, want none", events)
			case tt.event != "" && (len(events) != 1 || !strings.HasPrefix(events[0], tt.event)):
				t.Errorf("events are %q, want one, for both tries, that begins with %q", events, tt.event)
			}
		})
	}
}

func TestAMatrixOfNonsenseNeverFailsAPod(t *testing.T) {
	c := newNonsenseCluster(t)
	r := rand.New(rand.NewPCG(1, 2))
	value := func() time.Duration {
		return []time.Duration{-1, 0, 1, -ms, ms, math.MaxInt64, math.MinInt64, time.Duration(r.Int64()), -time.Duration(r.Int64())}[r.IntN(9)]
	}
	scored, refused := 0, 0
	for range 500 {
		observed := map[latency.Pair]latency.Distribution{}
		for range 12 {
			pair := latency.Pair{Node: fmt.Sprintf("node-%d", r.IntN(7)), Peer: fmt.Sprintf("node-%d", r.IntN(3))}
			observed[pair] = latency.Distribution{
				Mean: value(), P50: value(), P90: value(), P99: value(), Min: value(),
				Samples: r.IntN(9) - 2, Sent: r.IntN(9) - 4, Lost: r.IntN(9) - 4, Newest: c.clock.Now().Add(time.Duration(r.IntN(400)-200) * time.Second),
			}
		}
		c.publish(latency.NewMatrix(c.clock.Now(), observed))
		// The framework refuses a score outside 0 to 100, and score would fail.
		if c.score(worker()) != nil {
			scored++
		}
		refused += len(c.filter(worker()))
		c.place(worker(), fmt.Sprintf("node-%d", r.IntN(9)), "node-0", "node-1", "node-2")
	}
	if scored == 0 || refused == 0 {
		t.Errorf("%d matrices led to scores and %d nodes were refused: too little was tested", scored, refused)
	}
	for _, line := range exposed(t, c.plugin.metrics.profile) {
		if strings.HasPrefix(line, "netlatency_panics_total") {
			t.Error(line)
		}
	}
}

func TestScoreOfAnotherCycle(t *testing.T) {
	c := newCluster(t, setting{args: newArgs(qdrantTarget()), objects: []runtime.Object{node("a"), node("b"), qdrant("q-0", "store")}})
	c.measure(rtts{{"a", "store"}: 1 * ms, {"b", "store"}: 2 * ms})
	nodes := tf.BuildNodeInfos(c.nodes)
	first := framework.NewCycleState()
	c.plugin.PreScore(c.ctx, first, worker(), nodes)
	c.measure(rtts{{"a", "store"}: 7 * ms, {"b", "store"}: 2 * ms})
	second := framework.NewCycleState()
	c.plugin.PreScore(c.ctx, second, worker(), nodes)
	tests := []struct {
		name  string
		state fwk.CycleState
		want  []int64
	}{
		{"the last that was prepared", second, []int64{83, 100}},
		{"an earlier one keeps the costs it began with", first, []int64{100, 91}},
		{"so does a clone", first.Clone(), []int64{100, 91}},
		{"one that was not prepared knows nothing", framework.NewCycleState(), []int64{0, 0}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			scores := fwk.NodeScoreList{{Name: "a"}, {Name: "b"}}
			status := c.plugin.NormalizeScore(c.ctx, tt.state, worker(), scores)
			if !status.IsSuccess() || scores[0].Score != tt.want[0] || scores[1].Score != tt.want[1] {
				t.Errorf("scores are %v (%v), want %d", scores, status, tt.want)
			}
		})
	}
}

func TestScoresAreOfTheNodesThatTheyName(t *testing.T) {
	c := newCluster(t, setting{args: newArgs(qdrantTarget()), objects: []runtime.Object{node("a"), node("b"), qdrant("q-0", "store")}})
	c.measure(rtts{{"a", "store"}: 1 * ms, {"b", "store"}: 2 * ms})
	state := framework.NewCycleState()
	c.plugin.PreScore(c.ctx, state, worker(), tf.BuildNodeInfos(c.nodes))
	scores := fwk.NodeScoreList{{Name: "b"}, {Name: "a"}, {Name: "nobody"}} // in another order than PreScore's
	want := fwk.NodeScoreList{{Name: "b", Score: 91}, {Name: "a", Score: 100}, {Name: "nobody", Score: 0}}
	if status := c.plugin.NormalizeScore(c.ctx, state, worker(), scores); !status.IsSuccess() {
		t.Error(status)
	}
	if diff := cmp.Diff(want, scores); diff != "" {
		t.Errorf("scores (-want +got):\n%s", diff)
	}
}

func TestANodeIsKnownByItsObjectAndByItsName(t *testing.T) {
	c := newCluster(t, setting{args: newArgs(qdrantTarget()), objects: []runtime.Object{node("a"), node("b"), qdrant("q-0", "store")}})
	c.measure(rtts{{"a", "store"}: 1 * ms, {"b", "store"}: 2 * ms})
	state := framework.NewCycleState()
	c.plugin.PreScore(c.ctx, state, worker(), tf.BuildNodeInfos(c.nodes))
	for name, want := range map[string]time.Duration{"a": 1 * ms, "b": 2 * ms} {
		object, err := c.plugin.nodes.Get(name)
		if err != nil {
			t.Fatal(err)
		}
		for what, n := range map[string]*corev1.Node{"the object": object, "another of the name": object.DeepCopy()} {
			if got := c.plugin.cycleOf(state).costOf(n); got != want {
				t.Errorf("the cost of %s by %s is %v, want %v", name, what, got, want)
			}
		}
	}
	if got := c.plugin.cycleOf(state).costOf(node("c")); got != placement.Unknown {
		t.Errorf("the cost of a node that nobody knows is %v", got)
	}
}

func TestScoringAllocatesNothingForANode(t *testing.T) {
	c := newCluster(t, setting{args: newArgs(qdrantTarget()), objects: []runtime.Object{node("a"), node("b"), qdrant("q-0", "store")}})
	c.measure(rtts{{"a", "store"}: 1 * ms, {"b", "store"}: 2 * ms})
	nodes := tf.BuildNodeInfos(c.nodes)
	state, pod := framework.NewCycleState(), worker()
	if status := c.plugin.PreScore(c.ctx, state, pod, nodes); !status.IsSuccess() {
		t.Fatal(status.AsError())
	}
	scores := make(fwk.NodeScoreList, len(nodes))
	for i, n := range nodes {
		scores[i].Name = n.Node().Name
	}
	allocs := testing.AllocsPerRun(100, func() {
		for i, n := range nodes {
			scores[i].Score, _ = c.plugin.Score(c.ctx, state, pod, n)
		}
		c.plugin.NormalizeScore(c.ctx, state, pod, scores)
	})
	if allocs != 0 {
		t.Errorf("%v allocations to score %d nodes", allocs, len(nodes))
	}
}
