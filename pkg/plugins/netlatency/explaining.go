package netlatency

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/placement"
)

// PlacementAnnotation says on a pod why it is where it is, as a PlacementRecord
// in JSON.
const PlacementAnnotation = "netlatency.io/placement"

// keptByScores stands for the plugins whose scores outvoted the nearest node:
// it was free.
const keptByScores = "scores"

// Reserve tells why the pod has come to its node, now that it is known and the
// snapshot of the cluster is still that of the cycle. It never refuses.
func (p *NetLatency) Reserve(ctx context.Context, state fwk.CycleState, pod *corev1.Pod, nodeName string) *fwk.Status {
	defer func() { p.metrics.survived(ctx, "Reserve", recover()) }()
	p.waiting.leave(pod.UID)
	c := p.cycleOf(state)
	if c == nil {
		// One node was feasible, or the choice is that of an alike pod: there
		// was no PreScore.
		if c = p.prepare(state, pod); c == nil {
			return nil
		}
	}
	// Rank is for who asks: it takes a look at every node.
	var feasible []string
	if p.args.AnnotatePlacement {
		for _, node := range c.feasible {
			feasible = append(feasible, node.Node().Name)
		}
	}
	e := c.costs.Explain(nodeName, feasible)
	kept := ""
	score := p.band.Score(e.Cost, e.BestCost)
	if e.Cost != placement.Unknown && score < placement.MaxScore {
		kept = p.keptFrom(ctx, state, pod, e.Best)
	}
	p.metrics.placed(e, kept)
	if kept != "" && kept != keptByScores && score < farScore {
		p.announce(pod, reasonFar, fmt.Sprintf("Placed on %s, %s from its targets on average; %s would have been %s but for the scheduler plugin %s.",
			nodeName, rounded(e.Cost), e.Best, rounded(e.BestCost), kept))
	}
	if p.args.AnnotatePlacement {
		text, err := json.Marshal(recordOf(e, kept, p.clock.Since(c.view.matrix.Taken()), c.view.matrix != nil))
		if err != nil {
			return nil // there is nothing in it that could fail
		}
		state.Write(recordKey, record(text))
	}
	return nil
}

// Below this score a place is more than twice as far as those that count as
// nearest.
const farScore = placement.MaxScore / 2

// Unreserve does nothing: a pod that is tried again passes PreFilter.
func (p *NetLatency) Unreserve(context.Context, fwk.CycleState, *corev1.Pod, string) {}

// keptFrom is what keeps the pod from the node called best: the plugin whose
// filter refuses it, or others' scores.
func (p *NetLatency) keptFrom(ctx context.Context, state fwk.CycleState, pod *corev1.Pod, best string) string {
	node, err := p.handle.SnapshotSharedLister().NodeInfos().Get(best)
	if err != nil {
		return "NodeGone"
	}
	free := *pod
	free.Spec.NodeName = "" // the pod is assumed to be on its node already
	status := p.handle.RunFilterPlugins(ctx, state, &free, node)
	if status.IsSuccess() {
		return keptByScores
	}
	return status.Plugin()
}

const recordKey = PlacementAnnotation

// record is the text of the annotation, from Reserve to Bind.
type record string

// Clone returns the same.
func (r record) Clone() fwk.StateData { return r }

// PlacementRecord is an explanation as the annotation has it. Latencies are in
// milliseconds.
type PlacementRecord struct {
	Node    string         `json:"node"`
	CostMS  *float64       `json:"costMs,omitempty"` // absent where it is unknown
	Targets []TargetRecord `json:"targets,omitempty"`
	Best    string         `json:"best,omitempty"`
	BestMS  *float64       `json:"bestMs,omitempty"`
	Kept    string         `json:"keptBy,omitempty"`
	Rank    int            `json:"rank,omitempty"`
	Of      int            `json:"of,omitempty"`
	AgeS    *float64       `json:"matrixAgeSeconds,omitempty"`
}

// TargetRecord is what one target adds to the cost in a PlacementRecord.
type TargetRecord struct {
	Name   string   `json:"name"`
	MS     *float64 `json:"ms,omitempty"`
	Weight int      `json:"weight"`
	Basis  string   `json:"basis"`
}

// maxRecorded bounds the targets in an annotation.
const maxRecorded = 16

func recordOf(e placement.Explanation, kept string, age time.Duration, measured bool) PlacementRecord {
	r := PlacementRecord{
		Node: e.Node, CostMS: milliseconds(e.Cost), Best: e.Best, BestMS: milliseconds(e.BestCost), Kept: kept, Rank: e.Rank, Of: e.Of,
	}
	for _, part := range e.Parts[:min(len(e.Parts), maxRecorded)] {
		r.Targets = append(r.Targets, TargetRecord{Name: part.Target, MS: milliseconds(part.Latency), Weight: part.Weight, Basis: part.Basis.String()})
	}
	if measured {
		seconds := age.Round(100 * time.Millisecond).Seconds()
		r.AgeS = &seconds
	}
	return r
}

// milliseconds is d to the microsecond; nil if it is unknown.
func milliseconds(d time.Duration) *float64 {
	if d == placement.Unknown {
		return nil
	}
	ms := float64(d.Round(time.Microsecond)) / float64(time.Millisecond)
	return &ms
}

func rounded(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }

// Bind binds the pod with the annotation if there is one for it, and leaves
// all others to the next plugin. The API server puts the annotations of a
// Binding onto the pod, so that no right to change pods is needed.
func (p *NetLatency) Bind(ctx context.Context, state fwk.CycleState, pod *corev1.Pod, nodeName string) *fwk.Status {
	data, err := state.Read(recordKey)
	if err != nil {
		return fwk.NewStatus(fwk.Skip)
	}
	text, ok := data.(record)
	if !ok {
		return fwk.NewStatus(fwk.Skip)
	}
	binding := &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID,
			Annotations: map[string]string{PlacementAnnotation: string(text)},
		},
		Target: corev1.ObjectReference{Kind: "Node", Name: nodeName},
	}
	if cacher := p.handle.APICacher(); cacher != nil {
		finished, err := cacher.BindPod(binding)
		if err == nil {
			err = cacher.WaitOnFinish(ctx, finished)
		}
		return fwk.AsStatus(err)
	}
	return fwk.AsStatus(p.handle.ClientSet().CoreV1().Pods(pod.Namespace).Bind(ctx, binding, metav1.CreateOptions{}))
}

// placed counts a placement.
func (m *profileMetrics) placed(e placement.Explanation, kept string) {
	switch {
	case e.Cost == placement.Unknown:
		m.placements.WithLabelValues(m.profile, latency.Unknown.String(), kept).Inc()
		return
	case len(e.Parts) == 0:
		return
	}
	weakest := latency.Local
	for _, part := range e.Parts {
		weakest = min(weakest, part.Basis)
	}
	m.placements.WithLabelValues(m.profile, weakest.String(), kept).Inc()
	m.cost.Observe(e.Cost.Seconds())
	m.excess.Observe(max(0, e.Cost-e.BestCost).Seconds())
}
