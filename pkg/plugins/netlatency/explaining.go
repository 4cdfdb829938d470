package netlatency

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/placement"
)

// PlacementAnnotation says on a pod why it is where it is, as a
// placement.Record in JSON.
const PlacementAnnotation = "netlatency.io/placement"

// What kept a pod from the nearest node, where it was not a plugin that refuses
// the node.
const (
	keptByScores = "scores"   // of other plugins: the node was free
	keptByGone   = "NodeGone" // the node has left meanwhile
	// Plugins that have reserved for the pod by now, devices or volumes, cannot
	// be asked any more whether there were any elsewhere.
	keptByUnknown = "unknown"
)

// Reserve finds out why the pod has come to its node, now that it is known and
// the snapshot of the cluster is still that of the cycle. It never refuses.
// PostBind tells of it: what is reserved may yet not be bound.
func (p *NetLatency) Reserve(ctx context.Context, state fwk.CycleState, pod *corev1.Pod, nodeName string) *fwk.Status {
	defer func() { p.metrics.survived(ctx, "Reserve", recover()) }()
	p.reserved.Store(&nodeName)
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
	e := &explained{Explanation: c.costs.Explain(nodeName, feasible)}
	e.score = p.band.Score(e.Cost, e.BestCost)
	if e.Cost != placement.Unknown && e.score < placement.MaxScore {
		e.keptBy, e.never = p.keptFrom(ctx, state, pod, e.Best)
	}
	state.Write(explainedKey, e)
	if p.args.AnnotatePlacement {
		r := placement.NewRecord(e.Explanation, e.keptBy)
		if newest := c.view.matrix.Newest(); !newest.IsZero() {
			r.AgeS = new(p.clock.Since(newest).Round(100 * time.Millisecond).Seconds())
		}
		if text, err := json.Marshal(r); err == nil { // there is nothing in it that could fail
			state.Write(recordKey, record(text))
		}
	}
	return nil
}

// explained is why a pod is where it is, from Reserve to PostBind.
type explained struct {
	placement.Explanation
	score  int64
	keptBy string
	// never says that the pod could not go to the nearest node however free it
	// were: it has a taint, or is none that the pod's selector chooses.
	never bool
}

const explainedKey = Name + "/explained"

// Clone returns the same.
func (e *explained) Clone() fwk.StateData { return e }

// Below this score a place is more than twice as far as those that count as
// nearest.
const farScore = placement.MaxScore - placement.PointsPerDoubling

// Unreserve does nothing: a pod that is tried again passes PreFilter.
func (p *NetLatency) Unreserve(context.Context, fwk.CycleState, *corev1.Pod, string) {}

// PostBind counts the placement, and tells of it if it is far for a reason.
func (p *NetLatency) PostBind(ctx context.Context, state fwk.CycleState, pod *corev1.Pod, nodeName string) {
	defer func() { p.metrics.survived(ctx, "PostBind", recover()) }()
	data, err := state.Read(explainedKey)
	if err != nil {
		return // the pod has no targets
	}
	e, ok := data.(*explained)
	if !ok {
		return
	}
	p.metrics.placed(e)
	if e.keptBy != "" && e.keptBy != keptByScores && e.keptBy != keptByUnknown && !e.never && e.score < farScore {
		p.announce(pod, reasonFar, fmt.Sprintf("Placed on %s, %s from its targets on average; %s would have been %s but for the scheduler plugin %s.",
			nodeName, rounded(e.Cost), e.Best, rounded(e.BestCost), e.keptBy))
	}
}

// keptFrom is what keeps the pod from the node called best: the plugin whose
// filter refuses it, or others' scores; and whether that would do so whatever
// pods left the node. Our own limits are the pod's wish and no such obstacle.
func (p *NetLatency) keptFrom(ctx context.Context, state fwk.CycleState, pod *corev1.Pod, best string) (by string, never bool) {
	node, err := p.handle.SnapshotSharedLister().NodeInfos().Get(best)
	if err != nil {
		return keptByGone, false
	}
	free := *pod
	free.Spec.NodeName = "" // the pod is assumed to be on its node already
	status := p.handle.RunFilterPluginsWithNominatedPods(ctx, state, &free, node)
	switch {
	case !status.IsSuccess():
		return status.Plugin(), status.Code() == fwk.UnschedulableAndUnresolvable && status.Plugin() != Name
	case len(pod.Spec.ResourceClaims) > 0 || slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool {
		return v.PersistentVolumeClaim != nil || v.Ephemeral != nil
	}):
		return keptByUnknown, false
	}
	return keptByScores, false
}

const recordKey = PlacementAnnotation

// record is the text of the annotation, from Reserve to Bind.
type record string

// Clone returns the same.
func (r record) Clone() fwk.StateData { return r }

func rounded(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }

// Bind binds the pod with the annotation if there is one for it, and leaves
// all others to the next plugin. The API server puts the annotations of a
// Binding onto the pod, so that no right to change pods is needed.
func (p *NetLatency) Bind(ctx context.Context, state fwk.CycleState, pod *corev1.Pod, nodeName string) (status *fwk.Status) {
	defer func() {
		// Not Skip: the pod may be bound by now.
		if p.metrics.survived(ctx, "Bind", recover()) {
			status = fwk.AsStatus(errors.New("binding the pod with its annotation failed"))
		}
	}()
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
func (m *profileMetrics) placed(e *explained) {
	switch {
	case e.Cost == placement.Unknown:
		m.placements.WithLabelValues(m.profile, latency.Unknown.String(), e.keptBy).Inc()
		return
	case len(e.Parts) == 0:
		return
	}
	weakest := latency.Local
	for _, part := range e.Parts {
		weakest = min(weakest, part.Basis)
	}
	m.placements.WithLabelValues(m.profile, weakest.String(), e.keptBy).Inc()
	m.cost.Observe(e.Cost.Seconds())
	if !e.never {
		m.excess.Observe(max(0, e.Cost-e.BestCost).Seconds())
	}
}
