package integration

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/netlatency/netlatency/test/sandbox"
)

// How the chart's parts run, and what becomes of pods when parts fail: one
// cluster for all, in the order below.
func TestOperation(t *testing.T) {
	s := start(t, "metro.yaml", nil)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	values := s.Values()
	args := values["scheduler"].(map[string]any)["args"].(map[string]any)
	args["staleAfter"] = "15s" // so that the test of dead agents does not wait long
	values["admissionPolicy"] = map[string]any{"enabled": true}
	if err := s.InstallChart(ctx, values); err != nil {
		t.Fatal(err)
	}
	if _, err := s.StartQdrant(ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.Cluster.CreateNamespace(ctx, sandbox.WorkerNamespace, nil); err != nil {
		t.Fatal(err)
	}
	pairs := len(s.Nodes) * (len(s.Nodes) - 1)
	if err := s.SchedulersKnow(ctx, 2, pairs); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		run  func(context.Context, *testing.T, *sandbox.Sandbox)
	}{
		{"agents have no privileges", agentsHaveNoPrivileges},
		{"the namespace refuses what is not restricted", namespaceRefusesUnrestricted},
		{"service accounts may do what they must and no more", accountsMayDoWhatTheyMust},
		{"doctor finds what is wrong", doctorFindsWhatIsWrong},
		{"chosen pods are given the scheduler", chosenPodsAreGivenTheScheduler},
		{"Prometheus knows what the agents know", prometheusKnowsWhatAgentsKnow},
		{"blocked methods are replaced by the next", blockedMethodsAreReplaced},
		{"duplicates, disorder and a spoofing host change no latency", noiseOfTheNetworkChangesNothing},
		{"a killed leader is replaced and waiting pods are bound", killedLeaderIsReplaced},
		{"the series of a node end with it", seriesOfANodeEndWithIt},
		{"without agents pods are bound and told why", withoutAgentsPodsAreBound},
		{"nothing is left of what agents were told", nothingIsLeftOfWhatAgentsWereTold},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(ctx, t, s) })
	}
}

func agentsHaveNoPrivileges(ctx context.Context, t *testing.T, s *sandbox.Sandbox) {
	t.Helper()
	pods, err := s.Cluster.Client().CoreV1().Pods(sandbox.Namespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=agent"})
	if err != nil {
		t.Fatal(err)
	}
	if len(pods.Items) != len(s.Nodes) {
		t.Errorf("%d agents on %d nodes", len(pods.Items), len(s.Nodes))
	}
	for _, pod := range pods.Items {
		pid, err := s.Kubelet.Pid(pod.Namespace, pod.Name)
		if err != nil {
			t.Error(err)
			continue
		}
		status, err := processStatus(pid)
		if err != nil {
			t.Error(err)
			continue
		}
		for field, want := range map[string]string{
			"CapInh": "0000000000000000", "CapPrm": "0000000000000000", "CapEff": "0000000000000000",
			"CapBnd": "0000000000000000", "CapAmb": "0000000000000000", "NoNewPrivs": "1",
		} {
			if status[field] != want {
				t.Errorf("pod %s: %s is %s, want %s", pod.Name, field, status[field], want)
			}
		}
		if pod.Spec.ServiceAccountName != "netlatency-agent" {
			t.Errorf("pod %s runs as %s", pod.Name, pod.Spec.ServiceAccountName)
		}
	}
}

// processStatus is /proc/<pid>/status by field.
func processStatus(pid int) (map[string]string, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return nil, err
	}
	status := make(map[string]string)
	for line := range strings.Lines(string(data)) {
		if field, value, ok := strings.Cut(line, ":"); ok {
			status[field] = strings.TrimSpace(value)
		}
	}
	return status, nil
}

func namespaceRefusesUnrestricted(ctx context.Context, t *testing.T, s *sandbox.Sandbox) {
	t.Helper()
	pod := worker("privileged", 1)
	pod.Namespace = sandbox.Namespace
	pod.Spec.HostNetwork = true
	_, err := s.Cluster.Client().CoreV1().Pods(sandbox.Namespace).Create(ctx, pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if !apierrors.IsForbidden(err) {
		t.Errorf("a pod on the host's network: %v, want it forbidden by Pod Security", err)
	}
}

func accountsMayDoWhatTheyMust(ctx context.Context, t *testing.T, s *sandbox.Sandbox) {
	t.Helper()
	for _, test := range []struct {
		account, verb, group, resource, namespace string
		allowed                                   bool
	}{
		{"netlatency-agent", "watch", "discovery.k8s.io", "endpointslices", sandbox.Namespace, true},
		{"netlatency-agent", "watch", "discovery.k8s.io", "endpointslices", "default", false},
		{"netlatency-agent", "update", "discovery.k8s.io", "endpointslices", sandbox.Namespace, false},
		{"netlatency-agent", "list", "", "pods", sandbox.Namespace, false},
		{"netlatency-agent", "get", "", "secrets", sandbox.Namespace, false},
		{"netlatency-agent", "list", "", "nodes", "", false},
		{"netlatency-scheduler", "watch", "discovery.k8s.io", "endpointslices", sandbox.Namespace, true},
		{"netlatency-scheduler", "create", "discovery.k8s.io", "endpointslices", sandbox.Namespace, true},
		{"netlatency-scheduler", "create", "discovery.k8s.io", "endpointslices", "default", false},
		{"netlatency-scheduler", "patch", "discovery.k8s.io", "endpointslices", sandbox.Namespace, false},
		{"netlatency-scheduler", "create", "", "pods/binding", sandbox.WorkerNamespace, true},
		{"netlatency-scheduler", "watch", "", "nodes", "", true},
		{"netlatency-scheduler", "get", "", "secrets", sandbox.Namespace, false},
		{"netlatency-scheduler", "create", "", "pods", sandbox.WorkerNamespace, false},
	} {
		resourceName, subresource, _ := strings.Cut(test.resource, "/")
		review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User:   "system:serviceaccount:" + sandbox.Namespace + ":" + test.account,
			Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + sandbox.Namespace, "system:authenticated"},
			ResourceAttributes: &authorizationv1.ResourceAttributes{
				Verb: test.verb, Group: test.group, Resource: resourceName, Subresource: subresource, Namespace: test.namespace,
			},
		}}
		answer, err := s.Cluster.Client().AuthorizationV1().SubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if answer.Status.Allowed != test.allowed {
			t.Errorf("%s may %s %s in %q: %v, want %v", test.account, test.verb, test.resource, test.namespace, answer.Status.Allowed, test.allowed)
		}
	}
}

func killedLeaderIsReplaced(ctx context.Context, t *testing.T, s *sandbox.Sandbox) {
	t.Helper()
	leader := leaderPod(ctx, t, s)
	if err := s.Kubelet.Kill(sandbox.Namespace, leader); err != nil {
		t.Fatal(err)
	}
	const pods = 96
	createWorkers(ctx, t, s, "after-the-leader", pods)
	first, last := waitBound(ctx, t, s, "after-the-leader", pods)
	if replacement := leaderPod(ctx, t, s); replacement == leader {
		t.Logf("pod %s leads again: it restarted before its lease ran out", leader)
	}
	// Waiting pods go through as fast as the scheduler and its client allow.
	t.Logf("%d pods that had waited were bound within %.1f s: %.0f a second", pods, last.Sub(first).Seconds(), pods/max(last.Sub(first).Seconds(), 0.1))
	deleteWorkers(ctx, t, s, "after-the-leader")
}

// leaderPod is the name of the pod that holds the schedulers' lease.
func leaderPod(ctx context.Context, t *testing.T, s *sandbox.Sandbox) string {
	t.Helper()
	lease, err := s.Cluster.Client().CoordinationV1().Leases(sandbox.Namespace).Get(ctx, sandbox.SchedulerName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if lease.Spec.HolderIdentity == nil {
		t.Fatal("nobody holds the schedulers' lease")
	}
	// A scheduler's identity is its host name, which is its pod's, and a UUID.
	name, _, _ := strings.Cut(*lease.Spec.HolderIdentity, "_")
	return name
}

func withoutAgentsPodsAreBound(ctx context.Context, t *testing.T, s *sandbox.Sandbox) {
	t.Helper()
	if err := s.Cluster.Client().AppsV1().DaemonSets(sandbox.Namespace).Delete(ctx, "netlatency-agent", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	// What was measured counts until it is stale.
	waitFor(ctx, t, "the schedulers to hold nothing any more", func() (bool, error) {
		pods, err := s.SchedulerPods(ctx)
		if err != nil {
			return false, err
		}
		for i := range pods {
			families, err := s.SchedulerMetrics(ctx, &pods[i])
			if err != nil || sandbox.MetricValue(families, "netlatency_matrix_pairs", map[string]string{"profile": sandbox.SchedulerName}) > 0 {
				return false, err
			}
		}
		return len(pods) == 2, nil
	})
	const pods = 10
	createWorkers(ctx, t, s, "unmeasured", pods)
	waitBound(ctx, t, s, "unmeasured", pods)
	waitFor(ctx, t, "an event on every pod that says that there is no data", func() (bool, error) {
		events, err := s.Cluster.Client().EventsV1().Events(sandbox.WorkerNamespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, err
		}
		told := make(map[string]bool)
		for _, e := range events.Items {
			if e.Reason == "NetLatencyNoData" && strings.HasPrefix(e.Regarding.Name, "unmeasured-") {
				told[e.Regarding.Name] = true
			}
		}
		return len(told) == pods, nil
	})
	noData := 0.0
	ready, err := s.SchedulerPods(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for i := range ready {
		families, err := s.SchedulerMetrics(ctx, &ready[i])
		if err != nil {
			t.Fatal(err)
		}
		noData += sandbox.MetricValue(families, "netlatency_scorings_total", map[string]string{"profile": sandbox.SchedulerName, "outcome": "no_data"})
	}
	if noData < pods {
		t.Errorf("netlatency_scorings_total says no_data %v times for %d pods", noData, pods)
	}
	deleteWorkers(ctx, t, s, "unmeasured")
}

// worker is a pod with nothing of ours in it but the scheduler's name.
func worker(group string, number int) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-%d", group, number), Namespace: sandbox.WorkerNamespace, Labels: map[string]string{"group": group}},
		Spec: corev1.PodSpec{
			SchedulerName: sandbox.SchedulerName,
			Containers: []corev1.Container{{
				Name: "worker", Image: "worker",
				Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}},
			}},
		},
	}
}

func createWorkers(ctx context.Context, t *testing.T, s *sandbox.Sandbox, group string, n int) {
	t.Helper()
	for i := range n {
		if _, err := s.Cluster.Client().CoreV1().Pods(sandbox.WorkerNamespace).Create(ctx, worker(group, i), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

// waitBound waits until n pods of a group have a node, and returns when the
// first and the last were seen to have one.
func waitBound(ctx context.Context, t *testing.T, s *sandbox.Sandbox, group string, n int) (first, last time.Time) {
	t.Helper()
	seen := 0
	waitFor(ctx, t, fmt.Sprintf("%d pods %s to be bound", n, group), func() (bool, error) {
		pods, err := s.Cluster.Client().CoreV1().Pods(sandbox.WorkerNamespace).List(ctx, metav1.ListOptions{LabelSelector: "group=" + group})
		if err != nil {
			return false, err
		}
		nodes := make(map[string]int)
		bound := 0
		for _, p := range pods.Items {
			if p.Spec.NodeName != "" {
				nodes[p.Spec.NodeName]++
				bound++
			}
		}
		if bound > 0 && seen == 0 {
			first = time.Now()
		}
		if bound > seen {
			last = time.Now()
		}
		seen = bound
		if bound == n {
			t.Logf("%s: %v", group, nodes)
		}
		return bound == n, nil
	})
	return first, last
}

func deleteWorkers(ctx context.Context, t *testing.T, s *sandbox.Sandbox, group string) {
	t.Helper()
	err := s.Cluster.Client().CoreV1().Pods(sandbox.WorkerNamespace).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "group=" + group})
	if err != nil {
		t.Fatal(err)
	}
}

// waitFor polls until done says so, at most two minutes.
func waitFor(ctx context.Context, t *testing.T, what string, done func() (bool, error)) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		ok, err := done()
		if ok {
			return
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			t.Fatalf("waited for %s: %v", what, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}
