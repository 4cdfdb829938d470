package netlatency

import (
	corev1 "k8s.io/api/core/v1"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/netlatency/netlatency/pkg/placement"
)

// cycle is what is known in a scheduling cycle of the pod that is placed: the
// same from PreFilter to Reserve, whatever is measured meanwhile. Filter and
// Score recognise their cycle by the identity of the CycleState: to look the
// cycle up in it by a key would allocate and take longer than all the rest,
// 5000 times in a large cluster.
type cycle struct {
	state  fwk.CycleState
	demand *demand
	view   *view
	costs  *placement.Costs
	// feasible is the nodes that PreScore was given; nil without it. PreScore
	// sets it before anything reads it.
	feasible []string
}

const cycleKey = Name

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
