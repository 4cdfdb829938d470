package netlatency

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/events"
	"k8s.io/dynamic-resource-allocation/resourceslice/tracker"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"
	fwk "k8s.io/kube-scheduler/framework"
	schedulerconfig "k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/apis/config/latest"
	"k8s.io/kubernetes/pkg/scheduler/backend/cache"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/dynamicresources"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/nodevolumelimits"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	st "k8s.io/kubernetes/pkg/scheduler/testing"
	tf "k8s.io/kubernetes/pkg/scheduler/testing/framework"
	"k8s.io/kubernetes/pkg/scheduler/util/assumecache"
)

// contest is a scheduler's framework with all of Kubernetes' plugins and ours,
// over some hundred nodes and what runs there.
type contest struct {
	t      *testing.T
	ctx    context.Context
	fwk    framework.Framework
	plugin *NetLatency
	nodes  []*corev1.Node
	infos  []fwk.NodeInfo
}

// nominated is the pods that are promised room, by node.
type nominated map[string][]fwk.PodInfo

func (nominated) AddNominatedPod(klog.Logger, fwk.PodInfo, *fwk.NominatingInfo) {}
func (nominated) DeleteNominatedPodIfExists(*corev1.Pod)                        {}
func (nominated) UpdateNominatedPod(klog.Logger, *corev1.Pod, fwk.PodInfo)      {}
func (n nominated) NominatedPodsForNode(node string) []fwk.PodInfo              { return n[node] }

// terrain is what a contest is held on.
type terrain struct {
	nodes    []*corev1.Node
	pods     []*corev1.Pod // that run, besides Qdrant
	rtts     rtts          // to the node "store", where Qdrant runs
	weight   int32         // of NetLatency
	promised nominated
	change   func(*schedulerconfig.KubeSchedulerProfile)
	// extenders are other programs that the scheduler asks.
	extenders []fwk.Extender
}

// promise gives the room of some nodes to pods that are to be preferred.
func (s *terrain) promise(t *testing.T, cpu string, some func(int) bool) {
	t.Helper()
	s.promised = nominated{}
	for i, node := range s.nodes {
		if !some(i) {
			continue
		}
		pod, err := framework.NewPodInfo(st.MakePod().Name("promised").UID("promised-" + node.Name).Priority(10).Req(map[corev1.ResourceName]string{"cpu": cpu}).Obj())
		if err != nil {
			t.Fatal(err)
		}
		s.promised[node.Name] = []fwk.PodInfo{pod}
	}
}

func newContest(t *testing.T, s terrain) *contest {
	t.Helper()
	_, ctx := ktesting.NewTestContext(t)
	ctx, cancel := context.WithCancel(ctx)
	t.Cleanup(cancel)
	objects := []runtime.Object{qdrant("q-0", "store")}
	for _, node := range s.nodes {
		objects = append(objects, node)
	}
	client := fake.NewClientset(objects...)
	cfg, err := latest.Default()
	if err != nil {
		t.Fatal(err)
	}
	profile := &cfg.Profiles[0]
	profile.SchedulerName = fmt.Sprintf("profile-%d", profiles.Add(1))
	profile.Plugins.MultiPoint.Enabled = append(profile.Plugins.MultiPoint.Enabled, schedulerconfig.Plugin{Name: Name, Weight: s.weight})
	args := newArgs(qdrantTarget())
	args.StaleAfter.Duration = time.Hour
	profile.PluginConfig = append(profile.PluginConfig, schedulerconfig.PluginConfig{Name: Name, Args: args})
	for i := range profile.PluginConfig {
		if spread, ok := profile.PluginConfig[i].Args.(*schedulerconfig.PodTopologySpreadArgs); ok {
			spread.DefaultingType = schedulerconfig.ListDefaulting // as the chart has it
		}
	}
	registry := plugins.NewInTreeRegistry()
	if err := registry.Register(Name, NewWithMatrix(s.rtts.matrix(time.Now()))); err != nil {
		t.Fatal(err)
	}
	if err := registry.Register("Foreign", func(context.Context, runtime.Object, fwk.Handle) (fwk.Plugin, error) { return foreign{}, nil }); err != nil {
		t.Fatal(err)
	}
	if s.change != nil {
		s.change(profile)
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	slices, err := tracker.StartTracker(ctx, tracker.Options{SliceInformer: factory.Resource().V1().ResourceSlices(), KubeClient: client})
	if err != nil {
		t.Fatal(err)
	}
	claims := assumecache.NewAssumeCache(klog.FromContext(ctx), factory.Resource().V1().ResourceClaims().Informer(), "ResourceClaim", "", nil)
	c := &contest{t: t, ctx: ctx, nodes: s.nodes}
	snapshot := cache.NewSnapshot(s.pods, s.nodes)
	c.fwk, err = frameworkruntime.NewFramework(ctx, registry, profile,
		frameworkruntime.WithClientSet(client),
		frameworkruntime.WithInformerFactory(factory),
		frameworkruntime.WithEventRecorder(events.NewFakeRecorder(1000)),
		frameworkruntime.WithSnapshotSharedLister(snapshot),
		frameworkruntime.WithPodNominator(s.promised),
		frameworkruntime.WithExtenders(s.extenders),
		frameworkruntime.WithSharedDRAManager(dynamicresources.NewDRAManager(ctx, claims, slices, factory)),
		frameworkruntime.WithSharedCSIManager(nodevolumelimits.NewCSIManager(factory.Storage().V1().CSINodes().Lister())),
	)
	if err != nil {
		t.Fatal(err)
	}
	states.mu.Lock()
	c.plugin = states.plugins[profile.SchedulerName]
	states.mu.Unlock()
	c.plugin.rateAll = false
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	c.plugin.Settle(ctx)
	c.plugin.renew()
	if c.infos, err = snapshot.NodeInfos().List(); err != nil {
		t.Fatal(err)
	}
	return c
}

// foreign filters and scores, and is none of Kubernetes'.
type foreign struct{}

func (foreign) Name() string { return "Foreign" }
func (foreign) Score(context.Context, fwk.CycleState, *corev1.Pod, fwk.NodeInfo) (int64, *fwk.Status) {
	return 0, nil
}
func (foreign) ScoreExtensions() fwk.ScoreExtensions { return nil }
func (foreign) Filter(context.Context, fwk.CycleState, *corev1.Pod, fwk.NodeInfo) *fwk.Status {
	return nil
}

// place is what the scheduler does for a pod, without choosing between the best:
// the nodes of the highest total, and how many were left out. It fails where
// leaving nodes out leaves none.
func (c *contest) place(pod *corev1.Pod) (best []string, left int) {
	c.t.Helper()
	state := framework.NewCycleState()
	if _, status, _ := c.fwk.RunPreFilterPlugins(c.ctx, state, pod); !status.IsSuccess() {
		c.t.Fatalf("PreFilter: %v", status.AsError())
	}
	var mu sync.Mutex
	var feasible []fwk.NodeInfo
	c.fwk.Parallelizer().Until(c.ctx, len(c.infos), func(i int) {
		status := c.fwk.RunFilterPluginsWithNominatedPods(c.ctx, state, pod, c.infos[i])
		mu.Lock()
		defer mu.Unlock()
		switch {
		case status.IsSuccess():
			feasible = append(feasible, c.infos[i])
		case !status.IsRejected():
			c.t.Errorf("Filter: %v", status.AsError())
		case status.Message() == reasonOutdone:
			left++
		}
	}, "Filter")
	if len(feasible) == 0 {
		if left > 0 {
			c.t.Errorf("%d nodes were left out beside none that is free", left)
		}
		return nil, left
	}
	if status := c.fwk.RunPreScorePlugins(c.ctx, state, pod, feasible); !status.IsSuccess() {
		c.t.Fatalf("PreScore: %v", status.AsError())
	}
	scores, status := c.fwk.RunScorePlugins(c.ctx, state, pod, feasible)
	if !status.IsSuccess() {
		c.t.Fatalf("Score: %v", status.AsError())
	}
	var highest int64
	for _, s := range scores {
		if s.TotalScore > highest {
			highest, best = s.TotalScore, nil
		}
		if s.TotalScore == highest {
			best = append(best, s.Name)
		}
	}
	slices.Sort(best)
	return best, left
}

// placeRatingAll is place with nothing left out.
func (c *contest) placeRatingAll(pod *corev1.Pod) []string {
	c.t.Helper()
	others := c.plugin.competition()
	defer func(fair bool) { others.fair = fair }(others.fair)
	others.fair = false
	best, left := c.place(pod)
	if left > 0 {
		c.t.Errorf("%d nodes were left out although that was off", left)
	}
	return best
}

// learn places a small pod, from which the plugin learns who has a say.
func (c *contest) learn() {
	c.t.Helper()
	if _, left := c.place(st.MakePod().Namespace("ray").Name("first").UID("first").Obj()); left > 0 {
		c.t.Errorf("%d nodes were left out before it was known which plugins have a say", left)
	}
}

// spread is nodes at random distances, of a few tiers or of none, some unknown,
// with as much room as what runs there leaves.
func spread(r *rand.Rand, nodes int) terrain {
	s := terrain{weight: 25, rtts: rtts{}}
	if r.IntN(4) == 0 {
		s.weight = 100
	}
	contrary := r.IntN(3) == 0
	even := contrary || r.IntN(2) == 0
	tiers := []time.Duration{100 * time.Microsecond, 400 * time.Microsecond, 1 * ms, 3 * ms, 30 * ms}
	tiers = tiers[r.IntN(2) : 2+r.IntN(len(tiers)-1)]
	for i := range nodes {
		name := fmt.Sprintf("node-%d", i)
		if i == 0 {
			name = "store"
		}
		node := st.MakeNode().Name(name).Capacity(map[corev1.ResourceName]string{"cpu": "4", "memory": "32Gi", "pods": "110"})
		if r.IntN(3) == 0 {
			node = node.Images(map[string]int64{"worker": int64(r.IntN(1 << 30))})
		}
		s.nodes = append(s.nodes, node.Obj())
		if i > 0 && r.IntN(20) > 0 {
			rtt := float64(tiers[r.IntN(len(tiers))]) * (1 + 0.3*r.Float64())
			if even {
				rtt = float64(500*time.Microsecond) * math.Exp2(5*r.Float64())
			}
			s.rtts[[2]string{name, "store"}] = time.Duration(rtt)
		}
		if contrary { // the farther, the more all others like it
			if rtt := s.rtts[[2]string{name, "store"}]; rtt > 800*time.Microsecond {
				s.nodes[i].Status.Images = []corev1.ContainerImage{{Names: []string{"worker:latest"}, SizeBytes: 1 << 30}}
			} else {
				s.pods = append(s.pods, st.MakePod().Name("p-"+name).UID("p-"+name).Node(name).Req(map[corev1.ResourceName]string{"cpu": "3500m"}).Obj())
			}
			continue
		}
		for range r.IntN(3) {
			pod := st.MakePod().Name(fmt.Sprintf("p-%d", len(s.pods))).UID(fmt.Sprintf("p-%d", len(s.pods))).Node(name)
			s.pods = append(s.pods, pod.Req(map[corev1.ResourceName]string{"cpu": fmt.Sprintf("%dm", 100+r.IntN(1900)), "memory": fmt.Sprintf("%dMi", r.IntN(16<<10))}).Obj())
		}
	}
	return s
}

func demanding(r *rand.Rand) *corev1.Pod {
	pod := st.MakePod().Namespace("ray").Name("worker").UID("worker").Req(map[corev1.ResourceName]string{
		"cpu": fmt.Sprintf("%dm", 100+r.IntN([]int{300, 3800}[r.IntN(2)])), "memory": fmt.Sprintf("%dMi", 1+r.IntN(31<<10)),
	}).Obj()
	pod.Spec.Containers[0].Image = "worker"
	return pod
}

func TestNodesThatAreLeftOutWouldNotHaveBeenChosen(t *testing.T) {
	clusters := 40
	if testing.Short() {
		clusters = 4
	}
	r := rand.New(rand.NewPCG(1, 2))
	left, without := 0, 0
	for range clusters {
		s := spread(r, 300+r.IntN(300))
		// A pod that is to be preferred is promised the room of every tenth node.
		s.promise(t, "3", func(int) bool { return r.IntN(10) == 0 })
		c := newContest(t, s)
		c.learn()
		for range 6 {
			pod := demanding(r)
			want := c.placeRatingAll(pod)
			got, n := c.place(pod)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("with %d of %d nodes left out others are best (-all are rated +not):\n%s", n, len(c.infos), diff)
			}
			if left += n; n == 0 {
				without++
			}
		}
	}
	t.Logf("%d nodes were left out, none for %d of %d pods", left, without, 6*clusters)
	if left == 0 {
		t.Error("no node was ever left out")
	}
}

// twoTiers is near nodes and as many far ones, all free.
func twoTiers(each int) terrain {
	s := terrain{weight: 25, rtts: rtts{}, nodes: []*corev1.Node{node("store")}}
	for i := range 2 * each {
		name, rtt := fmt.Sprintf("near-%d", i), 1*ms
		if i >= each {
			name, rtt = fmt.Sprintf("far-%d", i), 10*ms
		}
		s.nodes = append(s.nodes, st.MakeNode().Name(name).Capacity(map[corev1.ResourceName]string{"cpu": "4", "memory": "32Gi", "pods": "110", "example.com/gpu": "8"}).Obj())
		s.rtts[[2]string{name, "store"}] = rtt
	}
	return s
}

func TestWhenNodesAreLeftOut(t *testing.T) {
	plain := func() *st.PodWrapper {
		return st.MakePod().Namespace("ray").Name("worker").UID("worker").Req(map[corev1.ResourceName]string{"cpu": "1"})
	}
	full := func(s terrain) terrain {
		for i, node := range s.nodes {
			if i > 0 && i <= 150 {
				name := fmt.Sprintf("p-%d", i)
				s.pods = append(s.pods, st.MakePod().Name(name).UID(name).Node(node.Name).Req(map[corev1.ResourceName]string{"cpu": "3500m"}).Obj())
			}
		}
		return s
	}
	promised := func(s terrain) terrain {
		s.promise(t, "4", func(i int) bool { return i <= 150 })
		return s
	}
	changed := func(change func(*schedulerconfig.KubeSchedulerProfile)) terrain {
		s := twoTiers(150)
		s.change = change
		return s
	}
	tainted := twoTiers(150)
	tainted.nodes[7].Spec.Taints = []corev1.Taint{{Key: "busy", Effect: corev1.TaintEffectPreferNoSchedule}}
	extended := twoTiers(150)
	extended.extenders = []fwk.Extender{&tf.FakeExtender{}}
	for name, test := range map[string]struct {
		terrain terrain
		pod     *corev1.Pod
		some    bool
	}{
		"the near are free":          {twoTiers(150), plain().Obj(), true},
		"a selector and tolerations": {twoTiers(150), plain().NodeSelector(map[string]string{}).Toleration("gpu").Obj(), true},
		"required affinity to nodes": {twoTiers(150), plain().NodeAffinityNotIn("absent", []string{"x"}).Obj(), true},
		"our filter comes first": {changed(func(p *schedulerconfig.KubeSchedulerProfile) {
			p.Plugins.Filter.Enabled = []schedulerconfig.Plugin{{Name: Name}}
		}), plain().Obj(), true},
		"the near are full":               {full(twoTiers(150)), plain().Obj(), false},
		"the near are promised":           {promised(twoTiers(150)), plain().Obj(), false},
		"few nodes":                       {twoTiers(90), plain().Obj(), false},
		"preferred nodes":                 {twoTiers(150), preferring(plain().Obj()), false},
		"affinity to pods":                {twoTiers(150), plain().PodAffinityExists("app", "zone", st.PodAffinityWithPreferredReq).Obj(), false},
		"spreading":                       {twoTiers(150), plain().SpreadConstraint(1, "zone", corev1.ScheduleAnyway, nil, nil, nil, nil, nil).Obj(), false},
		"devices":                         {twoTiers(150), plain().Req(map[corev1.ResourceName]string{"example.com/gpu": "1"}).Obj(), false},
		"nodes that pods prefer to avoid": {tainted, plain().Obj(), false},
		"a filter that is not of Kubernetes": {changed(func(p *schedulerconfig.KubeSchedulerProfile) {
			p.Plugins.Filter.Enabled = []schedulerconfig.Plugin{{Name: "Foreign"}}
		}), plain().Obj(), false},
		"a score that is not of Kubernetes": {changed(func(p *schedulerconfig.KubeSchedulerProfile) {
			p.Plugins.Score.Enabled = []schedulerconfig.Plugin{{Name: "Foreign", Weight: 1}}
		}), plain().Obj(), false},
		"an extender":               {extended, plain().Obj(), false},
		"latency counts for little": {func() terrain { s := twoTiers(150); s.weight = 2; return s }(), plain().Obj(), false},
	} {
		t.Run(name, func(t *testing.T) {
			c := newContest(t, test.terrain)
			c.learn()
			if _, left := c.place(test.pod); (left > 0) != test.some {
				t.Errorf("%d nodes were left out, want some: %v", left, test.some)
			}
		})
	}
}

func TestVolumesThatAreBoundHaveASay(t *testing.T) {
	for name, test := range map[string]struct {
		source corev1.VolumeSource
		plain  bool
	}{
		"memory":    {corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}, true},
		"a claim":   {corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{}}, false},
		"ephemeral": {corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}, false},
	} {
		if got := isPlain(st.MakePod().Volume(corev1.Volume{Name: "v", VolumeSource: test.source}).Obj()); got != test.plain {
			t.Errorf("%s: plain is %v, want %v", name, got, test.plain)
		}
	}
}

func preferring(pod *corev1.Pod) *corev1.Pod {
	pod.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{{
		Weight: 1, Preference: corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "fast", Operator: corev1.NodeSelectorOpExists}}},
	}}}}
	return pod
}

// Only a node that is as it stands proves that it is free: not the one that was
// chosen last, about which a batch of the queue asks before any other and without
// the pods that are promised room on it; and none that preemption would empty.
func TestWhatProvesNothing(t *testing.T) {
	c := newContest(t, twoTiers(150))
	c.learn()
	pod := st.MakePod().Namespace("ray").Name("worker").UID("worker").Obj()
	at := func(name string) fwk.NodeInfo {
		info, err := c.fwk.SnapshotSharedLister().NodeInfos().Get(name)
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	last, near, far := at("near-1"), at("near-2"), at("far-299")
	c.plugin.Reserve(c.ctx, framework.NewCycleState(), pod, last.Node().Name)
	state := framework.NewCycleState()
	if _, status, _ := c.fwk.RunPreFilterPlugins(c.ctx, state, pod); !status.IsSuccess() {
		t.Fatal(status.AsError())
	}
	for name, proof := range map[string]fwk.NodeInfo{"the node chosen last": last, "another's copy": near.Snapshot()} {
		if status := c.fwk.RunFilterPlugins(c.ctx, state, pod, proof); !status.IsSuccess() {
			t.Fatal(status.AsError())
		}
		if status := c.fwk.RunFilterPluginsWithNominatedPods(c.ctx, state, pod, far); !status.IsSuccess() {
			t.Errorf("a far node is left out for the sake of %s: %v", name, status)
		}
	}
	if status := c.fwk.RunFilterPlugins(c.ctx, state, pod, near); !status.IsSuccess() {
		t.Fatal(status.AsError())
	}
	if status := c.fwk.RunFilterPluginsWithNominatedPods(c.ctx, state, pod, far); status.Message() != reasonOutdone {
		t.Errorf("a far node is not left out beside a near one that is free: %v", status)
	}
}
