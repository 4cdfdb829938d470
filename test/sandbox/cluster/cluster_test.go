package cluster

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/netlatency/netlatency/test/sandbox/kubelet"
	"github.com/netlatency/netlatency/test/sandbox/namespace"
)

func TestMain(m *testing.M) {
	flag.Parse()
	if namespace.Outside() && !testing.Short() && !fuzzing() {
		// Modules are downloaded here: the sandbox has no way out.
		progress := func(line string) { fmt.Fprintln(os.Stderr, line) }
		if _, err := Build(context.Background(), progress, ControlPlane...); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	// A fuzzing worker talks to its coordinator through descriptors that would
	// not survive Enter, and needs no sandbox.
	if !fuzzing() {
		namespace.Enter()
	}
	os.Exit(m.Run())
}

func fuzzing() bool { return flag.Lookup("test.fuzz").Value.String() != "" }

// startTestCluster starts a cluster of n nodes that ends with the test.
func startTestCluster(t *testing.T, n int, kubeRay bool) *Cluster {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a whole cluster, which -short leaves out")
	}
	root, err := repositoryRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}

	var nodes []NodeSpec
	for i := range n {
		nodes = append(nodes, NodeSpec{
			Name:        fmt.Sprintf("node-%d", i),
			Labels:      map[string]string{corev1.LabelTopologyZone: fmt.Sprintf("zone-%d", i%3)},
			Allocatable: corev1.ResourceList{corev1.ResourceCPU: quantity("16"), corev1.ResourceMemory: quantity("64Gi"), "nvidia.com/gpu": quantity("1")},
			InternalIP:  netip.AddrFrom4([4]byte{10, 250, 0, byte(i + 1)}),
			ProviderID:  fmt.Sprintf("test://node-%d", i),
		})
	}
	started := time.Now()
	c, err := Start(t.Context(), Options{Dir: t.TempDir(), BinDir: filepath.Join(root, "build", "bin"), Nodes: nodes, KubeRay: kubeRay, Progress: logLine(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("cluster started (%.1f s)", time.Since(started).Seconds())
	t.Cleanup(c.Stop)
	logUsage(t, c, "started")
	return c
}

func logLine(t *testing.T) func(string) {
	t.Helper()
	return func(line string) { t.Log(line) }
}

func TestRayServiceBurst(t *testing.T) {
	c := startTestCluster(t, 12, true)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()

	service, err := ReadRayService("testdata/rayservice.yaml")
	if err != nil {
		t.Fatal(err)
	}
	key := types.NamespacedName{Namespace: "search", Name: "search"}
	service.Rename(key)
	if err := c.CreateNamespace(ctx, key.Namespace, nil); err != nil {
		t.Fatal(err)
	}

	started := time.Now()
	if err := c.ApplyRayService(ctx, service); err != nil {
		t.Fatal(err)
	}
	if _, err := c.WaitWorkersBound(ctx, key, 2); err != nil {
		t.Fatal(err)
	}
	t.Logf("2 workers bound (%.1f s)", time.Since(started).Seconds())
	if err := c.WaitRayServiceRunning(ctx, key); err != nil {
		t.Fatal(err)
	}
	t.Logf("RayService running (%.1f s)", time.Since(started).Seconds())

	before, err := c.Workers(ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	started = time.Now()
	if err := c.ScaleRayService(ctx, key, 96); err != nil {
		t.Fatal(err)
	}
	after, err := c.WaitWorkersBound(ctx, key, 96)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("96 workers bound (%.1f s)", time.Since(started).Seconds())
	kept := map[types.UID]bool{}
	for _, p := range after {
		kept[p.UID] = true
	}
	for _, p := range before {
		if !kept[p.UID] {
			t.Errorf("scaling replaced worker %s: a burst must add to the RayCluster that is there", p.Name)
		}
	}
	logUsage(t, c, "after the burst")

	if err := c.DeleteRayService(ctx, key); err != nil {
		t.Fatal(err)
	}
	pods, err := c.Client().CoreV1().Pods(key.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(pods.Items) != 0 {
		t.Errorf("%d pods are left after the RayService was deleted", len(pods.Items))
	}

	pids := map[string]int{}
	for _, p := range c.processes {
		pids[p.name] = p.pid
	}
	started = time.Now()
	c.Stop()
	t.Logf("stopped (%.1f s)", time.Since(started).Seconds())
	for name, pid := range pids {
		if err := syscall.Kill(pid, 0); err == nil {
			t.Errorf("%s (pid %d) is still there after Stop", name, pid)
		}
	}
}

func TestKubernetes(t *testing.T) {
	c := startTestCluster(t, 3, false)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	linked, err := goList(ctx, "", "{{.Version}}", kubernetesModule)
	if err != nil {
		t.Fatal(err)
	}

	t.Run("nodes say what their specs say", func(t *testing.T) {
		n, err := c.Client().CoreV1().Nodes().Get(ctx, "node-1", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if n.Spec.ProviderID != "test://node-1" {
			t.Errorf("providerID %q", n.Spec.ProviderID)
		}
		gpus := n.Status.Allocatable["nvidia.com/gpu"]
		if gpus.Value() != 1 {
			t.Errorf("allocatable %v", n.Status.Allocatable)
		}
		var ips []string
		for _, a := range n.Status.Addresses {
			if a.Type == corev1.NodeInternalIP {
				ips = append(ips, a.Address)
			}
		}
		if diff := cmp.Diff([]string{"10.250.0.2"}, ips); diff != "" {
			t.Errorf("InternalIPs (-want +got), kwok must not add to them:\n%s", diff)
		}
	})

	t.Run("ordinary pods run, pods of our images are left to their runner", func(t *testing.T) {
		deployment := func(name, image string) *appsv1.Deployment {
			labels := map[string]string{"app": name}
			return &appsv1.Deployment{
				ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"},
				Spec: appsv1.DeploymentSpec{
					Replicas: new(int32(6)),
					Selector: &metav1.LabelSelector{MatchLabels: labels},
					Template: corev1.PodTemplateSpec{
						ObjectMeta: metav1.ObjectMeta{Labels: labels},
						Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: image}}},
					},
				},
			}
		}
		if err := c.ApplyObjects(ctx, deployment("ours", kubelet.ImagePrefix+"agent:test"), deployment("ordinary", "nginx")); err != nil {
			t.Fatal(err)
		}
		waitPods(ctx, t, c, "app=ordinary", 6, func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodRunning })
		ours := waitPods(ctx, t, c, "app=ours", 6, func(p *corev1.Pod) bool { return p.Spec.NodeName != "" })
		for _, p := range ours {
			if p.Status.Phase != corev1.PodPending || p.Status.PodIP != "" {
				t.Errorf("kwok wrote the status of %s: %s, %s", p.Name, p.Status.Phase, p.Status.PodIP)
			}
		}
		// Ours first: when the ordinary pods are gone, ours had their chance.
		for _, app := range []string{"ours", "ordinary"} {
			if err := c.Client().AppsV1().Deployments("default").Delete(ctx, app, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		waitPods(ctx, t, c, "app=ordinary", 0, func(*corev1.Pod) bool { return false })
		// Nobody is there to end them: kwok must not.
		left := waitPods(ctx, t, c, "app=ours", 6, func(p *corev1.Pod) bool { return p.DeletionTimestamp != nil })
		if len(left) != 6 {
			t.Errorf("kwok deleted pods of ours: %d of 6 left", len(left))
		}
	})

	t.Run("a node goes down and comes back", func(t *testing.T) {
		unreachable := func() string {
			n, err := c.Client().CoreV1().Nodes().Get(ctx, "node-0", metav1.GetOptions{})
			if err != nil {
				return err.Error()
			}
			for _, taint := range n.Spec.Taints {
				if taint.Key == corev1.TaintNodeUnreachable && taint.Effect == corev1.TaintEffectNoSchedule {
					return ""
				}
			}
			return "not tainted"
		}
		if err := c.SetNodeDown(ctx, "node-0", true); err != nil {
			t.Fatal(err)
		}
		if err := c.poll(ctx, "the taint", func(context.Context) string { return unreachable() }); err != nil {
			t.Fatal(err)
		}
		if err := c.SetNodeDown(ctx, "node-0", false); err != nil {
			t.Fatal(err)
		}
		if err := c.waitNodesReady(ctx); err != nil {
			t.Fatal(err)
		}
	})

	t.Run("Pod Security restricted is enforced", func(t *testing.T) {
		if err := c.CreateNamespace(ctx, "strict", map[string]string{"pod-security.kubernetes.io/enforce": "restricted"}); err != nil {
			t.Fatal(err)
		}
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "root", Namespace: "strict"},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "nginx"}}},
		}
		_, err := c.Client().CoreV1().Pods("strict").Create(ctx, pod, metav1.CreateOptions{})
		if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "PodSecurity") {
			t.Errorf("a pod that may be root was answered with: %v", err)
		}
	})

	t.Run("a ServiceAccount has the permissions it was given and no others", func(t *testing.T) {
		token, err := c.accountToken(ctx, "default", "default")
		if err != nil {
			t.Fatal(err)
		}
		config := c.Config()
		config.BearerToken = token
		client := kubernetes.NewForConfigOrDie(config)
		_, err = client.CoreV1().ConfigMaps("kube-system").Get(ctx, "extension-apiserver-authentication", metav1.GetOptions{})
		if !apierrors.IsForbidden(err) {
			t.Errorf("without permission: %v", err)
		}
		err = c.Apply(ctx, []byte(`
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: test, namespace: kube-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: extension-apiserver-authentication-reader}
subjects: [{kind: ServiceAccount, name: default, namespace: default}]
`))
		if err != nil {
			t.Fatal(err)
		}
		allowed := func(ctx context.Context) string {
			review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
				ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: "kube-system", Verb: "get", Resource: "configmaps", Name: "extension-apiserver-authentication"},
			}}
			answer, err := client.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
			if err != nil {
				return err.Error()
			}
			if !answer.Status.Allowed {
				return answer.Status.Reason
			}
			return ""
		}
		if err := c.poll(ctx, "the permission", allowed); err != nil {
			t.Fatal(err)
		}
		published, err := client.CoreV1().ConfigMaps("kube-system").Get(ctx, "extension-apiserver-authentication", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"client-ca-file", "requestheader-client-ca-file"} {
			if published.Data[want] == "" {
				t.Errorf("extension-apiserver-authentication has no %s: a secondary scheduler cannot authenticate its callers", want)
			}
		}
	})

	t.Run("a chart is installed as Helm would", func(t *testing.T) {
		if err := c.CreateNamespace(ctx, "release", nil); err != nil {
			t.Fatal(err)
		}
		objects, err := c.InstallChart(ctx, "testdata/chart", "blue", "release", map[string]any{"greeting": "hi"}, func(o *unstructured.Unstructured) {
			o.SetLabels(map[string]string{"seen": "true"})
		})
		if err != nil {
			t.Fatal(err)
		}
		var kinds []string
		for _, o := range objects {
			kinds = append(kinds, o.GetKind())
		}
		if diff := cmp.Diff([]string{"ConfigMap", "CustomResourceDefinition", "Trip"}, kinds); diff != "" {
			t.Errorf("kinds applied (-want +got):\n%s", diff)
		}
		greeting, err := c.Client().CoreV1().ConfigMaps("release").Get(ctx, "blue", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]string{"greeting": "hi", "kubernetes": linked, "leases": "true"}
		if diff := cmp.Diff(want, greeting.Data); diff != "" {
			t.Errorf("data (-want +got):\n%s", diff)
		}
		if greeting.Labels["seen"] != "true" {
			t.Errorf("labels %v: mutate was not used", greeting.Labels)
		}
		trips := schema.GroupVersionResource{Group: "sandbox.netlatency.io", Version: "v1", Resource: "trips"}
		if _, err := c.Dynamic().Resource(trips).Namespace("release").Get(ctx, "blue", metav1.GetOptions{}); err != nil {
			t.Errorf("an object without a namespace belongs in that of the release: %v", err)
		}
	})

	t.Run("a kubeconfig works, also through a forwarded port of the loopback", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "kubeconfig")
		if err := c.WriteKubeconfig(path, fmt.Sprintf("https://127.0.0.1:%d", Port)); err != nil {
			t.Fatal(err)
		}
		config, err := clientcmd.BuildConfigFromFlags("", path)
		if err != nil {
			t.Fatal(err)
		}
		version, err := kubernetes.NewForConfigOrDie(config).Discovery().ServerVersion()
		if err != nil {
			t.Fatal(err)
		}
		if version.GitVersion != linked {
			t.Errorf("version %q", version.GitVersion)
		}
	})

	t.Run("a wait that fails says what is missing", func(t *testing.T) {
		short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		defer cancel()
		err := c.waitNamespaceUsable(short, "nowhere")
		if err == nil || !strings.Contains(err.Error(), "no ServiceAccount default") {
			t.Errorf("error %v", err)
		}
	})

	t.Run("a crash ends the cluster and quotes the log", func(t *testing.T) {
		for _, p := range c.processes {
			if p.name == "etcd" {
				if err := syscall.Kill(p.pid, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
		}
		err := c.poll(ctx, "nothing", func(context.Context) string { return "still alive" })
		if err == nil || !strings.Contains(err.Error(), "etcd ended (signal: killed)") {
			t.Errorf("a wait in progress ended with: %v", err)
		}
		if c.Err() == nil {
			t.Error("Err() is nil")
		}
	})
}

func waitPods(ctx context.Context, t *testing.T, c *Cluster, selector string, n int, ok func(*corev1.Pod) bool) []*corev1.Pod {
	t.Helper()
	var pods []*corev1.Pod
	err := watchObjects(ctx, c, "pods "+selector, c.podListWatch("default", selector), &corev1.Pod{}, func(found []*corev1.Pod) string {
		pods = sortPods(found)
		good := 0
		for _, p := range found {
			if ok(p) {
				good++
			}
		}
		if good == n && len(found) == n {
			return ""
		}
		return fmt.Sprintf("%d of %d", good, n)
	})
	if err != nil {
		t.Fatal(err)
	}
	return pods
}

// logUsage reports what each process holds and has used.
func logUsage(t *testing.T, c *Cluster, when string) {
	t.Helper()
	for _, p := range c.processes {
		var resident int
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(status)) {
			_, _ = fmt.Sscanf(line, "VmRSS: %d kB", &resident)
		}
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid))
		if err != nil {
			t.Fatal(err)
		}
		// proc_pid_stat(5): user and system time are fields 14 and 15, counted
		// from after the parenthesised name; a tick is 10 ms.
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		var user, system float64
		_, _ = fmt.Sscan(fields[11], &user)
		_, _ = fmt.Sscan(fields[12], &system)
		t.Logf("%s: %s: %d MB, %.1f s of CPU", when, p.name, resident>>10, (user+system)/100)
	}
}
