package integration

import (
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/netlatency/netlatency/test/sandbox"
)

// kubeconfigOf is a file that leads to the sandbox's cluster.
func kubeconfigOf(t *testing.T, s *sandbox.Sandbox) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := s.Cluster.WriteKubeconfig(path, s.Cluster.URL()); err != nil {
		t.Fatal(err)
	}
	return path
}

// doctorSays checks that doctor has such a finding, with a remedy.
func doctorSays(t *testing.T, s *sandbox.Sandbox, level, check, what string) {
	t.Helper()
	text, _ := tryKubectlNetlatency(t, "doctor", "-o", "json", "--kubeconfig", kubeconfigOf(t, s))
	var report struct {
		Findings []struct{ Check, Level, What, Remedy string }
	}
	if err := json.Unmarshal([]byte(text), &report); err != nil {
		t.Fatal(err)
	}
	for _, f := range report.Findings {
		if f.Check == check && f.Level == level && strings.Contains(f.What, what) && f.Remedy != "" {
			return
		}
	}
	t.Errorf("doctor found %+v, want %s of %s: %s, with a remedy", report.Findings, level, check, what)
}

// doctorFindsWhatIsWrong has a cluster in which all is well, and then one whose
// scheduler has lost its role. The faults that one can make in objects alone
// are in pkg/cli; those of the network are where the network is disturbed.
func doctorFindsWhatIsWrong(ctx context.Context, t *testing.T, s *sandbox.Sandbox) {
	t.Helper()
	text, code := tryKubectlNetlatency(t, "doctor", "--kubeconfig", kubeconfigOf(t, s))
	t.Log("\n" + text)
	if code != 0 {
		t.Error("doctor finds faults in a cluster in which all is well")
	}
	bindings := s.Cluster.Client().RbacV1().ClusterRoleBindings()
	name := sandbox.SchedulerName + ":kube-scheduler"
	binding, err := bindings.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := bindings.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	doctorSays(t, s, "fault", "permissions", "may not watch pods")
	binding.ResourceVersion = ""
	if _, err := bindings.Create(ctx, binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}
