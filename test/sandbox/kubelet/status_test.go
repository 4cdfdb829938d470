package kubelet

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var (
	noon    = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	address = netip.MustParseAddr("10.250.0.8")
)

// conditions are written as "type=status", with the reason where there is one.
func conditions(status v1.PodStatus) string {
	var all []string
	for _, c := range status.Conditions {
		one := fmt.Sprintf("%s=%s", c.Type, c.Status)
		if c.Reason != "" {
			one += "(" + c.Reason + ")"
		}
		all = append(all, one)
	}
	return strings.Join(all, " ")
}

func TestAPodsStatusIsWhatWasObserved(t *testing.T) {
	crash := &v1.ContainerStateTerminated{ExitCode: 2, Reason: "Error"}
	success := &v1.ContainerStateTerminated{ExitCode: 0, Reason: "Completed"}
	for _, test := range []struct {
		name       string
		o          observation
		phase      v1.PodPhase
		conditions string
		podIP      string
		state      string // of the container
	}{
		{
			"not started yet", observation{},
			v1.PodPending, "PodScheduled=True Initialized=True ContainersReady=False(ContainersNotReady) Ready=False(ContainersNotReady)", "", "waiting: ContainerCreating",
		},
		{
			"cannot start", observation{waiting: &v1.ContainerStateWaiting{Reason: "RunContainerError"}},
			v1.PodPending, "PodScheduled=True Initialized=True ContainersReady=False(ContainersNotReady) Ready=False(ContainersNotReady)", "", "waiting: RunContainerError",
		},
		{
			"running and not ready", observation{running: noon, containerID: "process://x-0", started: true},
			v1.PodRunning, "PodScheduled=True Initialized=True ContainersReady=False(ContainersNotReady) Ready=False(ContainersNotReady)", "10.250.0.8", "running, started",
		},
		{
			"running and ready", observation{running: noon, containerID: "process://x-0", started: true, ready: true},
			v1.PodRunning, "PodScheduled=True Initialized=True ContainersReady=True Ready=True", "10.250.0.8", "running, started, ready",
		},
		{
			"waiting after a crash", observation{containerID: "process://x-0", last: crash, waiting: &v1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}},
			v1.PodRunning, "PodScheduled=True Initialized=True ContainersReady=False(ContainersNotReady) Ready=False(ContainersNotReady)", "10.250.0.8", "waiting: CrashLoopBackOff, last exit code 2",
		},
		{
			"ended for good", observation{containerID: "process://x-0", terminated: crash, final: true},
			v1.PodFailed, "PodScheduled=True Initialized=True ContainersReady=False(PodFailed) Ready=False(PodFailed)", "10.250.0.8", "terminated: exit code 2",
		},
		{
			"completed", observation{containerID: "process://x-0", terminated: success, final: true},
			v1.PodSucceeded, "PodScheduled=True Initialized=True ContainersReady=False(PodCompleted) Ready=False(PodCompleted)", "10.250.0.8", "terminated: exit code 0",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.o.start = noon
			status := podStatus(agentPod(), address, test.o, noon)
			got := []string{string(status.Phase), conditions(status), status.PodIP, describe(status.ContainerStatuses[0])}
			want := []string{string(test.phase), test.conditions, test.podIP, test.state}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if status.HostIP != "10.250.0.8" || !status.StartTime.Time.Equal(noon) || status.ObservedGeneration != 2 {
				t.Errorf("host %s, start %s, generation %d", status.HostIP, status.StartTime, status.ObservedGeneration)
			}
		})
	}
}

func describe(c v1.ContainerStatus) string {
	var text string
	switch {
	case c.State.Running != nil:
		text = "running"
	case c.State.Waiting != nil:
		text = "waiting: " + c.State.Waiting.Reason
	case c.State.Terminated != nil:
		text = fmt.Sprint("terminated: exit code ", c.State.Terminated.ExitCode)
	}
	if *c.Started {
		text += ", started"
	}
	if c.Ready {
		text += ", ready"
	}
	if last := c.LastTerminationState.Terminated; last != nil {
		text += fmt.Sprint(", last exit code ", last.ExitCode)
	}
	return text
}

func TestATransitionTimeMovesWithItsConditionOnly(t *testing.T) {
	pod := agentPod()
	pod.Status.Conditions = []v1.PodCondition{{Type: "DisruptionTarget", Status: v1.ConditionTrue, LastTransitionTime: metav1.NewTime(noon)}}
	o := observation{start: noon, running: noon, containerID: "process://x-0"}
	pod.Status = podStatus(pod, address, o, noon)
	o.ready = true
	pod.Status = podStatus(pod, address, o, noon.Add(time.Minute))
	pod.Status = podStatus(pod, address, o, noon.Add(time.Hour))

	got := map[v1.PodConditionType]time.Duration{}
	for _, c := range pod.Status.Conditions {
		got[c.Type] = c.LastTransitionTime.Sub(noon)
	}
	want := map[v1.PodConditionType]time.Duration{
		"DisruptionTarget": 0, v1.PodScheduled: 0, v1.PodInitialized: 0, v1.ContainersReady: time.Minute, v1.PodReady: time.Minute,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
