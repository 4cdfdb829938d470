package perf

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/etcdmain"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/component-base/metrics/legacyregistry"
	"k8s.io/kubernetes/pkg/scheduler"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	perf "k8s.io/kubernetes/test/integration/scheduler_perf"
	"k8s.io/kubernetes/test/utils/ktesting"
	"sigs.k8s.io/yaml"

	"github.com/netlatency/netlatency/pkg/memory"
	"github.com/netlatency/netlatency/pkg/plugins/netlatency"
)

var (
	nodes   = flag.Int("nodes", 5000, "nodes of the cluster")
	running = flag.Int("running", 10000, "pods that run in the cluster besides those that are measured")
	pods    = flag.Int("pods", 100, "pods of one kind that come at once")
	rounds  = flag.Int("rounds", 30, "how often each kind comes")
	results = flag.String("results", "", "file to which what was measured is appended, as go test prints benchmarks")
)

// TestMain is also etcd: the harness runs one by this name from PATH.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "etcd" {
		etcdmain.Main(os.Args)
		return
	}
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "perf:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	if err := perf.InitTests(); err != nil {
		return 0, err
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(memory.CollectorPercent) // as the chart's scheduler has it
	}
	directory, err := os.MkdirTemp("", "netlatency-perf-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(directory)
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	if err := errors.Join(
		os.Symlink(self, filepath.Join(directory, "etcd")),
		os.Setenv("PATH", directory+string(os.PathListSeparator)+os.Getenv("PATH")),
	); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

// kind is pods that come in bursts of their own.
type kind struct {
	name, pod string
	profile   string
	outcome   string // what the plugin is to do with all of them
}

// suite is kinds that take turns in one cluster.
type suite struct {
	name  string
	kinds []kind
	// wholeNode makes each pod fill its node, as KubeRay advises for workers.
	// Otherwise dozens have room on one.
	wholeNode bool
}

var suites = []suite{
	{name: "cost", kinds: []kind{
		{"no-plugin", "worker", withoutPlugin, ""},
		{"nothing", "worker", withNothing, ""},
		{"unused", "other", withPlugin, "no_targets"},
		{"used", "worker", withPlugin, "scored"},
	}},
	{name: "near", kinds: []kind{
		{"pod-affinity", "worker-affinity", withoutPlugin, ""},
		{"used", "worker", withPlugin, "scored"},
	}},
	{name: "whole-node", wholeNode: true, kinds: []kind{
		{"no-plugin", "worker", withoutPlugin, ""},
		{"used", "worker", withPlugin, "scored"},
		{"pod-affinity", "worker-affinity", withoutPlugin, ""},
	}},
}

// BenchmarkScheduling measures, of each kind, pods per second, how far from
// Qdrant the pods went (true-cost-ms), and how many of them were placed by the
// ranking of one before (hints/pod). Kinds take turns within one process, every
// other round backwards, so that what disturbs the machine meets them all, and
// the pods of a burst are gone before the next comes. Run it with -benchtime
// 1x; what the harness itself prints is of the last burst alone.
func BenchmarkScheduling(b *testing.B) {
	if *nodes < 4 || *running < 0 || *rounds < 1 {
		b.Fatalf("-nodes is %d, -running %d, -rounds %d: want at least 4, 0 and 1", *nodes, *running, *rounds)
	}
	// A node has room for 40 small pods, or for one large one and ten small.
	if *running > 10**nodes || *pods < 1 || *pods > *nodes*9/10 {
		b.Fatalf("-running is %d and -pods %d: want at most %d and 1 to %d, which %d nodes have room for", *running, *pods, 10**nodes, *nodes*9/10, *nodes)
	}
	for _, suite := range suites {
		b.Run(suite.name, (&trial{suite: suite}).run)
	}
}

// trial is one run of a suite.
type trial struct {
	suite
	cluster  *cluster
	bursts   []*burst // in the order of the run
	done     int      // how many of them are over
	hints    float64  // and what the counters said then
	outcomes map[string]float64

	mu    sync.Mutex
	bound map[string][]time.Time // by namespace, in order
}

// burst is pods of a kind that come at once.
type burst struct {
	kind
	namespace string
	measured  map[string]float64 // by unit
}

func (t *trial) run(b *testing.B) {
	directory := b.TempDir()
	recording, profiles, configuration := filepath.Join(directory, "matrix.jsonl"), filepath.Join(directory, "scheduler.yaml"), filepath.Join(directory, "workload.yaml")
	t.cluster = newCluster(*nodes)
	workload, err := t.workload(directory, profiles)
	if err := errors.Join(
		err,
		t.cluster.record(recording),
		writeProfiles(profiles, recording),
		os.WriteFile(configuration, []byte(workload), 0o644),
		flag.Set("data-items-dir", directory),
	); err != nil {
		b.Fatal(err)
	}
	t.cluster.network.RTT = nil // half of the heap by now
	perf.RunBenchmarkPerfScheduling(b, configuration, "netlatency",
		frameworkruntime.Registry{netlatency.Name: netlatency.New(), nothingName: newNothing},
		perf.WithPrepareFn(func(ctx ktesting.TContext) error {
			if err := t.cluster.create(ctx, ctx.Client(), *running); err != nil {
				return err
			}
			if err := t.watch(ctx, ctx.Client()); err != nil {
				return err
			}
			return untilKnown(ctx, len(t.cluster.qdrant))
		}),
		perf.WithNodeUpdateFn(func(ctx ktesting.TContext, _ *scheduler.Scheduler, _ *perf.Workload, _ *corev1.NodeList) error {
			return t.burstIsOver(ctx)
		}),
	)
	if b.Failed() {
		return
	}
	if err := t.report(); err != nil {
		b.Fatal(err)
	}
}

// workload is the suite as the harness reads it; the pods' templates go into
// directory. It leaves batching off where a workload does not ask for it. The
// step that creates no node is there for its hook, which comes while the pods
// of the burst still exist.
func (t *trial) workload(directory, profiles string) (string, error) {
	var text strings.Builder
	fmt.Fprintf(&text, `
- name: %dnodes
  schedulerConfigPath: %s
  featureGates: {OpportunisticBatching: true}
  metricsCollectorConfig:
    metrics:
      scheduler_scheduling_attempt_duration_seconds: [{label: result, values: [scheduled]}]
  workloadTemplate:
`, *nodes, profiles)
	order := slices.Clone(t.kinds)
	for round := range *rounds + 1 { // one to warm up
		for _, k := range order {
			u := &burst{kind: k, namespace: fmt.Sprintf("%s-%d", k.name, round)}
			template := filepath.Join(directory, u.name+".yaml")
			if err := k.writeTemplate(template, t.wholeNode); err != nil {
				return "", err
			}
			t.bursts = append(t.bursts, u)
			fmt.Fprintf(&text, "  - {opcode: createPods, count: %d, namespace: %s, podTemplatePath: %s, collectMetrics: true}\n", *pods, u.namespace, template)
			fmt.Fprintf(&text, "  - {opcode: createNodes, count: 0}\n")
			fmt.Fprintf(&text, "  - {opcode: deletePods, namespace: %s}\n", u.namespace)
		}
		slices.Reverse(order)
	}
	fmt.Fprintf(&text, "  workloads:\n  - {name: %dpods, labels: [performance]}\n", *running)
	return text.String(), nil
}

func (k kind) writeTemplate(path string, wholeNode bool) error {
	data, err := os.ReadFile(filepath.Join("testdata", k.pod+".yaml"))
	if err != nil {
		return err
	}
	var pod corev1.Pod
	if err := yaml.UnmarshalStrict(data, &pod); err != nil {
		return fmt.Errorf("read the template of %s: %w", k.pod, err)
	}
	pod.Spec.SchedulerName = k.profile
	pod.Spec.TerminationGracePeriodSeconds = new(int64(0)) // there is no kubelet to wait for
	if wholeNode {
		pod.Spec.Containers[0].Resources.Requests = corev1.ResourceList{
			corev1.ResourceCPU:    resource.MustParse("2500m"),
			corev1.ResourceMemory: resource.MustParse("20Gi"),
		}
	}
	data, err = yaml.Marshal(pod)
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}

// untilKnown waits for the plugin to have read the matrix and found Qdrant.
func untilKnown(ctx ktesting.TContext, targets int) error {
	const wait = 2 * time.Minute
	for deadline := time.Now().Add(wait); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		pairs, err := counters("netlatency_matrix_pairs", "profile", withPlugin)
		if err != nil {
			return err
		}
		found, err := counters("netlatency_target_nodes", "target", withPlugin)
		if err != nil {
			return err
		}
		if pairs[withPlugin] > 0 && int(found[qdrant]) == targets {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return fmt.Errorf("the plugin did not know the matrix and %d nodes of Qdrant within %v", targets, wait)
}

// burstIsOver measures what the harness does not, and fails where the plugin
// did something else than the kind is to show.
func (t *trial) burstIsOver(ctx ktesting.TContext) error {
	u := t.bursts[t.done]
	t.done++
	placed, err := ctx.Client().CoreV1().Pods(u.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list the pods: %w", err)
	}
	cost, err := t.cluster.costOf(placed.Items)
	if err != nil {
		return err
	}
	hints, err := counters("scheduler_batch_attempts_total", "result", withPlugin, withoutPlugin)
	if err != nil {
		return err
	}
	outcomes, err := counters("netlatency_scorings_total", "outcome", withPlugin)
	if err != nil {
		return err
	}
	t.mu.Lock()
	bound := t.bound[u.namespace]
	t.mu.Unlock()
	if len(bound) < 2 {
		return fmt.Errorf("%d pods of the burst %s were seen to be bound, want at least 2", len(bound), u.namespace)
	}
	u.measured = map[string]float64{
		"pods/s":       float64(len(bound)-1) / bound[len(bound)-1].Sub(bound[0]).Seconds(),
		"true-cost-ms": 1e3 * cost,
		"hints/pod":    (hints["hint_used"] - t.hints) / float64(len(placed.Items)),
	}
	for outcome, cycles := range outcomes {
		if came := cycles > t.outcomes[outcome]; came != (outcome == u.outcome) {
			return fmt.Errorf("cycles by outcome were %v before the burst %s and are %v: want some more of %q and of nothing else", t.outcomes, u.namespace, outcomes, u.outcome)
		}
	}
	t.hints, t.outcomes = hints["hint_used"], outcomes
	return nil
}

// watch notes when pods are bound, until ctx ends. The harness counts them once
// a second: a burst of two or three seconds it knows to a third, and of a
// shorter one nothing.
func (t *trial) watch(ctx context.Context, client kubernetes.Interface) error {
	t.bound = make(map[string][]time.Time)
	factory := informers.NewSharedInformerFactory(client, 0)
	informer := factory.Core().V1().Pods().Informer()
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{UpdateFunc: func(before, after any) {
		was, ok1 := before.(*corev1.Pod)
		is, ok2 := after.(*corev1.Pod)
		if !ok1 || !ok2 || was.Spec.NodeName != "" || is.Spec.NodeName == "" {
			return
		}
		now := time.Now()
		t.mu.Lock()
		defer t.mu.Unlock()
		t.bound[is.Namespace] = append(t.bound[is.Namespace], now)
	}}); err != nil {
		return err
	}
	factory.StartWithContext(ctx)
	factory.WaitForCacheSyncWithContext(ctx)
	return nil
}

// report appends what was measured after the first round to -results.
func (t *trial) report() error {
	var text strings.Builder
	for _, u := range t.bursts[len(t.kinds):] {
		fmt.Fprintf(&text, "BenchmarkScheduling/%s/%s/%dnodes/%dpods \t1", t.name, u.name, *nodes, *running)
		for _, unit := range slices.Sorted(maps.Keys(u.measured)) {
			fmt.Fprintf(&text, "\t%.4g %s", u.measured[unit], unit)
		}
		text.WriteString("\n")
	}
	if *results == "" {
		fmt.Print(text.String())
		return nil
	}
	f, err := os.OpenFile(*results, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text.String())
	return errors.Join(err, f.Close())
}

// counters is a counter or gauge of profiles, added up by the value of a label.
func counters(name, label string, profiles ...string) (map[string]float64, error) {
	families, err := legacyregistry.DefaultGatherer.Gather()
	if err != nil {
		return nil, fmt.Errorf("gather metrics: %w", err)
	}
	values := make(map[string]float64)
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, metric := range family.GetMetric() {
			labels := make(map[string]string)
			for _, pair := range metric.GetLabel() {
				labels[pair.GetName()] = pair.GetValue()
			}
			if slices.Contains(profiles, labels["profile"]) {
				values[labels[label]] += metric.GetCounter().GetValue() + metric.GetGauge().GetValue()
			}
		}
	}
	return values, nil
}
