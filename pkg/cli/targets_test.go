package cli

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/kubernetes/fake"
	st "k8s.io/kubernetes/pkg/scheduler/testing"
)

// someCluster has Qdrant on two nodes of gthost and on one of hetzner, and a
// GPU at neuralrack.
func someCluster() *cluster {
	qdrant := func(name, node string) runtime.Object {
		return st.MakePod().Namespace("search").Name(name).UID(name).Label("app", "qdrant").Node(node).
			Phase(corev1.PodRunning).Condition(corev1.PodReady, corev1.ConditionTrue, "").Obj()
	}
	node := func(name, provider string) runtime.Object {
		return st.MakeNode().Name(name).Label("netlatency.io/provider", provider).Obj()
	}
	return &cluster{namespace: "netlatency", client: fake.NewClientset(
		node("g-1", "gthost"), node("g-2", "gthost"), node("h-1", "hetzner"),
		st.MakeNode().Name("n-1").Label("netlatency.io/provider", "neuralrack").Capacity(map[corev1.ResourceName]string{"nvidia.com/gpu": "8"}).Obj(),
		qdrant("q-0", "g-1"), qdrant("q-1", "g-1"), qdrant("q-2", "g-2"), qdrant("q-3", "h-1"),
		&corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: "netlatency", Name: "netlatency-scheduler-config", Labels: map[string]string{labelName: nameOfAll, labelComponent: "scheduler"}},
			Data:       map[string]string{"scheduler-config.yaml": schedulerConfiguration},
		},
	)}
}

func showTargets(t *testing.T, output string) (out, notes string) {
	t.Helper()
	streams, _, stdout, stderr := genericiooptions.NewTestIOStreams()
	o := &targetsOptions{options: &options{IOStreams: streams, timeout: 10 * time.Second}, output: output}
	if err := o.show(t.Context(), someCluster()); err != nil {
		t.Fatal(err)
	}
	return stdout.String(), stderr.String()
}

func TestTargets(t *testing.T) {
	out, notes := showTargets(t, outputWide)
	want := strings.TrimPrefix(`
NAME      KIND      CHOOSES                                      WEIGHT   MAXRTT   REPLICAS   NODES   PROVIDERS             WHERE
qdrant    pods      app=qdrant                                        3      5ms          4       3   gthost 3, hetzner 1   g-1 (2), g-2, h-1
gpu       nodes     with nvidia.com/gpu                               1        -          1       1   neuralrack 1          n-1
head      pods      ray.io/node-type=head, same ray.io/cluster        1        -    per pod       -   -                     -
nowhere   service   search/nothing                                    1        -          0       0   -                     -
`, "\n")
	if diff := cmp.Diff(want, out); diff != "" {
		t.Errorf("printed (-want +got):\n%s", diff)
	}
	if want := "warning: target nowhere runs nowhere: "; !strings.Contains(notes, want) || strings.Contains(notes, "head") {
		t.Errorf("noted %q, want %q and nothing else", notes, want)
	}
}

func TestTargetsForPrograms(t *testing.T) {
	out, _ := showTargets(t, outputJSON)
	var got struct {
		Profile string
		Targets []targetReport
	}
	decoder := json.NewDecoder(bytes.NewReader([]byte(out)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&got); err != nil {
		t.Fatal(err)
	}
	if got.Profile != "netlatency-scheduler" || len(got.Targets) != 4 {
		t.Fatalf("got %+v", got)
	}
	want := targetReport{
		Name: "gpu", Kind: "nodes", Chooses: "with nvidia.com/gpu", Weight: 1, Aggregation: "Mean", Replicas: 1,
		Nodes: []targetOnNode{{"n-1", "neuralrack", 1}}, Providers: []providerCount{{"neuralrack", 1}},
	}
	if diff := cmp.Diff(want, got.Targets[1]); diff != "" {
		t.Errorf("the second (-want +got):\n%s", diff)
	}
}

func TestAnInstallationThatIsNotThereIsNamed(t *testing.T) {
	profiles, err := someCluster().profiles(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = profileOf(profiles, "other")
	if want := `no profile "other" with NetLatency: it has netlatency-scheduler`; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got error %v, want one with %s", err, want)
	}
	elsewhere := someCluster()
	elsewhere.namespace = "elsewhere"
	if _, err := elsewhere.profiles(t.Context()); err == nil || !strings.Contains(err.Error(), "no scheduler's configuration in namespace elsewhere") {
		t.Errorf("got error %v", err)
	}
	for text, want := range map[string]string{
		"kind: [": "yaml",
		"apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\nprofiles: [{schedulerName: x}]": "none of its profiles has NetLatency",
	} {
		if _, err := decodeProfiles([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got error %v, want one with %q", text, err, want)
		}
	}
}
