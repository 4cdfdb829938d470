package integration

import (
	"context"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/version"

	"github.com/netlatency/netlatency/test/sandbox"
	"github.com/netlatency/netlatency/test/sandbox/cluster"
)

// variableSkew has TestVersionSkew run, which costs the build of a control plane
// for each version: it is one of cluster.OtherKubernetes, or "all".
const variableSkew = "NETLATENCY_TEST_SKEW"

func skewedVersions() []string {
	switch v := os.Getenv(variableSkew); v {
	case "":
		return nil
	case "all":
		return cluster.OtherKubernetes
	default:
		return []string{v}
	}
}

// The example RayService, burst in clusters of other versions than the one our
// scheduler is built of. In older ones that is once with the version emulated,
// as we advise, and once without, as the chart comes.
func TestVersionSkew(t *testing.T) {
	versions := skewedVersions()
	if len(versions) == 0 {
		t.Skip("builds other versions of Kubernetes; make test-skew runs it")
	}
	for _, kubernetes := range versions {
		emulated := []string{""}
		if version.MustParse(kubernetes).LessThan(version.MustParse("1.36")) {
			emulated = []string{kubernetes, ""}
		}
		for _, emulatedVersion := range emulated {
			name := kubernetes
			if emulatedVersion != "" {
				name += " emulated"
			}
			t.Run(name, func(t *testing.T) { burstOnOtherKubernetes(t, kubernetes, emulatedVersion) })
		}
	}
}

func burstOnOtherKubernetes(t *testing.T, kubernetes, emulatedVersion string) {
	t.Helper()
	s := startOn(t, kubernetes, "metro.yaml", nil)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	server, err := s.Cluster.Client().Discovery().ServerVersion()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(server.GitVersion, "v"+kubernetes+".") {
		t.Fatalf("the API server is of %s", server.GitVersion)
	}
	values := s.Values()
	values["scheduler"].(map[string]any)["emulatedVersion"] = emulatedVersion
	if err := s.InstallChart(ctx, values); err != nil {
		t.Fatal(err)
	}
	if _, err := s.StartQdrant(ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.SchedulersKnow(ctx, 2, len(s.Nodes)*(len(s.Nodes)-1)); err != nil {
		t.Fatal(err)
	}

	service, err := cluster.ReadRayService(s.Path("manifests", "examples", "rayservice.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Cluster.ApplyRayService(ctx, service); err != nil {
		t.Fatal(err)
	}
	if err := s.Cluster.WaitRayServiceRunning(ctx, service.Key()); err != nil {
		t.Fatal(err)
	}
	if err := s.Cluster.ScaleRayService(ctx, service.Key(), s.Scenario.Burst.To); err != nil {
		t.Fatal(err)
	}
	workers, err := s.Cluster.WaitWorkersBound(ctx, service.Key(), s.Scenario.Burst.To)
	if err != nil {
		t.Fatal(err)
	}
	nodes := make(map[string]int)
	for _, w := range workers {
		nodes[w.Spec.NodeName]++
	}
	t.Logf("Kubernetes %s, emulated %q: %d workers bound: %v", server.GitVersion, emulatedVersion, len(workers), nodes)
	for _, n := range s.Scenario.NodeList() {
		// At first the nodes of Hetzner are nearest, and there is room for all.
		if n.Provider != "hetzner" && nodes[n.Name] > 0 {
			t.Errorf("%d workers are on %s", nodes[n.Name], n.Name)
		}
	}
	pods, err := s.SchedulerPods(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if len(pods) != 2 {
		t.Errorf("%d schedulers are ready, want 2", len(pods))
	}
	for i := range pods {
		emulates(ctx, t, s, &pods[i], emulatedVersion != "")
		missesNothing(t, s, &pods[i])
	}
}

// emulates checks that a scheduler is without what came with Kubernetes 1.36,
// or with it, by one such feature.
func emulates(ctx context.Context, t *testing.T, s *sandbox.Sandbox, scheduler *corev1.Pod, want bool) {
	t.Helper()
	families, err := s.SchedulerMetrics(ctx, scheduler)
	if err != nil {
		t.Fatal(err)
	}
	newest := sandbox.MetricValue(families, "kubernetes_feature_enabled", map[string]string{"name": "NodeDeclaredFeatures"})
	if got := newest == 0; got != want {
		t.Errorf("pod %s emulates an older version: %v, want %v", scheduler.Name, got, want)
	}
}

// missing is what client-go says of kinds and fields that the API server does
// not have. Of kinds it mostly says that they are forbidden: the server's own role
// system:kube-scheduler does not name them.
var missing = regexp.MustCompile(`is forbidden|could not find the requested resource|no matches for kind|no kind "|unknown field|unable to decode`)

func missesNothing(t *testing.T, s *sandbox.Sandbox, scheduler *corev1.Pod) {
	t.Helper()
	log, err := os.ReadFile(s.Kubelet.Log(scheduler.Namespace, scheduler.Name, scheduler.Spec.Containers[0].Name))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(log)) {
		if missing.MatchString(line) {
			t.Errorf("pod %s: %s", scheduler.Name, line)
		}
	}
}
