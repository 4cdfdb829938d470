package kubelet

import (
	"net/netip"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// observation is what a pod's worker knows of its container; the pod's status
// is computed from it. The zero value is a container that was never started.
type observation struct {
	// start is when the worker took the pod on.
	start time.Time
	// Exactly one of waiting, running and terminated describes the container.
	waiting    *v1.ContainerStateWaiting
	running    time.Time
	terminated *v1.ContainerStateTerminated
	// last is how the container ended before.
	last        *v1.ContainerStateTerminated
	containerID string
	restarts    int32
	// started is set when the startup probe has succeeded or there is none,
	// ready when the readiness probe says so or there is none.
	started, ready bool
	// final says that the container will not be started again.
	final bool
}

// podStatus is the pod's status for what is observed at the time now. What
// others wrote into the present status stays.
func podStatus(pod *v1.Pod, address netip.Addr, o observation, now time.Time) v1.PodStatus {
	status := *pod.Status.DeepCopy()
	status.Phase = phase(o)
	status.ObservedGeneration = pod.Generation
	if status.StartTime == nil {
		status.StartTime = new(metav1.NewTime(o.start))
	}
	status.HostIP = address.String()
	status.HostIPs = []v1.HostIP{{IP: address.String()}}
	if o.containerID != "" {
		status.PodIP = address.String()
		status.PodIPs = []v1.PodIP{{IP: address.String()}}
	}
	status.ContainerStatuses = nil
	for i, c := range pod.Spec.Containers {
		// Only the first container is ever started; with more the pod is not
		// supported, which each of them then says.
		one := containerStatus(c, o)
		if i > 0 {
			one = containerStatus(c, observation{waiting: o.waiting})
		}
		status.ContainerStatuses = append(status.ContainerStatuses, one)
	}

	ready := condition{status: o.running != (time.Time{}) && o.ready}
	switch {
	case status.Phase == v1.PodSucceeded:
		ready.reason = "PodCompleted"
	case status.Phase == v1.PodFailed:
		ready.reason = "PodFailed"
	case !ready.status:
		ready.reason, ready.message = "ContainersNotReady", "containers with unready status: ["+pod.Spec.Containers[0].Name+"]"
	}
	set := func(kind v1.PodConditionType, c condition) {
		setCondition(&status, kind, c, pod.Generation, now)
	}
	set(v1.PodScheduled, condition{status: true})
	set(v1.PodInitialized, condition{status: true})
	set(v1.ContainersReady, ready)
	set(v1.PodReady, ready)
	return status
}

func phase(o observation) v1.PodPhase {
	switch {
	case o.final && o.terminated != nil && o.terminated.ExitCode == 0:
		return v1.PodSucceeded
	case o.final && o.terminated != nil:
		return v1.PodFailed
	case o.containerID == "":
		return v1.PodPending
	default:
		return v1.PodRunning
	}
}

func containerStatus(c v1.Container, o observation) v1.ContainerStatus {
	status := v1.ContainerStatus{
		Name:         c.Name,
		Image:        c.Image,
		ContainerID:  o.containerID,
		RestartCount: o.restarts,
		Started:      new(false),
	}
	if o.last != nil {
		status.LastTerminationState.Terminated = o.last
	}
	switch {
	case o.running != (time.Time{}):
		status.ImageID = c.Image
		status.State.Running = &v1.ContainerStateRunning{StartedAt: metav1.NewTime(o.running)}
		status.Started, status.Ready = new(o.started), o.ready
	case o.terminated != nil:
		status.ImageID = c.Image
		status.State.Terminated = o.terminated
	case o.waiting != nil:
		status.State.Waiting = o.waiting
	default:
		status.State.Waiting = &v1.ContainerStateWaiting{Reason: "ContainerCreating"}
	}
	return status
}

type condition struct {
	status          bool
	reason, message string
}

// setCondition sets a condition; its transition time moves only with its
// status.
func setCondition(status *v1.PodStatus, kind v1.PodConditionType, c condition, generation int64, now time.Time) {
	next := v1.PodCondition{
		Type: kind, Status: v1.ConditionFalse, Reason: c.reason, Message: c.message,
		ObservedGeneration: generation, LastTransitionTime: metav1.NewTime(now),
	}
	if c.status {
		next.Status = v1.ConditionTrue
	}
	i := slices.IndexFunc(status.Conditions, func(c v1.PodCondition) bool { return c.Type == kind })
	if i < 0 {
		status.Conditions = append(status.Conditions, next)
		return
	}
	if present := status.Conditions[i]; present.Status == next.Status {
		next.LastTransitionTime = present.LastTransitionTime
	}
	status.Conditions[i] = next
}
