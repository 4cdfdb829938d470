package kubelet

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
)

// supervise watches the running container until it has ended. It reports
// whether that is the end of the pod: it was deleted, or ctx has ended.
func (w *worker) supervise(ctx context.Context, p process) (over bool) {
	c := &w.pod.Spec.Containers[0]
	w.setCurrent(p)
	defer w.setCurrent(nil)

	verdicts := make(chan verdict)
	probing, stopProbing := context.WithCancel(ctx)
	var probes sync.WaitGroup
	defer func() {
		stopProbing()
		probes.Wait()
	}()
	watch := func(kind probeKind, spec *v1.Probe) {
		if spec == nil {
			return
		}
		probes.Go(func() {
			prober{kind, spec, httpCheck(spec.HTTPGet, c, w.node.address, w.node.dial)}.run(probing, func(v verdict) {
				select {
				case verdicts <- v:
				case <-probing.Done():
				}
			})
		})
	}
	started := func() {
		w.state.started = true
		w.state.ready = c.ReadinessProbe == nil
		watch(liveness, c.LivenessProbe)
		watch(readiness, c.ReadinessProbe)
	}

	w.state.waiting, w.state.running = nil, time.Now()
	w.state.containerID = fmt.Sprintf("process://%s-%d", w.pod.UID, w.state.restarts)
	w.state.started, w.state.ready = false, false
	if c.StartupProbe != nil {
		watch(startup, c.StartupProbe)
	} else {
		started()
	}
	w.reporter.report(w.state)

	var renew <-chan time.Time
	if !w.renewal.IsZero() {
		renew = time.After(time.Until(w.renewal))
	}
	for {
		select {
		case <-p.Done():
			return false
		case <-w.deleting:
			stopProbing()
			w.stop(ctx, p, w.grace)
			return true
		case <-w.gone:
			w.stop(ctx, p, 0)
			return true
		case <-ctx.Done():
			w.stop(ctx, p, 0)
			return true
		case <-renew:
			renew = time.After(w.renew(ctx))
		case v := <-verdicts:
			switch {
			case v.kind == readiness:
				w.state.ready = v.healthy
			case v.kind == startup && v.healthy:
				started()
			default:
				klog.FromContext(ctx).Info("Restarting container that fails its probe", "probe", v.kind, "reason", v.why)
				stopProbing()
				return w.stop(ctx, p, w.graceOf(v.kind, c))
			}
			w.reporter.report(w.state)
		}
	}
}

// graceOf is how long a container has to end after a probe has failed it.
func (w *worker) graceOf(kind probeKind, c *v1.Container) time.Duration {
	seconds := ptr.Deref(w.pod.Spec.TerminationGracePeriodSeconds, v1.DefaultTerminationGracePeriodSeconds)
	spec := c.LivenessProbe
	if kind == startup {
		spec = c.StartupProbe
	}
	return time.Duration(ptr.Deref(spec.TerminationGracePeriodSeconds, seconds)) * time.Second
}

// renew writes the volumes again, with fresh tokens, and returns in how long
// to do so next.
func (w *worker) renew(ctx context.Context) time.Duration {
	id, err := identify(w.pod, &w.pod.Spec.Containers[0])
	if err == nil {
		err = w.writeVolumes(ctx, id)
	}
	if err != nil {
		klog.FromContext(ctx).Info("Cannot renew the pod's token, trying again", "reason", err)
		return retryInterval
	}
	return time.Until(w.renewal)
}

// stop ends the container: politely, and after the grace by force. It returns
// when nothing of it is left, and reports whether the pod is over meanwhile.
func (w *worker) stop(ctx context.Context, p process, grace time.Duration) (over bool) {
	deadline := time.After(grace)
	if hooks := w.pod.Spec.Containers[0].Lifecycle; hooks != nil && hooks.PreStop != nil && grace > 0 {
		select {
		case <-time.After(min(grace, time.Duration(hooks.PreStop.Sleep.Seconds)*time.Second)):
		case <-p.Done():
		case <-w.gone:
		case <-ctx.Done():
		}
	}
	// Errors say that the process is gone, which is what is wanted.
	if grace > 0 {
		_ = p.Signal(syscall.SIGTERM)
		select {
		case <-p.Done():
		case <-deadline:
		case <-w.gone:
		case <-ctx.Done():
		}
	}
	_ = p.Signal(syscall.SIGKILL)
	<-p.Done()
	return w.over(ctx)
}

// exited takes down how the container ended.
func (w *worker) exited(p process, began time.Time) {
	code, _ := p.Exit()
	end := &v1.ContainerStateTerminated{
		ExitCode:    int32(code),
		Reason:      "Completed",
		StartedAt:   metav1.NewTime(began),
		FinishedAt:  metav1.Now(),
		ContainerID: w.state.containerID,
	}
	if code != 0 {
		end.Reason = "Error"
	}
	w.state.running, w.state.terminated = time.Time{}, end
	w.state.started, w.state.ready = false, false
}
