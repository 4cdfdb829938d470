package netlatency

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"github.com/netlatency/netlatency/apis/config"
	"github.com/netlatency/netlatency/apis/config/scheme"
	"github.com/netlatency/netlatency/apis/config/validation"
	"github.com/netlatency/netlatency/pkg/latency"
)

// survives runs every entry point that a pod passes. The framework fails the
// test for a score outside of 0 to 100. Without an opinion there must be a
// reason, and nowhere may there be a panic, though it would be survived.
func (c *cluster) survives(t *testing.T, pod *corev1.Pod) (scores map[string]int64) {
	t.Helper()
	c.t = t
	before := c.outcomes(t)
	c.plugin.SignPod(c.ctx, pod)
	c.filter(pod)
	scores = c.score(pod)
	c.place(pod, c.nodes[0].Name, c.nodes[0].Name, c.nodes[len(c.nodes)-1].Name)
	for len(c.events.Events) > 0 { // room for the next
		<-c.events.Events
	}
	after := c.outcomes(t)
	if scored := after[outcomeScored] > before[outcomeScored]; scored != (scores != nil) {
		t.Errorf("scores are %v, and counted are %v and then %v", scores, before, after)
	}
	silent := after[outcomeNoData] + after[outcomeNoReplicas] + after[outcomeNoTargets] - before[outcomeNoData] - before[outcomeNoReplicas] - before[outcomeNoTargets]
	if scores == nil && silent == 0 {
		t.Error("there are no scores, and no reason for that is counted")
	}
	for _, line := range exposed(t, c.plugin.metrics.profile) {
		if strings.HasPrefix(line, "netlatency_panics_total") {
			t.Fatal(line)
		}
	}
	return scores
}

func (c *cluster) outcomes(t *testing.T) (counts [len(outcomeNames)]float64) {
	t.Helper()
	for i := range counts {
		counts[i] = counted(t, c.plugin.metrics.scorings[i])
	}
	return counts
}

// newNonsenseCluster has limits, every aggregation but one and a quantile, to
// be given matrices that no source would let through.
func newNonsenseCluster(tb testing.TB) *cluster {
	tb.Helper()
	objects := []runtime.Object{qdrant("q-0", "node-0"), qdrant("q-1", "node-1")}
	for i := range 6 {
		objects = append(objects, node(fmt.Sprintf("node-%d", i)))
	}
	objects = append(objects, gpuNode("node-6"))
	rejecting := limited(gpuTarget(), config.UnknownReject)
	rejecting.Aggregation, rejecting.Quantile = config.AggregationWorst, new(0.99)
	args := newArgs(limited(qdrantTarget(), config.UnknownAllow), rejecting)
	args.AnnotatePlacement = true
	args.Statistic = config.Statistic{TailWeight: 0.1, LossPenalty: metav1.Duration{Duration: 200 * ms}}
	args.Band = config.Band{}
	return newCluster(tb, setting{args: args, objects: objects})
}

// FuzzMatrix looks for a matrix that the plugin does not survive. It comes as it
// would if no source checked anything: what the decoders let through, which
// have fuzz tests of their own, is among it.
func FuzzMatrix(f *testing.F) {
	c := newNonsenseCluster(f)
	row := func(node, peer byte, numbers ...int64) (data []byte) {
		data = append(data, node, peer)
		for _, n := range numbers {
			data = binary.AppendVarint(data, n)
		}
		return data
	}
	const good = int64(ms)
	f.Add([]byte{})
	f.Add(append(row(2, 0, good, good, good, good, good, 100, 100, 0, 0), row(3, 1, good, good, good, good, good, 100, 100, 0, 0)...))
	f.Add(row(2, 0, -1, -1, -1, -1, -1, 100, -5, 7, -100))
	f.Add(row(6, 0, 1<<62, -1<<62, 1<<62, 0, -1, 1<<40, 1<<40, 1<<50, 1<<40))
	f.Add(row(0, 6, 0, 0, 0, 0, 0, 1, 0, 0, 1))
	f.Fuzz(func(t *testing.T, data []byte) {
		observed := map[latency.Pair]latency.Distribution{}
		next := func() int64 {
			n, size := binary.Varint(data)
			data = data[max(size, 0):]
			return n
		}
		possible := false
		for len(data) > 2 && len(observed) < 60 {
			pair := latency.Pair{Node: fmt.Sprintf("node-%d", data[0]%8), Peer: fmt.Sprintf("node-%d", data[1]%8)}
			data = data[2:]
			d := latency.Distribution{
				Mean: time.Duration(next()), P50: time.Duration(next()), P90: time.Duration(next()), P99: time.Duration(next()), Min: time.Duration(next()),
				Samples: int(next()), Sent: int(next()), Lost: int(next()),
			}
			d.Newest = c.clock.Now().Add(time.Duration(next()%1000) * time.Second)
			observed[pair] = d
			possible = possible || pair.Node != pair.Peer && d.Samples > 0
		}
		c.publish(latency.NewMatrix(c.clock.Now(), observed))
		if scores := c.survives(t, worker()); scores != nil && !possible {
			t.Errorf("scores are %v of a matrix with nothing possible in it", scores)
		}
	})
}

// FuzzTarget looks for a target that is taken and not survived, in a cluster
// whose objects lack what they usually have.
func FuzzTarget(f *testing.F) {
	bare := func(object *corev1.Pod) *corev1.Pod { object.UID = ""; return object }
	objects := []runtime.Object{
		node("a"), node("b"), gpuNode("c"), zoned("d", "hetzner", ""), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "e"}},
		qdrant("q-0", "a"), qdrant("q-1", "gone"),
		bare(st.MakePod().Namespace("search").Name("bare").Obj()),
		bare(st.MakePod().Namespace("search").Name("nowhere").Label("app", "qdrant").Obj()),
		&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "search", Name: "qdrant"}, Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "qdrant"}}},
		&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "search", Name: "bare"}},
		&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "search", Name: "elsewhere"}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "search"}},
	}
	for _, target := range []string{
		"pods: {labelSelector: {matchLabels: {app: qdrant}}}",
		"pods: {labelSelector: {matchExpressions: [{key: app, operator: Exists}]}, namespaces: [search], matchLabelKeys: [ray.io/cluster]}",
		"pods: {labelSelector: {matchExpressions: [{key: app, operator: NotIn, values: [a]}]}, namespaceSelector: {}}, aggregation: Worst, maxRTT: 1ms, whenUnknown: Reject",
		"nodes: {resource: nvidia.com/gpu}, weight: 100, quantile: 0.99",
		"nodes: {labelSelector: {matchExpressions: [{key: x, operator: DoesNotExist}]}}, aggregation: Nearest",
		"service: {namespace: search, name: qdrant}, maxRTT: 10s",
		"service: {namespace: search, name: bare}",
		"service: {namespace: search, name: elsewhere}",
		"service: {namespace: nowhere, name: nothing}",
		"pods: {}",
		"weight: -1, pods: {labelSelector: {matchLabels: {'': ''}}}",
	} {
		f.Add(target, "ray.io/cluster", "one")
	}
	f.Fuzz(func(t *testing.T, target, key, value string) {
		text := "apiVersion: kubescheduler.config.k8s.io/v1\nkind: NetLatencyArgs\ntargetSlices: {namespace: ''}\ntargets: [{name: fuzzed, " + target + "}]\n"
		object, err := runtime.Decode(scheme.Codecs.UniversalDecoder(), []byte(text))
		if err != nil {
			return
		}
		args, ok := object.(*config.NetLatencyArgs)
		if !ok || len(validation.ValidateNetLatencyArgs(nil, args)) > 0 {
			return
		}
		c := newCluster(t, setting{args: args, objects: objects})
		c.measure(rtts{{"b", "a"}: ms, {"d", "a"}: 2 * ms, {"a", "c"}: 3 * ms, {"b", "c"}: ms})
		pod := worker()
		pod.Labels[key] = value
		c.survives(t, pod)
	})
}
