package netlatency

import (
	"context"
	"maps"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/netlatency/netlatency/pkg/placement"
)

// waiting is the pods with limits that were tried and are not bound, with the
// costs that they saw or that were looked through for them since.
type waiting struct {
	mu   sync.Mutex // never held while the scheduling queue is called
	pods map[types.UID]waitingPod
}

type waitingPod struct {
	pod   *corev1.Pod
	costs *placement.Costs // nil while PreFilter looks for them
}

// enter notes that pod is being tried. Its costs follow by saw.
func (w *waiting) enter(pod *corev1.Pod) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pods == nil {
		w.pods = make(map[types.UID]waitingPod)
	}
	w.pods[pod.UID] = waitingPod{pod: pod}
}

func (w *waiting) saw(uid types.UID, costs *placement.Costs) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if known, ok := w.pods[uid]; ok {
		w.pods[uid] = waitingPod{known.pod, costs}
	}
}

// renew replaces the costs of pods that have not been tried since.
func (w *waiting) renew(uid types.UID, before, now *placement.Costs) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if known, ok := w.pods[uid]; ok && known.costs == before {
		w.pods[uid] = waitingPod{known.pod, now}
	}
}

func (w *waiting) leave(uid types.UID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.pods, uid)
}

func (w *waiting) all() []waitingPod {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := make([]waitingPod, 0, len(w.pods))
	for _, pod := range w.pods {
		all = append(all, pod)
	}
	return all
}

// admit activates, after each change of the view or of a target, the pods that
// some node's crossing of a limit may have admitted. It returns when ctx ends.
func (p *NetLatency) admit(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.moved:
		}
		p.metrics.guard(ctx, "waiting pods", func(ctx context.Context) {
			// The next pod must not wait for what the move of a target makes
			// necessary.
			if v := p.view.Load(); v != nil {
				v.costsOfRules(p.rules)
			}
			p.activate(ctx)
		})
		// A stream of changes, as when a target is rolled out, must not use up
		// a core.
		if !p.pause(ctx, viewSpacing, nil) {
			return
		}
	}
}

func (p *NetLatency) activate(ctx context.Context) {
	// In this order: a pod that was tried with a newer view than this one would
	// be noted as knowing less than it does, and might miss a change.
	waiting := p.waiting.all()
	view := p.view.Load()
	if len(waiting) == 0 || view == nil {
		return
	}
	activated := make(map[string]*corev1.Pod)
	type step struct{ before, now *placement.Costs }
	admits := make(map[step]bool) // alike pods ask the same
	for _, w := range waiting {
		pod, err := p.pods.Pods(w.pod.Namespace).Get(w.pod.Name)
		if err != nil || pod.UID != w.pod.UID || pod.Spec.NodeName != "" {
			p.waiting.leave(w.pod.UID)
			continue
		}
		d, _ := p.demandFor(pod)
		if d == nil || !d.limited {
			continue // its own update has requeued it
		}
		s := step{w.costs, view.costsOf(d)}
		if s.before == s.now {
			continue
		}
		more, known := admits[s]
		if !known {
			more = s.before == nil || s.now.AdmitsMore(s.before)
			admits[s] = more
		}
		if more {
			activated[string(pod.UID)] = pod
		}
		if s.before != nil {
			p.waiting.renew(pod.UID, s.before, s.now)
		}
	}
	if len(activated) > 0 {
		klog.FromContext(ctx).V(4).Info("Nodes have come within the limits of waiting pods", "pods", len(activated))
		p.handle.Activate(klog.FromContext(ctx), activated)
		p.metrics.activations.Add(float64(len(activated)))
	}
}

// podHandler prepares what pods of the profile will want, off their cycle, and
// lets go of those that no longer wait.
func (p *NetLatency) podHandler(ctx context.Context) cache.ResourceEventHandler {
	place := func(object any) {
		pod, ok := object.(*corev1.Pod)
		if !ok || pod.Spec.SchedulerName != p.metrics.profile {
			return
		}
		if pod.Spec.NodeName != "" {
			p.waiting.leave(pod.UID)
			return
		}
		p.metrics.guard(ctx, "pods", func(context.Context) {
			d, _ := p.demandFor(pod)
			if v := p.view.Load(); d != nil && v != nil {
				v.costsOf(d)
			}
		})
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    place,
		UpdateFunc: func(_, object any) { place(object) },
		DeleteFunc: func(object any) {
			if tombstone, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = tombstone.Obj
			}
			if pod, ok := object.(*corev1.Pod); ok {
				p.waiting.leave(pod.UID)
			}
		},
	}
}

// EventsToRegister are those that can help a pod that Filter has refused. What
// is measured and where targets run is no event of the queue's: admit sees to
// that, also when a node changes its labels and so its group. Taints are none
// of ours, but without them the queue tries pods at every new node whatever
// the hint says (kubernetes/kubernetes#110175).
func (p *NetLatency) EventsToRegister(context.Context) ([]fwk.ClusterEventWithHint, error) {
	return []fwk.ClusterEventWithHint{
		{Event: fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.Add | fwk.UpdateNodeTaint}, QueueingHintFn: afterNode},
		{Event: fwk.ClusterEvent{Resource: fwk.Pod, ActionType: fwk.Update}, QueueingHintFn: afterPod},
	}, nil
}

// afterNode tries a pod again when a node has joined, which may be allowed
// before it is known.
func afterNode(_ klog.Logger, _ *corev1.Pod, before, after any) (fwk.QueueingHint, error) {
	if before == nil && after != nil {
		return fwk.Queue, nil
	}
	return fwk.QueueSkip, nil
}

// afterPod tries a pod again when it wants something else itself.
func afterPod(_ klog.Logger, pod *corev1.Pod, before, after any) (fwk.QueueingHint, error) {
	was, ok1 := before.(*corev1.Pod)
	is, ok2 := after.(*corev1.Pod)
	if !ok1 || !ok2 || is.UID != pod.UID {
		return fwk.QueueSkip, nil
	}
	text, given := is.Annotations[nearAnnotation]
	textWas, wasGiven := was.Annotations[nearAnnotation]
	if text != textWas || given != wasGiven || !maps.Equal(was.Labels, is.Labels) {
		return fwk.Queue, nil
	}
	return fwk.QueueSkip, nil
}
