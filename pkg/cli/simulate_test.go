package cli

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const rayService = `
apiVersion: ray.io/v1
kind: RayService
metadata: {name: search, namespace: search}
spec:
  rayClusterConfig:
    headGroupSpec: {template: {spec: {containers: [{name: head}]}}}
    workerGroupSpecs:
    - groupName: workers
      replicas: 5
      template:
        spec:
          schedulerName: netlatency-scheduler
          containers: [{name: worker, resources: {requests: {cpu: "1"}}}]
---
apiVersion: v1
kind: Service
metadata: {name: search}
`

func simulated(t *testing.T, f *facts, change func(*simulateOptions)) string {
	t.Helper()
	groups, err := readGroups(strings.NewReader(rayService), "default")
	if err != nil {
		t.Fatal(err)
	}
	shared, _, out := testOptions()
	o := &simulateOptions{sceneOptions: sceneOptions{options: shared}, output: outputTable, replicas: -1}
	if change != nil {
		change(o)
	}
	if o.replicas >= 0 {
		groups[0].replicas = o.replicas
	}
	if err := o.show(t.Context(), f, groups); err != nil {
		t.Fatal(err)
	}
	return out()
}

func TestSimulateFillsTheNearestNodesFirst(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*simulateOptions)
		want   string
	}{
		{"by provider", nil, `
GROUP     PROVIDER   PODS   COST [ms]
workers   gthost        4        1.18
workers   hetzner       1        3.02

workers: 5 of 5 pods would have a place, 1.55 ms from their targets in the mean.
`},
		{"more than there is room for", func(o *simulateOptions) { o.replicas, o.output = 10, outputWide }, `
GROUP     PROVIDER    NODE   PODS   COST [ms]
workers   gthost      g-1       2        1.10
workers   gthost      g-2       2        1.26
workers   hetzner     h-1       2        3.02
workers   hetzner     h-2       2        3.30
workers   (waiting)   -         2           -

workers: 8 of 10 pods would have a place, 2.17 ms from their targets in the mean. The others would wait: 0/5 nodes are available: 1 node(s) had untolerated taint(s), 4 Insufficient cpu.
`},
		{"what if", func(o *simulateOptions) { o.changes = []string{"gthost:neuralrack=40ms"} }, `
GROUP     PROVIDER   PODS NOW   PODS THEN   COST NOW [ms]   COST THEN [ms]
workers   hetzner           1           4            3.02             3.16
workers   gthost            4           1            1.18             11.0

workers: 5 of 5 pods would have a place, 4.73 ms from their targets in the mean; now 5, 1.55 ms.
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(strings.TrimPrefix(c.want, "\n"), simulated(t, metroFacts(t), c.change)); diff != "" {
				t.Errorf("printed (-want +got):\n%s", diff)
			}
		})
	}
}

func TestGroupsOfManifests(t *testing.T) {
	groups, err := readGroups(strings.NewReader(rayService+`
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: api}
spec: {replicas: 3, template: {metadata: {labels: {app: api}}, spec: {containers: [{name: api}]}}}
---
{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one", "namespace": "x"}, "spec": {"containers": [{"name": "c"}]}}
`), "default")
	if err != nil {
		t.Fatal(err)
	}
	type group struct {
		Name, Namespace string
		Replicas        int
	}
	var got []group
	for _, g := range groups {
		got = append(got, group{g.name, g.template.Namespace, g.replicas})
	}
	if diff := cmp.Diff([]group{{"workers", "search", 5}, {"api", "default", 3}, {"one", "x", 1}}, got); diff != "" {
		t.Errorf("groups (-want +got):\n%s", diff)
	}
	pod := groups[0].pod(3)
	if pod.Name != "workers-3" || pod.Labels["ray.io/node-type"] != "worker" || pod.Labels["ray.io/group"] != "workers" || pod.Labels["ray.io/cluster"] != "search" {
		t.Errorf("a worker is %v", pod.ObjectMeta)
	}
	if groups[2].pod(0).Spec.SchedulerName != corev1.DefaultSchedulerName {
		t.Error("a pod without a schedulerName is not the default scheduler's")
	}
}

// The name of a Ray cluster that runs already is what targets with
// matchLabelKeys go by.
func TestWorkersJoinTheClusterThatRuns(t *testing.T) {
	f := metroFacts(t, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "search", Name: "search-serve-svc", Labels: map[string]string{labelRayOrigin: "search"}},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{labelRayCluster: "search-x7k2p", "ray.io/serve": "true"}},
	})
	groups, err := readGroups(strings.NewReader(rayService), "default")
	if err != nil {
		t.Fatal(err)
	}
	f.adoptCluster(t.Context(), groups)
	if got := groups[0].pod(0).Labels[labelRayCluster]; got != "search-x7k2p" {
		t.Errorf("a worker is of cluster %q, want search-x7k2p", got)
	}
}

func TestMistakesInManifestsAreNamed(t *testing.T) {
	for text, want := range map[string]string{
		"kind: Service\nmetadata: {name: a}":    "it describes no pods: want a RayService, RayCluster, RayJob, Deployment",
		"a: [":                                  "yaml",
		"kind: RayService\nmetadata: {name: s}": "RayService s: spec.rayClusterConfig.workerGroupSpecs is not set: there are no workers",
		"kind: RayCluster\nmetadata: {name: s}\nspec: {workerGroupSpecs: [{groupName: w}]}":                              "spec.workerGroupSpecs[0].template is not set",
		"kind: RayCluster\nmetadata: {name: s}\nspec: {workerGroupSpecs: [{template: {}}]}":                              "spec.workerGroupSpecs[0].groupName is not set",
		"kind: RayCluster\nmetadata: {name: s}\nspec: {workerGroupSpecs: [{groupName: w, replicas: -1, template: {}}]}":  "spec.workerGroupSpecs[0].replicas is -1: want 0 to 10000",
		"kind: RayCluster\nmetadata: {name: s}\nspec: {workerGroupSpecs: [{groupName: w, replicas: two, template: {}}]}": "replicas is two: want a whole number",
		"kind: Deployment\nmetadata: {name: d}\nspec: {template: {spec: {containers: 5}}}":                               "Deployment d: spec.template: ",
		"kind: Deployment\nmetadata: {name: d}\nspec: 7":                                                                 "Deployment d: ",
	} {
		if _, err := readGroups(strings.NewReader(text), "default"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got error %v, want one with %s", text, err, want)
		}
	}
}

func TestTheShippedExampleCanBeSimulated(t *testing.T) {
	file, err := os.Open("../../manifests/examples/rayservice.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	groups, err := readGroups(file, "default")
	if err != nil || len(groups) != 1 || groups[0].replicas != 2 {
		t.Errorf("got %v, %v", groups, err)
	}
}

func FuzzReadGroups(f *testing.F) {
	f.Add(rayService)
	f.Add("kind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: c}]}")
	f.Add(`{"kind":"Job","spec":{"parallelism":2.5,"template":{"spec":{}}}}`)
	f.Fuzz(func(t *testing.T, text string) {
		groups, err := readGroups(strings.NewReader(text), "default")
		if err != nil {
			return
		}
		for _, g := range groups {
			if g.replicas < 0 {
				t.Errorf("%d replicas", g.replicas)
			}
			g.pod(0)
		}
	})
}

func FuzzParseChange(f *testing.F) {
	f.Add("a:b=1ms")
	f.Fuzz(func(t *testing.T, text string) {
		if c, err := parseChange(text); err == nil && (c.rtt <= 0 || c.from == "" || c.to == "") {
			t.Errorf("%q became %+v", text, c)
		}
	})
}
