package netlatency

import (
	"fmt"
	"math/rand/v2"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	fwk "k8s.io/kube-scheduler/framework"
	st "k8s.io/kubernetes/pkg/scheduler/testing"
	tf "k8s.io/kubernetes/pkg/scheduler/testing/framework"

	"github.com/netlatency/netlatency/apis/config"
	"github.com/netlatency/netlatency/pkg/placement"
	"github.com/netlatency/netlatency/test/oracle"
)

// The whole plugin, from objects and a matrix to the framework's scores and
// refusals, against the definition. pkg/placement is held against the same
// oracle for more clusters; here are the objects, the rules, a random part of
// the nodes in a random order, and when the plugin has no opinion.
func TestThePluginAgreesWithTheDefinition(t *testing.T) {
	clusters := uint64(10_000)
	if testing.Short() {
		clusters = 500
	}
	silent, refused := uint64(0), 0
	for seed := range clusters {
		r := rand.New(rand.NewPCG(seed, 2))
		w := oracle.Generate(r)
		w.Zone = nil // with labels there are groups, and estimates from them
		for i := range w.Targets {
			w.Targets[i].Distribution = placement.ToAll // which are of Services alone
		}
		objects, args := objectsOf(w)
		c := newCluster(t, setting{args: args, objects: objects})
		c.publish(w.Matrix(c.clock.Now()))
		pod := worker()

		reasons := c.filter(pod)
		for _, node := range w.Nodes {
			want := ""
			switch target, isUnknown := w.Refusal(node); {
			case target >= 0 && isUnknown:
				want = fmt.Sprintf("node(s) with an unknown RTT to target t%d, which has maxRTT %v", target, w.Targets[target].Limit)
			case target >= 0:
				want = fmt.Sprintf("node(s) beyond maxRTT %v of target t%d", w.Targets[target].Limit, target)
			}
			if reasons[node] != want {
				t.Fatalf("cluster %d: %s is refused because of %q, want %q\n%+v", seed, node, reasons[node], want, w)
			}
		}
		refused += len(reasons)

		feasible := w.Nodes[:1+r.IntN(len(w.Nodes))]
		r.Shuffle(len(feasible), func(i, j int) { feasible[i], feasible[j] = feasible[j], feasible[i] })
		scores := c.scoreOver(c.fwk, pod, c.infosOf(feasible))
		if (scores == nil) != w.Silent(feasible) {
			t.Fatalf("cluster %d: scores of %v are %v, want some: %t\n%+v", seed, feasible, scores, !w.Silent(feasible), w)
		}
		if scores == nil {
			silent++
			continue
		}
		if wrong := w.Disagreement(feasible, scores); wrong != "" {
			t.Fatalf("cluster %d: %s\n%+v", seed, wrong, w)
		}
	}
	if silent < clusters/20 || silent > clusters/2 || refused == 0 {
		t.Errorf("of %d clusters %d leave nothing to say, and %d nodes are refused: too little was tested", clusters, silent, refused)
	}
}

// objectsOf is the cluster of w, and the arguments that name its targets.
func objectsOf(w oracle.World) ([]runtime.Object, *config.NetLatencyArgs) {
	args := newArgs()
	args.Band = config.Band{Ratio: w.Band.Ratio, Floor: metav1.Duration{Duration: w.Band.Floor}}
	var objects []runtime.Object
	for _, name := range w.Nodes {
		objects = append(objects, node(name))
	}
	for i, wanted := range w.Targets {
		name := fmt.Sprintf("t%d", i)
		target := config.Target{
			Name: name, Weight: int32(wanted.Weight), Aggregation: config.Aggregation(wanted.Aggregation),
			Pods: &config.PodsTarget{LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"target": name}}},
		}
		if wanted.Limit > 0 {
			target.MaxRTT, target.WhenUnknown = &metav1.Duration{Duration: wanted.Limit}, config.UnknownAllow
			if wanted.RejectUnknown {
				target.WhenUnknown = config.UnknownReject
			}
		}
		args.Targets = append(args.Targets, target)
		for k, on := range wanted.Replicas {
			replica := fmt.Sprintf("%s-%d", name, k)
			objects = append(objects, st.MakePod().Namespace("search").Name(replica).UID(replica).Label("target", name).Node(on).
				Phase(corev1.PodRunning).Condition(corev1.PodReady, corev1.ConditionTrue, "").Obj())
		}
	}
	return objects, args
}

// infosOf is the nodes called names as the scheduler has them, in this order.
func (c *cluster) infosOf(names []string) []fwk.NodeInfo {
	c.t.Helper()
	var nodes []*corev1.Node
	for _, name := range names {
		n, err := c.plugin.nodes.Get(name)
		if err != nil {
			c.t.Fatal(err)
		}
		nodes = append(nodes, n)
	}
	return tf.BuildNodeInfos(nodes)
}
