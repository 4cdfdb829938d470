package perf

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/etcdmain"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-base/metrics/legacyregistry"
	"k8s.io/kubernetes/pkg/scheduler"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	perf "k8s.io/kubernetes/test/integration/scheduler_perf"
	"k8s.io/kubernetes/test/utils/ktesting"

	"github.com/netlatency/netlatency/pkg/plugins/netlatency"
)

var (
	nodes = flag.Int("nodes", 5000, "nodes of the cluster")
	pods  = flag.Int("pods", 10000, "pods to schedule and measure")
)

// burst is how many workers come at once where a node has room for one.
const burst = 100

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
		flag.Set("data-items-dir", directory), // files that nobody reads
	); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

// workload is pods of one kind under a profile with or without the plugin.
type workload struct {
	name, pod string
	plugin    bool
	burst     bool // of so large pods that each fills a node
}

var workloads = []workload{
	{name: "no-plugin", pod: "worker"},
	{name: "unused", pod: "other", plugin: true},
	{name: "used", pod: "worker", plugin: true},
	{name: "pod-affinity", pod: "worker-affinity"},
	{name: "burst", pod: "worker-whole-node", plugin: true, burst: true},
	{name: "burst-no-plugin", pod: "worker-whole-node", burst: true},
}

// BenchmarkScheduling measures pods per second, how far from Qdrant the pods
// went (true-cost-ms), and how many of them were placed by the ranking of one
// before (hints/pod). The benchmarks' names say how large the cluster was. Run
// it with -benchtime 1x.
func BenchmarkScheduling(b *testing.B) {
	if *nodes < burst {
		b.Fatalf("-nodes is %d: want at least %d, one for each worker of a burst", *nodes, burst)
	}
	// A node has room for 40, and a tenth more come to warm up.
	if most := 36 * *nodes; *pods < 1 || *pods > most {
		b.Fatalf("-pods is %d: want 1 to %d, which so many nodes have room for", *pods, most)
	}
	for _, w := range workloads {
		b.Run(w.name, w.run)
	}
}

func (w workload) run(b *testing.B) {
	directory := b.TempDir()
	recording, profiles, configuration := filepath.Join(directory, "matrix.jsonl"), filepath.Join(directory, "scheduler.yaml"), filepath.Join(directory, "workload.yaml")
	c := newCluster(*nodes)
	if err := errors.Join(
		c.record(recording),
		writeProfiles(profiles, recording, w.plugin),
		os.WriteFile(configuration, []byte(w.configuration(profiles)), 0o644),
	); err != nil {
		b.Fatal(err)
	}
	c.network.RTT = nil // half of the heap by now
	perf.RunBenchmarkPerfScheduling(b, configuration, "netlatency",
		frameworkruntime.Registry{netlatency.Name: netlatency.New()},
		perf.WithPrepareFn(func(ctx ktesting.TContext) error {
			if err := c.create(ctx, ctx.Client()); err != nil {
				return err
			}
			if !w.plugin {
				return nil
			}
			return untilKnown(ctx, len(c.qdrant))
		}),
		perf.WithNodeUpdateFn(func(ctx ktesting.TContext, _ *scheduler.Scheduler, _ *perf.Workload, _ *corev1.NodeList) error {
			return w.report(ctx, c)
		}),
	)
}

// measured is the namespace that the harness gives the pods that it measures.
const measured = "measured"

// configuration is the workload as the harness reads it. It leaves batching
// off where a workload does not ask for it. The last step creates no node: the
// hook of that step comes while metrics and pods are still there.
func (w workload) configuration(profiles string) string {
	warmUp, count := *pods/10, *pods
	if w.burst {
		warmUp, count = 0, burst
	}
	return fmt.Sprintf(`
- name: %dnodes
  schedulerConfigPath: %s
  defaultPodTemplatePath: testdata/%s.yaml
  featureGates: {OpportunisticBatching: true}
  metricsCollectorConfig:
    metrics:
      scheduler_scheduling_attempt_duration_seconds: [{label: result, values: [scheduled]}]
  workloadTemplate:
  - {opcode: createPods, count: %d, namespace: warm-up}
  - {opcode: createPods, count: %d, namespace: %s, collectMetrics: true}
  - {opcode: createNodes, count: 0}
  workloads:
  - {name: %dpods, labels: [performance]}
`, *nodes, profiles, w.pod, warmUp, count, measured, count)
}

// untilKnown waits for the plugin to have read the matrix and found Qdrant.
func untilKnown(ctx ktesting.TContext, targets int) error {
	const wait = 2 * time.Minute
	for deadline := time.Now().Add(wait); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		pairs, err := metricBy("netlatency_matrix_pairs", "profile")
		if err != nil {
			return err
		}
		running, err := metricBy("netlatency_target_nodes", "target")
		if err != nil {
			return err
		}
		if pairs[schedulerName] > 0 && int(running["qdrant"]) == targets {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return fmt.Errorf("the plugin did not know the matrix and %d nodes of Qdrant within %v", targets, wait)
}

// report adds to the benchmark what the harness does not measure, and fails
// where the plugin did something else than the workload is to show.
func (w workload) report(ctx ktesting.TContext, c *cluster) error {
	b := ctx.TB().(*testing.B)
	placed, err := ctx.Client().CoreV1().Pods(measured).List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list the pods: %w", err)
	}
	cost, err := c.costOf(placed.Items)
	if err != nil {
		return err
	}
	b.ReportMetric(1e3*cost, "true-cost-ms")

	hints, err := metricBy("scheduler_batch_attempts_total", "result")
	if err != nil {
		return err
	}
	b.ReportMetric(hints["hint_used"]/float64(len(placed.Items)), "hints/pod")
	if !w.plugin {
		return nil
	}
	outcomes, err := metricBy("netlatency_scorings_total", "outcome")
	if err != nil {
		return err
	}
	want := "scored"
	if w.pod == "other" {
		want = "no_targets"
	}
	for outcome, cycles := range outcomes {
		if (outcome == want) != (cycles > 0) {
			return fmt.Errorf("cycles by outcome are %v: want all to be %s", outcomes, want)
		}
	}
	return nil
}

// metricBy is the counter or gauge of our profile by the value of a label.
func metricBy(name, label string) (map[string]float64, error) {
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
			if labels["profile"] == schedulerName {
				values[labels[label]] += metric.GetCounter().GetValue() + metric.GetGauge().GetValue()
			}
		}
	}
	return values, nil
}
