package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/netlatency/netlatency/pkg/cli"
	"github.com/netlatency/netlatency/pkg/placement"
)

// kubectlNetlatency runs the kubectl plugin and returns what it printed.
func kubectlNetlatency(t *testing.T, args ...string) string {
	t.Helper()
	text, code := tryKubectlNetlatency(t, args...)
	if code != 0 {
		t.Fatalf("kubectl netlatency %v: exit code %d", args, code)
	}
	return text
}

// tryKubectlNetlatency is kubectlNetlatency with the exit code; what it noted is
// in the test's log.
func tryKubectlNetlatency(t *testing.T, args ...string) (text string, code int) {
	t.Helper()
	var out bytes.Buffer
	code = cli.Run(genericiooptions.IOStreams{In: &bytes.Buffer{}, Out: &out, ErrOut: t.Output()}, args)
	return out.String(), code
}

// explained is what "explain -o json" says of a pod, as far as the scheduler's
// own record has the same.
type explained struct {
	Node, Choice, Nearest string
	Recorded              placement.Record
	Nodes                 []struct {
		Node      string
		Cost      *float64                 `json:"cost_ms"`
		Targets   []placement.TargetRecord `json:"targets"`
		Score     int64
		RefusedBy string `json:"refused_by"`
	}
}

// record is the scheduler's record as it should be by what explain says.
func (e *explained) record() (r placement.Record, rightPlace bool) {
	r = placement.Record{Node: e.Node, Best: e.Nearest, Rank: 1, AgeS: e.Recorded.AgeS}
	var best int64
	for _, n := range e.Nodes {
		if n.RefusedBy == "" {
			r.Of++
			best = max(best, n.Score)
		}
		if n.Node == e.Node {
			r.CostMS, r.Targets = n.Cost, n.Targets
		}
		if n.Node == e.Nearest {
			r.BestMS = n.Cost
			if r.KeptBy = n.RefusedBy; r.KeptBy == "" {
				r.KeptBy = "scores"
			}
		}
	}
	for _, n := range e.Nodes {
		if n.Node == e.Node {
			rightPlace = n.RefusedBy == "" && n.Score == best
		}
		if n.RefusedBy == "" && n.Cost != nil && *n.Cost < *r.CostMS {
			r.Rank++
		}
	}
	if *r.CostMS == *r.BestMS {
		r.KeptBy = ""
	}
	return r, rightPlace
}

// isExplained places 200 pods one after the other and asks after each why it is
// where it is: "explain" sees the cluster as the scheduler did, the pod alone
// taken away, and must say the same as the scheduler noted on the pod.
func (p *placementTest) isExplained(t *testing.T) {
	pairs := p.record(t, false)
	p.runQdrant(t, 1)
	s, stop := p.schedule(t, 16)
	defer stop()
	defer p.clear(t)
	s.knows(t, pairs)
	const placements = 200
	kept, ranked := make(map[string]int), 0
	for i := range placements {
		name := fmt.Sprintf("explained-%03d", i)
		p.pod(t, name, s.profile, func(pod *corev1.Pod) {
			cpu := "50m"
			switch i % 10 {
			case 3: // what is nearest has no room for this any more
				cpu = "450m"
			case 5:
				pod.Annotations = map[string]string{"netlatency.io/near": "qdrant maxRTT=15ms"}
			}
			if i%2 == 0 { // may go where Qdrant is, until that is full
				pod.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
			}
			pod.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}
		})
		p.waitPlaced(t, name)
		text := kubectlNetlatency(t, "explain", name, "-n", placementSpace, "-o", "json",
			"--kubeconfig", filepath.Join(p.dir, "kubeconfig"), "--scheduler-config", filepath.Join(p.dir, "scheduler.yaml"), "--matrix", filepath.Join(p.dir, "matrix.jsonl"))
		var e explained
		if err := json.Unmarshal([]byte(text), &e); err != nil {
			t.Fatal(err)
		}
		want, rightPlace := e.record()
		if e.Recorded.Of == 0 { // nothing was scored: one node was left, or the choice was an alike pod's
			want.Rank, want.Of = 0, 0
		} else {
			ranked++
		}
		if diff := cmp.Diff(want, e.Recorded); diff != "" {
			t.Fatalf("%s: explain (-) and the scheduler's record (+) differ:\n%s", name, diff)
		}
		if !rightPlace {
			t.Errorf("%s is on %s, and explain would rather have it on %s", name, e.Node, e.Choice)
		}
		kept[e.Recorded.KeptBy]++
	}
	t.Logf("what kept pods from the nearest node: %v; %d were scored", kept, ranked)
	if len(kept) < 2 || ranked < placements/2 {
		t.Error("the test shows too little")
	}
}
