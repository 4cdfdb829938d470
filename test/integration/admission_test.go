package integration

import (
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/netlatency/netlatency/test/sandbox"
)

// The API server sets the scheduler of pods as KubeRay makes them, of those
// that the chart's policy chooses and no others.
func chosenPodsAreGivenTheScheduler(ctx context.Context, t *testing.T, s *sandbox.Sandbox) {
	t.Helper()
	rayPod := func(nodeType string, change func(*corev1.Pod)) *corev1.Pod {
		pod := worker("chosen", 0)
		pod.Labels["ray.io/node-type"] = nodeType
		pod.Spec.SchedulerName = ""
		if change != nil {
			change(pod)
		}
		return pod
	}
	scheduler := func(pod *corev1.Pod) (string, error) {
		made, err := s.Cluster.Client().CoreV1().Pods(pod.Namespace).Create(ctx, pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err != nil {
			return "", err
		}
		return made.Spec.SchedulerName, nil
	}
	// The API server learns of a policy as of anything else, by a watch.
	waitFor(ctx, t, "the policy to be applied", func() (bool, error) {
		got, err := scheduler(rayPod("worker", nil))
		return got == sandbox.SchedulerName, err
	})
	in := func(namespace string) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Namespace = namespace }
	}
	for _, test := range []struct {
		name, nodeType string
		change         func(*corev1.Pod)
		want           string
	}{
		{"a head", "head", nil, corev1.DefaultSchedulerName},
		{"a worker that names a scheduler", "worker", func(p *corev1.Pod) { p.Spec.SchedulerName = "volcano" }, "volcano"},
		{"a worker that lists a variable twice", "worker", func(p *corev1.Pod) {
			p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "A", Value: "2"}}
		}, sandbox.SchedulerName},
		{"a worker in another namespace", "worker", in(metav1.NamespaceDefault), sandbox.SchedulerName},
		{"a pod in kube-system", "worker", in(metav1.NamespaceSystem), corev1.DefaultSchedulerName},
	} {
		if got, err := scheduler(rayPod(test.nodeType, test.change)); got != test.want {
			t.Errorf("%s is given scheduler %q, want %q: %v", test.name, got, test.want, err)
		}
	}

	pod := rayPod("worker", nil)
	if _, err := s.Cluster.Client().CoreV1().Pods(pod.Namespace).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	waitBound(ctx, t, s, "chosen", 1)
	deleteWorkers(ctx, t, s, "chosen")
}

// What the scheduler wrote for the agents goes with their Service, as in an
// uninstallation.
func nothingIsLeftOfWhatAgentsWereTold(ctx context.Context, t *testing.T, s *sandbox.Sandbox) {
	t.Helper()
	const name = "netlatency-targets"
	client := s.Cluster.Client()
	left := func() (slices, leases int, err error) {
		list, err := client.DiscoveryV1().EndpointSlices(sandbox.Namespace).List(ctx, metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=" + name})
		if err != nil {
			return 0, 0, err
		}
		all, err := client.CoordinationV1().Leases(sandbox.Namespace).List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
		if err != nil {
			return 0, 0, err
		}
		for _, lease := range all.Items {
			leases += len(lease.OwnerReferences) // it has one from its first renewal on
		}
		return len(list.Items), leases, nil
	}
	waitFor(ctx, t, "the agents to be told", func() (bool, error) {
		slices, leases, err := left()
		return slices > 0 && leases == 1, err
	})
	// The scheduler goes at the same time.
	for _, remove := range []func() error{
		func() error {
			return client.AppsV1().Deployments(sandbox.Namespace).Delete(ctx, "netlatency-scheduler", metav1.DeleteOptions{})
		},
		func() error {
			return client.CoreV1().Services(sandbox.Namespace).Delete(ctx, "netlatency-agent", metav1.DeleteOptions{})
		},
	} {
		if err := remove(); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(ctx, t, "nothing to be left", func() (bool, error) {
		slices, leases, err := left()
		if err == nil && slices+leases > 0 {
			err = fmt.Errorf("%d slices and %d leases are", slices, leases)
		}
		return err == nil, err
	})
}
