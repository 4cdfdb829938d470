package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/netlatency/netlatency/test/sandbox"
	"github.com/netlatency/netlatency/test/ui/browser"
)

// The page of "kubectl netlatency ui" of a whole cluster, with no more
// permissions than the documentation names.
func TestUI(t *testing.T) {
	s := start(t, "metro.yaml", nil)
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	values := s.Values()
	values["scheduler"].(map[string]any)["args"].(map[string]any)["annotatePlacement"] = true
	values["ui"] = map[string]any{"enabled": true}
	if err := s.InstallChart(ctx, values); err != nil {
		t.Fatal(err)
	}
	qdrant, err := s.StartQdrant(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Cluster.CreateNamespace(ctx, sandbox.WorkerNamespace, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.SchedulersKnow(ctx, 2, len(s.Nodes)*(len(s.Nodes)-1)); err != nil {
		t.Fatal(err)
	}
	const workers = 20
	createWorkers(ctx, t, s, "seen", workers)
	waitBound(ctx, t, s, "seen", workers)

	viewer := mayLook(ctx, t, s)
	kubeconfig := s.Path("build", "ui-kubeconfig")
	if err := s.Cluster.WriteKubeconfig(kubeconfig, s.Cluster.URL()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(kubeconfig) })
	url := browser.Serve(t, "--kubeconfig", kubeconfig, "--as", viewer, "--interval", "2s")

	p := browser.Open(t, s.Path("build", "ui"), url, 1440, 1000, false)
	p.Drawn()
	p.Until("all agents", `document.querySelector("#status").innerText === "12 of 12 agents answered"`)
	if problems := p.Text("#problems"); problems != "" {
		t.Errorf("the page tells of problems: %q", problems)
	}
	// What the network takes between these is 0.5 ms and some jitter, and on a busy
	// machine more.
	cell := `.nodes td[aria-label^="hetzner-1 to gthost-1: Latency"]`
	var ms float64
	if text := p.Text(cell); text == "" {
		t.Error("the heatmap lacks hetzner-1 to gthost-1")
	} else if _, err := fmt.Sscanf(text, "%f", &ms); err != nil || ms < 0.45 || ms > 5 {
		t.Errorf("hetzner-1 to gthost-1 is %q (%v): want a little more than 0.5 ms", text, err)
	}
	browser.Value[any](p, fmt.Sprintf("document.querySelector(%q).click()", cell))
	p.Until("the history", `document.querySelector(".details .uplot canvas")`)
	p.Until("a third point", `/\b([3-9]|\d\d) points/.test(document.querySelector(".details").innerText)`)
	p.Screenshot("sandbox-matrix")

	browser.Value[any](p, `location.hash = "nodes/hetzner-1"`)
	p.Until("a node's row", `document.querySelectorAll(".one tbody tr").length === 11`)
	p.Screenshot("sandbox-nodes")

	browser.Value[any](p, `location.hash = "targets"`)
	// The second profile of the chart has the same ones, and no pods.
	p.Until("targets", `document.querySelectorAll(".target").length === 2`)
	text := p.Text("main")
	for _, want := range append(qdrant, fmt.Sprintf("%d replicas, %d pods want to be near", len(qdrant), workers), fmt.Sprintf("3 nodes, %d pods want to be near", workers)) {
		if !strings.Contains(text, want) {
			t.Errorf("the targets lack %q: %q", want, text)
		}
	}
	p.Screenshot("sandbox-targets")

	browser.Value[any](p, `location.hash = "placements"`)
	p.Until("placements", fmt.Sprintf(`document.querySelectorAll(".placements-view tbody tr").length === %d`, workers))
	if n := browser.Value[int](p, `document.querySelectorAll(".placements-view .chip").length`); n != 2*workers {
		t.Errorf("%d targets are in the explanations of %d pods, which have two each", n, workers)
	}
	p.Screenshot("sandbox-placements")

	inTheCluster(ctx, t, s, workers)

	// An agent that hangs is asked for, and then it is not ready any more.
	pods, err := s.Cluster.Client().CoreV1().Pods(sandbox.Namespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=agent", FieldSelector: "spec.nodeName=gthost-2"})
	if err != nil || len(pods.Items) != 1 {
		t.Fatalf("%d agents on gthost-2: %v", len(pods.Items), err)
	}
	if err := s.Cluster.Client().CoreV1().Pods(sandbox.Namespace).Delete(ctx, pods.Items[0].Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	p.Until("the agent to be missed", `document.querySelector("#status").innerText !== "12 of 12 agents answered"`)
	p.Until("the agent to be back", `document.querySelector("#status").innerText === "12 of 12 agents answered"`)
	p.Quiet()
}

// inTheCluster reads the page that the chart has installed: by its own account
// it must know what the one outside knows.
func inTheCluster(ctx context.Context, t *testing.T, s *sandbox.Sandbox, workers int) {
	t.Helper()
	var overview struct {
		Problems []string
	}
	var placements struct {
		Pods []json.RawMessage `json:"placements"`
	}
	waitFor(ctx, t, "the page in the cluster to know all", func() (bool, error) {
		pods, err := s.Cluster.Client().CoreV1().Pods(sandbox.Namespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=ui"})
		if err != nil || len(pods.Items) != 1 || !slices.ContainsFunc(pods.Items[0].Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
		}) {
			return false, err
		}
		for path, into := range map[string]any{"api/overview": &overview, "api/placements": &placements} {
			text, err := s.Cluster.Client().CoreV1().Pods(sandbox.Namespace).ProxyGet("http", pods.Items[0].Name, "8080", path, nil).DoRaw(ctx)
			if err != nil {
				return false, nil //nolint:nilerr // nothing has been read yet
			}
			if err := json.Unmarshal(text, into); err != nil {
				return false, err
			}
		}
		return len(placements.Pods) == workers, nil
	})
	if len(overview.Problems) > 0 {
		t.Errorf("the page in the cluster tells of problems: %q", overview.Problems)
	}
}

// mayLook makes an account with the permissions that docs/cli.md names
// for the page, and returns its name.
func mayLook(ctx context.Context, t *testing.T, s *sandbox.Sandbox) string {
	t.Helper()
	const name = "ui-viewer"
	meta := metav1.ObjectMeta{Name: name, Namespace: sandbox.Namespace}
	read := []string{"get", "list", "watch"}
	client := s.Cluster.Client()
	_, err := client.CoreV1().ServiceAccounts(sandbox.Namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: meta}, metav1.CreateOptions{})
	if err == nil {
		_, err = client.RbacV1().ClusterRoles().Create(ctx, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"nodes", "pods", "services", "namespaces"}, Verbs: read},
			{APIGroups: []string{"events.k8s.io"}, Resources: []string{"events"}, Verbs: []string{"list"}},
		}}, metav1.CreateOptions{})
	}
	if err == nil {
		_, err = client.RbacV1().Roles(sandbox.Namespace).Create(ctx, &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"list"}},
			{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: read},
			{APIGroups: []string{""}, Resources: []string{"pods/proxy"}, Verbs: []string{"get"}},
		}}, metav1.CreateOptions{})
	}
	subjects := []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: sandbox.Namespace, Name: name}}
	if err == nil {
		_, err = client.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: name}, Subjects: subjects, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
		}, metav1.CreateOptions{})
	}
	if err == nil {
		_, err = client.RbacV1().RoleBindings(sandbox.Namespace).Create(ctx, &rbacv1.RoleBinding{
			ObjectMeta: meta, Subjects: subjects, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
		}, metav1.CreateOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	return "system:serviceaccount:" + sandbox.Namespace + ":" + name
}
