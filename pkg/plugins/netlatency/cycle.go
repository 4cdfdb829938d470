package netlatency

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/netlatency/netlatency/pkg/placement"
)

// cycle is what is known in a scheduling cycle of the pod that is placed: the
// same from PreFilter to Reserve, whatever is measured meanwhile. Filter
// recognises its cycle by the identity of the CycleState: to look the cycle up
// in it by a key would allocate and take longer than all the rest, 5000 times in
// a large cluster.
type cycle struct {
	state  fwk.CycleState
	demand *demand
	view   *view
	costs  *placement.Costs
	bound  *bound // nil if every node is to be rated
	// feasible is the nodes that PreScore was given; nil without it. PreScore sets
	// it before anything reads it.
	feasible []fwk.NodeInfo
}

const cycleKey = Name

// costOf is what the pod costs on a node.
func (c *cycle) costOf(node *corev1.Node) time.Duration {
	if i, ok := c.view.places[node]; ok {
		return c.costs.At(int(i))
	}
	return c.costs.Of(node.Name)
}

// verdictOn is what the limits of the pod say of a node.
func (c *cycle) verdictOn(node *corev1.Node) placement.Verdict {
	if i, ok := c.view.places[node]; ok {
		return c.costs.VerdictAt(int(i))
	}
	return c.costs.Verdict(node.Name)
}

// Clone returns the same: a cycle is of one pod.
func (c *cycle) Clone() fwk.StateData { return c }

// prepare begins the cycle of a pod; it returns nil if the pod has no targets.
func (p *NetLatency) prepare(state fwk.CycleState, pod *corev1.Pod) *cycle {
	d, fault := p.demandFor(pod)
	p.announceFault(pod, fault)
	if d == nil {
		return nil
	}
	return p.begin(state, d)
}

func (p *NetLatency) begin(state fwk.CycleState, d *demand) *cycle {
	v := p.current()
	c := &cycle{state: state, demand: d, view: v, costs: v.costsOf(d)}
	state.Write(cycleKey, c)
	p.cycle.Store(c)
	return c
}

// cycleOf is the cycle that was begun with state or what it was cloned from;
// nil if none was.
func (p *NetLatency) cycleOf(state fwk.CycleState) *cycle {
	if c := p.cycle.Load(); c != nil && c.state == state {
		return c
	}
	// Another cycle has begun since, or this is a clone of the state, as
	// preemption makes them.
	data, err := state.Read(cycleKey)
	if err != nil {
		return nil
	}
	c, _ := data.(*cycle)
	return c
}
