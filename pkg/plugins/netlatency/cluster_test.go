package netlatency

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/events"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"
	fwk "k8s.io/kube-scheduler/framework"
	schedulerconfig "k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/backend/cache"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/defaultbinder"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/feature"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/queuesort"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/tainttoleration"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	schedulermetrics "k8s.io/kubernetes/pkg/scheduler/metrics"
	st "k8s.io/kubernetes/pkg/scheduler/testing"
	tf "k8s.io/kubernetes/pkg/scheduler/testing/framework"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/netlatency/netlatency/apis/config"
	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/source"
)

const ms = time.Millisecond

func init() { schedulermetrics.Register() }

// rtts is round trips by node and peer.
type rtts map[[2]string]time.Duration

// matrix makes a matrix of which every measurement is fresh at now.
func (r rtts) matrix(now time.Time) *latency.Matrix {
	observed := make(map[latency.Pair]latency.Distribution, len(r))
	for pair, rtt := range r {
		observed[latency.Pair{Node: pair[0], Peer: pair[1]}] = latency.Distribution{
			Mean: rtt, P50: rtt, P90: rtt, P99: rtt, Min: rtt, Samples: 100, Newest: now,
		}
	}
	return latency.NewMatrix(now, observed)
}

// injected is a source whose matrices the test publishes.
type injected struct {
	publish func(*latency.Matrix)
	peers   func() []string
	run     func(context.Context)
	stats   source.Stats
}

func (s *injected) Run(ctx context.Context) { s.run(ctx) }
func (s *injected) Stats() source.Stats     { return s.stats }

// sources counts how many were opened.
type sources struct {
	opened []*injected
	run    func(context.Context)
	stats  source.Stats
}

func (s *sources) open(_ *config.NetLatencyArgs, _ kubernetes.Interface, peers func() []string, publish func(*latency.Matrix)) (matrixSource, error) {
	run := s.run
	if run == nil {
		run = func(ctx context.Context) { <-ctx.Done() }
	}
	opened := &injected{publish: publish, peers: peers, run: run, stats: s.stats}
	s.opened = append(s.opened, opened)
	return opened, nil
}

func qdrantTarget() config.Target {
	return config.Target{Name: "qdrant", Weight: 1, Aggregation: config.AggregationMean, Pods: &config.PodsTarget{
		LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "qdrant"}},
	}}
}

func gpuTarget() config.Target {
	return config.Target{Name: "gpu", Weight: 1, Aggregation: config.AggregationMean, Nodes: &config.NodesTarget{Resource: "nvidia.com/gpu"}}
}

// newArgs is the default configuration, but for a statistic that is the mean
// alone, so that costs are the round trips that a test gives.
func newArgs(targets ...config.Target) *config.NetLatencyArgs {
	return &config.NetLatencyArgs{
		Source: config.Source{Agents: &config.AgentsSource{
			Namespace: "netlatency", Service: "netlatency-agent", Port: "http",
			Interval: metav1.Duration{Duration: 10 * time.Second}, Timeout: metav1.Duration{Duration: 3 * time.Second},
		}},
		StaleAfter:     metav1.Duration{Duration: 2 * time.Minute},
		Band:           config.Band{Ratio: 0.1, Floor: metav1.Duration{Duration: 100 * time.Microsecond}},
		ProviderLabels: []string{"netlatency.io/provider"},
		Targets:        targets,
	}
}

// cluster is a scheduler's framework with our plugin and taints, the objects that
// its informers see, and the source that the test publishes matrices with.
type cluster struct {
	t       testing.TB
	ctx     context.Context
	clock   *clocktesting.FakeClock // nil if the clock is real
	client  *fake.Clientset
	sources *sources
	events  *events.FakeRecorder
	fwk     framework.Framework
	plugin  *NetLatency
	nodes   []*corev1.Node

	mu        sync.Mutex
	activated []string // names of pods
}

// Activate stands for the scheduling queue.
func (c *cluster) Activate(_ klog.Logger, pods map[string]*corev1.Pod) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, pod := range pods {
		c.activated = append(c.activated, pod.Name)
	}
}

// woken is the pods that were activated since the last call.
func (c *cluster) woken() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	woken := c.activated
	c.activated = nil
	slices.Sort(woken)
	return woken
}

// filter runs the filters of a cycle: the reason why each node that is refused
// is. It returns nil if the plugin skipped.
func (c *cluster) filter(pod *corev1.Pod) map[string]string {
	c.t.Helper()
	state := framework.NewCycleState()
	_, status, _ := c.fwk.RunPreFilterPlugins(c.ctx, state, pod)
	if !status.IsSuccess() {
		c.t.Fatalf("PreFilter: %v", status.AsError())
	}
	if state.GetSkipFilterPlugins().Has(Name) {
		return nil
	}
	reasons := map[string]string{}
	for _, info := range tf.BuildNodeInfos(c.nodes) {
		status := c.fwk.RunFilterPlugins(c.ctx, state, pod, info)
		switch status.Code() {
		case fwk.Success:
		case fwk.UnschedulableAndUnresolvable:
			reasons[info.Node().Name] = status.Message()
		default:
			c.t.Fatalf("Filter: %v", status)
		}
	}
	return reasons
}

// nobodyNominated stands for a queue in which no pod waits for others to leave a
// node.
type nobodyNominated struct{ fwk.PodNominator }

func (nobodyNominated) NominatedPodsForNode(string) []fwk.PodInfo { return nil }

type setting struct {
	args      *config.NetLatencyArgs
	objects   []runtime.Object
	sources   *sources
	realClock bool
}

var profiles atomic.Int64

func newCluster(tb testing.TB, s setting) *cluster {
	tb.Helper()
	_, ctx := ktesting.NewTestContext(tb)
	ctx, cancel := context.WithCancel(ctx)
	tb.Cleanup(cancel)
	c := &cluster{t: tb, ctx: ctx, sources: s.sources, client: fake.NewClientset(s.objects...), events: events.NewFakeRecorder(100)}
	if c.sources == nil {
		c.sources = &sources{}
	}
	var clk clock.Clock = clock.RealClock{}
	if !s.realClock {
		c.clock = clocktesting.NewFakeClock(time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC))
		clk = c.clock
	}
	for _, object := range s.objects {
		if node, ok := object.(*corev1.Node); ok {
			c.nodes = append(c.nodes, node)
		}
	}
	// Counters are the process's: each cluster has a profile of its own.
	profile := fmt.Sprintf("profile-%d", profiles.Add(1))
	var err error
	c.fwk, err = c.profile(profile, s.args, newFactory(c.sources.open, clk))
	if err != nil {
		tb.Fatal(err)
	}
	states.mu.Lock()
	c.plugin = states.plugins[profile]
	states.mu.Unlock()
	if c.clock != nil {
		eventually(tb, "the plugin's goroutine waits for the clock, which the test has", c.clock.HasWaiters)
	}
	return c
}

// profile makes a framework that runs our plugin with args.
func (c *cluster) profile(name string, args runtime.Object, factory frameworkruntime.PluginFactory) (framework.Framework, error) {
	c.t.Helper()
	informerFactory := informers.NewSharedInformerFactory(c.client, 0)
	register := func(registry *frameworkruntime.Registry, profile *schedulerconfig.KubeSchedulerProfile) {
		if err := registry.Register(Name, factory); err != nil {
			c.t.Fatal(err)
		}
		enabled := []schedulerconfig.Plugin{{Name: Name, Weight: 1}}
		profile.Plugins.PreFilter.Enabled, profile.Plugins.Filter.Enabled = enabled, enabled
		profile.Plugins.Reserve.Enabled, profile.Plugins.PostBind.Enabled = enabled, enabled
		profile.Plugins.Bind.Enabled = append(enabled, profile.Plugins.Bind.Enabled...)
		profile.Plugins.PreScore.Enabled, profile.Plugins.Score.Enabled = enabled, enabled
		profile.PluginConfig = []schedulerconfig.PluginConfig{{Name: Name, Args: args}}
	}
	f, err := tf.NewFramework(c.ctx, []tf.RegisterPluginFunc{
		tf.RegisterQueueSortPlugin(queuesort.Name, queuesort.New),
		tf.RegisterBindPlugin(defaultbinder.Name, defaultbinder.New),
		register,
		tf.RegisterFilterPlugin(tainttoleration.Name, frameworkruntime.FactoryAdapter(feature.Features{}, tainttoleration.New)),
	}, name,
		frameworkruntime.WithClientSet(c.client),
		frameworkruntime.WithInformerFactory(informerFactory),
		frameworkruntime.WithEventRecorder(c.events),
		frameworkruntime.WithSnapshotSharedLister(cache.NewSnapshot(nil, c.nodes)),
		frameworkruntime.WithPodNominator(nobodyNominated{}),
	)
	if err != nil {
		return nil, err
	}
	f.SetPodActivator(c)
	informerFactory.Start(c.ctx.Done())
	informerFactory.WaitForCacheSync(c.ctx.Done())
	return f, nil
}

// publish lets the source publish, and the plugin take it over.
func (c *cluster) publish(matrix *latency.Matrix) {
	c.sources.opened[0].publish(matrix)
	if c.clock != nil { // with a real clock the plugin does it by itself
		c.plugin.renew()
	}
}

func (c *cluster) measure(r rtts) { c.publish(r.matrix(c.plugin.clock.Now())) }

// score runs the scoring of a cycle over the nodes called feasible, or all. It
// returns nil if the plugin skipped.
func (c *cluster) score(pod *corev1.Pod, feasible ...string) map[string]int64 {
	c.t.Helper()
	return c.scoreIn(c.fwk, pod, feasible...)
}

func (c *cluster) scoreIn(f framework.Framework, pod *corev1.Pod, feasible ...string) map[string]int64 {
	c.t.Helper()
	var nodes []fwk.NodeInfo
	for _, info := range tf.BuildNodeInfos(c.nodes) {
		for _, name := range feasible {
			if info.Node().Name == name {
				nodes = append(nodes, info)
			}
		}
		if len(feasible) == 0 {
			nodes = append(nodes, info)
		}
	}
	return c.scoreOver(f, pod, nodes)
}

// scoreOver is score over nodes, in their order.
func (c *cluster) scoreOver(f framework.Framework, pod *corev1.Pod, nodes []fwk.NodeInfo) map[string]int64 {
	c.t.Helper()
	state := framework.NewCycleState()
	if status := f.RunPreScorePlugins(c.ctx, state, pod, nodes); !status.IsSuccess() {
		c.t.Fatalf("PreScore: %v", status.AsError())
	}
	if state.GetSkipScorePlugins().Has(Name) {
		return nil
	}
	results, status := f.RunScorePlugins(c.ctx, state, pod, nodes)
	if !status.IsSuccess() {
		c.t.Fatalf("Score: %v", status.AsError())
	}
	scores := make(map[string]int64, len(results))
	for _, result := range results {
		scores[result.Name] = result.TotalScore
	}
	return scores
}

func worker() *corev1.Pod {
	return st.MakePod().Namespace("ray").Name("worker").UID("worker").Label("ray.io/node-type", "worker").Obj()
}

// qdrant is a ready replica on node.
func qdrant(name, node string) *corev1.Pod {
	return st.MakePod().Namespace("search").Name(name).UID(name).Label("app", "qdrant").Node(node).
		Phase(corev1.PodRunning).Condition(corev1.PodReady, corev1.ConditionTrue, "").Obj()
}

func node(name string) *corev1.Node { return st.MakeNode().Name(name).Obj() }

func gpuNode(name string) *corev1.Node {
	return st.MakeNode().Name(name).Capacity(map[corev1.ResourceName]string{"nvidia.com/gpu": "8"}).Obj()
}

func zoned(name, provider, zone string) *corev1.Node {
	return st.MakeNode().Name(name).Label("netlatency.io/provider", provider).Label(corev1.LabelTopologyZone, zone).Obj()
}

// eventually waits for what other goroutines bring about.
func eventually(tb testing.TB, what string, holds func() bool) {
	tb.Helper()
	for range 1000 {
		if holds() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	tb.Fatalf("%s: not within ten seconds", what)
}
