package netlatency

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/netlatency/netlatency/pkg/placement"
)

// PreFilter prepares Filter for a pod of which a target has a limit, or for which
// nodes can be left out (pruning.go); for all others it returns Skip, and Filter
// is not called.
func (p *NetLatency) PreFilter(ctx context.Context, state fwk.CycleState, pod *corev1.Pod, _ []fwk.NodeInfo) (_ *fwk.PreFilterResult, status *fwk.Status) {
	defer func() {
		if p.metrics.survived(ctx, "PreFilter", recover()) {
			p.waiting.leave(pod.UID)
			status = fwk.NewStatus(fwk.Skip)
		}
	}()
	d, fault := p.demandFor(pod)
	p.announceFault(pod, fault)
	if d == nil {
		return nil, fwk.NewStatus(fwk.Skip)
	}
	// In this order: who publishes stores the view, and then looks for who is
	// waiting. A change is so seen here or there.
	if d.limited {
		p.waiting.enter(pod)
	}
	c := p.begin(state, d)
	if d.limited {
		p.waiting.saw(pod.UID, c.costs)
	}
	if c.bound = p.boundFor(state, pod, c); c.bound == nil && !d.limited {
		return nil, fwk.NewStatus(fwk.Skip)
	}
	return nil, nil
}

// PreFilterExtensions returns nil: which pods run on a node makes it neither
// nearer nor farther, and to evict a target must not help.
func (p *NetLatency) PreFilterExtensions() fwk.PreFilterExtensions { return nil }

// Filter refuses a node that is beyond a limit, or from which a target is
// unknown that rejects such nodes, and leaves out one that cannot be chosen.
func (p *NetLatency) Filter(ctx context.Context, state fwk.CycleState, pod *corev1.Pod, node fwk.NodeInfo) (status *fwk.Status) {
	defer func() {
		if p.metrics.survived(ctx, "Filter", recover()) {
			status = nil
		}
	}()
	c := p.cycleOf(state)
	if c == nil {
		return nil
	}
	if c.demand.limited {
		if verdict := c.verdictOn(node.Node()); verdict != placement.Within {
			return c.demand.refusal(verdict)
		}
	}
	if c.bound != nil {
		return p.outdone(ctx, state, pod, c.bound, c.costOf(node.Node()), node)
	}
	return nil
}
