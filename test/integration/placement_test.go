package integration

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubescheduler "k8s.io/kubernetes/pkg/scheduler"
	"k8s.io/kubernetes/pkg/scheduler/framework"

	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/source"
	"github.com/netlatency/netlatency/test/sandbox"
	"github.com/netlatency/netlatency/test/sandbox/cluster"
)

// Placement in a cluster whose latencies are a recording: what other schedulers
// and preemption have to do with it, and whether it repeats.
func TestPlacement(t *testing.T) {
	p := startPlacement(t)
	t.Run("the same events give the same places", p.repeats)
	t.Run("preemption keeps to limits", p.preemptsWithinLimits)
	t.Run("each placement is explained", p.isExplained)
	t.Run("each scheduler sees what the other has placed", p.isBesideAnother)
}

const (
	placementNodes = 24
	placementSpace = "placement"
	// The nodes that targets may run on; nothing else fits there.
	stores = 2
)

// placementTest is a cluster of nodes with room for one worker each, and
// stores.
type placementTest struct {
	*cluster.Cluster
	dir string
}

func startPlacement(t *testing.T) *placementTest {
	t.Helper()
	var nodes []cluster.NodeSpec
	for i := range placementNodes + stores {
		room := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1"), corev1.ResourceMemory: resource.MustParse("4Gi")}
		spec := cluster.NodeSpec{Name: nodeName(i), Allocatable: room, InternalIP: netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})}
		if i >= placementNodes {
			spec.Taints = []corev1.Taint{{Key: "store", Effect: corev1.TaintEffectNoSchedule}}
		}
		nodes = append(nodes, spec)
	}
	return startPlacementOn(t, cluster.Options{Nodes: nodes})
}

// startPlacementOn starts a cluster of nodes that nobody runs.
func startPlacementOn(t *testing.T, options cluster.Options) *placementTest {
	t.Helper()
	p := &placementTest{dir: t.TempDir()}
	options.Dir, options.BinDir = filepath.Join(p.dir, "cluster"), os.Getenv(variableBinDir)
	var err error
	if p.Cluster, err = cluster.Start(t.Context(), options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	if err := p.CreateNamespace(t.Context(), placementSpace, nil); err != nil {
		t.Fatal(err)
	}
	return p
}

func nodeName(i int) string {
	if i >= placementNodes {
		return fmt.Sprintf("store-%d", i-placementNodes)
	}
	return fmt.Sprintf("node-%02d", i)
}

// rttOf is from a node to a store: each node is a quarter farther than the one
// before, in an order of its own for each store, so that no two are equally
// near.
func rttOf(i, store int) time.Duration {
	rank := i
	if store == 1 {
		rank = (7*i + 5) % placementNodes
	}
	rtt := 100 * time.Microsecond
	for range rank {
		rtt += rtt / 4
	}
	return rtt
}

// record writes the latencies to both stores, of the network as it is at first
// or reversed.
func (p *placementTest) record(t *testing.T, reversed bool) (pairs int) {
	t.Helper()
	rtts := make(map[latency.Pair]time.Duration)
	for i := range placementNodes {
		at := i
		if reversed {
			at = placementNodes - 1 - i
		}
		for store := range stores {
			rtts[latency.Pair{Node: nodeName(i), Peer: nodeName(placementNodes + store)}] = rttOf(at, store)
		}
	}
	if reversed { // so that it can be seen when this is what the scheduler knows
		rtts[latency.Pair{Node: nodeName(placementNodes), Peer: nodeName(placementNodes + 1)}] = time.Millisecond
	}
	p.recordRTTs(t, rtts)
	return len(rtts)
}

// recordRTTs writes what a scheduler reads as measured.
func (p *placementTest) recordRTTs(t *testing.T, rtts map[latency.Pair]time.Duration) {
	t.Helper()
	now := time.Now()
	measured := make(map[latency.Pair]latency.Distribution)
	for pair, rtt := range rtts {
		measured[pair] = latency.Distribution{Mean: rtt, P50: rtt, P90: rtt, P99: rtt, Min: rtt, Samples: 1000, Sent: 1000, Newest: now}
	}
	path := p.recording()
	f, err := os.Create(path + ".new")
	if err != nil {
		t.Fatal(err)
	}
	if err := source.Record(f, latency.NewMatrix(now, measured), nil, "test", now); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// plainProfile is one that our scheduler serves besides, without the plugin.
const plainProfile = "plain"

// scheduler is a process of ours that serves a profile.
type scheduler struct {
	profile string
	url     string
}

// schedule runs the scheduler with the recorded matrix until the test ends, or
// stop is called. Nothing but latency tells nodes apart.
func (p *placementTest) schedule(t *testing.T, parallelism int) (s *scheduler, stop func()) {
	t.Helper()
	return p.scheduleBy(t, fmt.Sprintf(`
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
parallelism: %d
percentageOfNodesToScore: 100
leaderElection: {leaderElect: false}
clientConnection: {kubeconfig: %q}
profiles:
- schedulerName: %s
  plugins:
    multiPoint:
      enabled: [{name: NetLatency, weight: 100}]
    bind:
      enabled: [{name: NetLatency}]
  pluginConfig:
  - name: NetLatency
    args:
      source: {file: {path: %q, interval: 1s}}
      targetSlices: {namespace: ""}
      band: {ratio: 0, floor: 0s}
      annotatePlacement: true
      targets:
      - name: qdrant
        pods: {labelSelector: {matchLabels: {app: qdrant}}}
- schedulerName: `+plainProfile+`
`, parallelism, p.kubeconfig(), sandbox.SchedulerName, p.recording()))
}

func (p *placementTest) kubeconfig() string { return filepath.Join(p.dir, "kubeconfig") }
func (p *placementTest) recording() string  { return filepath.Join(p.dir, "matrix.jsonl") }

// scheduleBy runs the scheduler as configuration says, with the kubeconfig that
// it names, until the test ends or stop is called.
func (p *placementTest) scheduleBy(t *testing.T, configuration string) (s *scheduler, stop func()) {
	t.Helper()
	s = &scheduler{profile: sandbox.SchedulerName}
	path := filepath.Join(p.dir, "scheduler.yaml")
	if err := errors.Join(
		p.WriteKubeconfig(p.kubeconfig(), p.URL()),
		os.WriteFile(path, []byte(configuration), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	_ = listener.Close()
	s.url = fmt.Sprintf("https://127.0.0.1:%d/metrics", port)
	log, err := os.Create(filepath.Join(p.dir, "scheduler.log"))
	if err != nil {
		t.Fatal(err)
	}
	// The port is of the tests' own network, in which nobody else listens.
	command := exec.CommandContext(t.Context(), filepath.Join(os.Getenv(variableBinDir), cluster.Scheduler.Name),
		"--config", path, "--bind-address", "127.0.0.1", "--secure-port", strconv.Itoa(port),
		"--authorization-always-allow-paths", "/metrics", "--authentication-tolerate-lookup-failure")
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		_ = command.Process.Kill()
		_ = command.Wait()
		_ = log.Close()
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("the scheduler said:\n%s", text[max(0, len(text)-10_000):])
		}
	}
	t.Cleanup(stop)
	return s, stop
}

// knows waits until the scheduler has a matrix of so many pairs and sees
// Qdrant on one node.
func (s *scheduler) knows(t *testing.T, pairs int) {
	t.Helper()
	waitFor(t.Context(), t, fmt.Sprintf("the scheduler to know %d pairs, and Qdrant on one node", pairs), func() (bool, error) {
		families, err := s.metrics(t.Context())
		if err != nil {
			return false, nil //nolint:nilerr // it has not started yet
		}
		known := sandbox.MetricValue(families, "netlatency_matrix_pairs", map[string]string{"profile": s.profile})
		nodes := sandbox.MetricValue(families, "netlatency_target_nodes", map[string]string{"profile": s.profile, "target": "qdrant"})
		return int(known) == pairs && nodes == 1, nil
	})
}

func (s *scheduler) metrics(ctx context.Context) (map[string]*dto.MetricFamily, error) {
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}} // it signs for itself
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("read the scheduler's metrics: %s", response.Status)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	return parser.TextToMetricFamilies(response.Body)
}

// runQdrant moves the only pod of Qdrant to a store.
func (p *placementTest) runQdrant(t *testing.T, store int) {
	t.Helper()
	p.runQdrantOn(t, nodeName(placementNodes+store))
}

func (p *placementTest) runQdrantOn(t *testing.T, node string) {
	t.Helper()
	pods := p.Client().CoreV1().Pods(placementSpace)
	if err := pods.DeleteCollection(t.Context(), metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}, metav1.ListOptions{LabelSelector: "app=qdrant"}); err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("qdrant-%s-%d", node, time.Now().UnixNano())
	_, err := pods.Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "qdrant"}},
		Spec: corev1.PodSpec{
			NodeName:    node,
			Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
			Containers:  []corev1.Container{{Name: "qdrant", Image: "qdrant"}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t.Context(), t, "Qdrant to run", func() (bool, error) {
		pod, err := pods.Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
		}), nil
	})
}

// pod takes more than half of a node.
func (p *placementTest) pod(t *testing.T, name, schedulerName string, change func(*corev1.Pod)) {
	t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "worker"}},
		Spec: corev1.PodSpec{
			SchedulerName:                 schedulerName,
			TerminationGracePeriodSeconds: new(int64(0)),
			Containers: []corev1.Container{{
				Name: "worker", Image: "worker",
				Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("600m")}},
			}},
		},
	}
	if change != nil {
		change(pod)
	}
	if _, err := p.Client().CoreV1().Pods(placementSpace).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// placed is where the workers are, "" for those that are nowhere yet.
func (p *placementTest) placed(t *testing.T) map[string]string {
	t.Helper()
	pods, err := p.Client().CoreV1().Pods(placementSpace).List(t.Context(), metav1.ListOptions{LabelSelector: "app=worker"})
	if err != nil {
		t.Fatal(err)
	}
	places := make(map[string]string)
	for _, pod := range pods.Items {
		places[pod.Name] = pod.Spec.NodeName
	}
	return places
}

func (p *placementTest) waitPlaced(t *testing.T, name string) {
	t.Helper()
	waitFor(t.Context(), t, name+" to be bound", func() (bool, error) { return p.placed(t)[name] != "", nil })
}

func (p *placementTest) clear(t *testing.T) {
	t.Helper()
	if err := p.Client().CoreV1().Pods(placementSpace).DeleteCollection(t.Context(), metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}, metav1.ListOptions{LabelSelector: "app=worker"}); err != nil {
		t.Fatal(err)
	}
	waitFor(t.Context(), t, "the workers to be gone", func() (bool, error) { return len(p.placed(t)) == 0, nil })
}

// repeats plays the same events twice: pods come, Qdrant moves, pods come, the
// network changes, pods come.
func (p *placementTest) repeats(t *testing.T) {
	const each = 6
	play := func(parallelism int) map[string]string {
		t.Helper()
		pairs := p.record(t, false)
		p.runQdrant(t, 0)
		s, stop := p.schedule(t, parallelism)
		defer stop()
		defer p.clear(t)
		burst := func(stage string) {
			s.knows(t, pairs)
			for i := range each {
				name := fmt.Sprintf("%s-%d", stage, i)
				p.pod(t, name, s.profile, nil)
				p.waitPlaced(t, name)
			}
		}
		burst("first")
		p.runQdrant(t, 1)
		burst("moved")
		pairs = p.record(t, true)
		burst("changed")
		return p.placed(t)
	}
	first := play(1)
	var nearest []string
	for i := range each {
		nearest = append(nearest, first[fmt.Sprintf("first-%d", i)])
	}
	if want := []string{"node-00", "node-01", "node-02", "node-03", "node-04", "node-05"}; !slices.Equal(nearest, want) {
		t.Errorf("the first pods went to %v, want the nearest nodes %v", nearest, want)
	}
	if again := play(1); !maps.Equal(again, first) {
		t.Errorf("with parallelism 1 the places were\n%v\nand then\n%v", first, again)
	}
	// No two nodes cost the same, so equal cost is equal places.
	if again := play(16); !maps.Equal(again, first) {
		t.Errorf("with parallelism 16 the places were\n%v, want\n%v", again, first)
	}
}

// preemptsWithinLimits has a full cluster, and a pod of a higher priority that
// must be near: it may evict pods of nodes within its limit only, and none when
// no node is.
func (p *placementTest) preemptsWithinLimits(t *testing.T) {
	pairs := p.record(t, false)
	p.runQdrant(t, 0)
	s, _ := p.schedule(t, 16)
	s.knows(t, pairs)
	defer p.clear(t)
	if _, err := p.Client().SchedulingV1().PriorityClasses().Create(t.Context(), &schedulingv1.PriorityClass{
		ObjectMeta: metav1.ObjectMeta{Name: "urgent"}, Value: 1000,
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for i := range placementNodes {
		p.pod(t, fmt.Sprintf("low-%02d", i), "", func(pod *corev1.Pod) { pod.Spec.NodeName = nodeName(i) })
	}
	urgent := func(near string) func(*corev1.Pod) {
		return func(pod *corev1.Pod) {
			pod.Spec.PriorityClassName = "urgent"
			pod.Annotations = map[string]string{"netlatency.io/near": near}
		}
	}
	waitFor(t.Context(), t, "the scheduler to have seen the cluster full", func() (bool, error) {
		pods, err := p.Client().CoreV1().Pods(placementSpace).List(t.Context(), metav1.ListOptions{LabelSelector: "app=worker", FieldSelector: "status.phase=Running"})
		return err == nil && len(pods.Items) == placementNodes, err
	})

	p.pod(t, "never", s.profile, urgent("qdrant maxRTT=50us"))
	waitFor(t.Context(), t, "a pod that no node is near enough for to be told why", func() (bool, error) {
		pod, err := p.Client().CoreV1().Pods(placementSpace).Get(t.Context(), "never", metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodScheduled && strings.Contains(c.Message, "node(s) beyond maxRTT 50µs of target qdrant")
		}), nil
	})
	if left := len(p.placed(t)); left != placementNodes+1 {
		t.Errorf("%d pods are left of %d: some were evicted for a pod that they do not stand in the way of", left, placementNodes+1)
	}

	const urgents = 3 // as many nodes are within 180 µs: 110, 137 and 172, each with its tail
	for i := range urgents {
		p.pod(t, fmt.Sprintf("urgent-%d", i), s.profile, urgent("qdrant maxRTT=180us"))
	}
	for i := range urgents {
		p.waitPlaced(t, fmt.Sprintf("urgent-%d", i))
	}
	places := p.placed(t)
	for i := range urgents {
		if node := places[fmt.Sprintf("urgent-%d", i)]; !slices.Contains([]string{"node-00", "node-01", "node-02"}, node) {
			t.Errorf("urgent-%d is on %s, beyond its limit", i, node)
		}
	}
	for i := range placementNodes {
		if _, left := places[fmt.Sprintf("low-%02d", i)]; left != (i >= urgents) {
			t.Errorf("the pod on %s is left: %t, want those within the limit evicted, and no others", nodeName(i), left)
		}
	}
}

// isBesideAnother has the default scheduler and ours fill the same nodes in
// turn, with more pods than there is room for: each must see what the other has
// placed. Nothing leaves, so what is there at the end is the most that ever was.
func (p *placementTest) isBesideAnother(t *testing.T) {
	pairs := p.record(t, false)
	p.runQdrant(t, 0)
	s, _ := p.schedule(t, 16)
	s.knows(t, pairs)
	defer p.clear(t)
	const more = 4
	for i := range placementNodes + more {
		name, profile := fmt.Sprintf("beside-%02d", i), s.profile
		if i%2 == 0 {
			profile = corev1.DefaultSchedulerName
		}
		p.pod(t, name, profile, nil)
		if i < placementNodes {
			p.waitPlaced(t, name)
			continue
		}
		waitFor(t.Context(), t, name+" to be told that there is no room", func() (bool, error) {
			pod, err := p.Client().CoreV1().Pods(placementSpace).Get(t.Context(), name, metav1.GetOptions{})
			if err != nil {
				return false, err
			}
			return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
				return c.Type == corev1.PodScheduled && strings.Contains(c.Message, "Insufficient cpu")
			}), nil
		})
	}
	if waiting := p.waiting(t); waiting != more {
		t.Errorf("%d pods wait, want the %d that there is no room for", waiting, more)
	}
	if twice := p.twice(t); len(twice) > 0 {
		t.Errorf("nodes with room for one pod have more: %v", twice)
	}

	// What nobody can promise: schedulers that decide at the same moment know
	// nothing of each other, and the API server takes both bindings. A kubelet
	// refuses the second.
	p.clear(t)
	p.rush(t, s.profile, corev1.DefaultSchedulerName)
	twice := p.twice(t)
	t.Logf("when pods came at once to two schedulers, %d of %d nodes were promised twice", len(twice), placementNodes)
	for _, node := range twice {
		admitted, refused, by := p.admitted(t, node)
		if len(by) < 2 {
			t.Errorf("%s was promised twice by %v alone", node, by)
		}
		if admitted != 1 || refused == 0 {
			t.Errorf("a kubelet on %s would admit %d pods and refuse %d, want one and the rest", node, admitted, refused)
		}
	}
	// Profiles of one scheduler know of each other.
	p.clear(t)
	p.rush(t, s.profile, plainProfile)
	if twice := p.twice(t); len(twice) > 0 {
		t.Errorf("nodes with room for one pod were promised twice by profiles of one scheduler: %v", twice)
	}
}

// rush has as many pods as three clusters of this size have room for come at
// once, to profiles in turn, until the nodes are full.
func (p *placementTest) rush(t *testing.T, profiles ...string) {
	t.Helper()
	const pods = 3 * placementNodes
	for i := range pods {
		p.pod(t, fmt.Sprintf("rush-%02d", i), profiles[i%len(profiles)], nil)
	}
	waitFor(t.Context(), t, "the nodes to be full", func() (bool, error) { return pods-p.waiting(t) >= placementNodes, nil })
	sleep(t.Context(), t, 2*time.Second) // for who is late to promise once more
}

// admitted asks a kubelet's own check which of the workers on a node it would
// let in, in the order in which they were made, and by which schedulers they
// came.
func (p *placementTest) admitted(t *testing.T, name string) (admitted, refused int, by map[string]bool) {
	t.Helper()
	node, err := p.Client().CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pods, err := p.Client().CoreV1().Pods(placementSpace).List(t.Context(), metav1.ListOptions{LabelSelector: "app=worker", FieldSelector: "spec.nodeName=" + name})
	if err != nil {
		t.Fatal(err)
	}
	info := framework.NewNodeInfo()
	info.SetNode(node)
	by = make(map[string]bool)
	for i := range pods.Items {
		pod := &pods.Items[i]
		by[pod.Spec.SchedulerName] = true
		if len(kubescheduler.AdmissionCheck(pod, info, true)) > 0 {
			refused++
			continue
		}
		admitted++
		info.AddPod(pod)
	}
	return admitted, refused, by
}

// waiting is how many workers are nowhere.
func (p *placementTest) waiting(t *testing.T) (n int) {
	t.Helper()
	for _, node := range p.placed(t) {
		if node == "" {
			n++
		}
	}
	return n
}

// twice is the nodes that have more than one worker.
func (p *placementTest) twice(t *testing.T) (nodes []string) {
	t.Helper()
	count := make(map[string]int)
	for _, node := range p.placed(t) {
		if count[node]++; node != "" && count[node] == 2 {
			nodes = append(nodes, node)
		}
	}
	return nodes
}
