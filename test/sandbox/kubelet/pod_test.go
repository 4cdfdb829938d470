package kubelet

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// These tests run real pods: this test binary, as the witness, in the network
// namespace of a node.

func TestAPodIsConfinedAsItsManifestSays(t *testing.T) {
	c := runKubelet(t)
	pod := c.create(c.witnessPod())
	c.until(pod, "ready", isReady)
	told := c.testimony()

	got := map[string]any{
		"user":          fmt.Sprint(told.UID, ":", told.GID),
		"PID":           told.PID,
		"processes":     strings.Join(told.Processes, " "),
		"hostname":      told.Hostname,
		"root":          strings.Join(told.Root, " "),
		"devices":       strings.Join(told.Devices, " "),
		"/dev/null":     told.Device,
		"ping socket":   told.PingSocket,
		"remount root":  told.Remount,
		"no_new_privs":  told.Status["NoNewPrivs"],
		"CapInh":        told.Status["CapInh"],
		"CapPrm":        told.Status["CapPrm"],
		"CapEff":        told.Status["CapEff"],
		"CapBnd":        told.Status["CapBnd"],
		"CapAmb":        told.Status["CapAmb"],
		"addresses":     strings.Join(told.Addresses, " "),
		"args":          strings.Join(told.Args[:3], " "),
		"writable":      told.Writable,
		"config":        told.Files["/etc/netlatency/config.yaml"],
		"token":         told.Files["/var/run/secrets/kubernetes.io/serviceaccount/token"],
		"token's mode":  told.Modes["/var/run/secrets/kubernetes.io/serviceaccount/token"],
		"certificate":   told.Files["/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"],
		"pod namespace": told.Files["/var/run/secrets/kubernetes.io/serviceaccount/namespace"],
		"env":           told.Env,
	}
	none := strings.Repeat("0", 16)
	want := map[string]any{
		"user":         "65532:65532",
		"PID":          1,
		"processes":    "1",
		"hostname":     pod.Name,
		"root":         "cache dev etc netlatency-agent proc var",
		"devices":      "fd full null random stderr stdin stdout urandom zero",
		"/dev/null":    "",
		"ping socket":  "",
		"remount root": "operation not permitted",
		"no_new_privs": "1",
		"CapInh":       none,
		"CapPrm":       none,
		"CapEff":       none,
		"CapBnd":       none,
		"CapAmb":       none,
		"addresses":    "127.0.0.1/8 10.250.0.8/16 10.251.0.9/16",
		"args":         "/netlatency-agent witness 10.250.0.8:9465",
		"writable": map[string]bool{
			"/": false, "/tmp": false, "/cache": true, "/etc/netlatency": false, "/dev": false,
			"/var/run/secrets/kubernetes.io/serviceaccount": false,
		},
		"config":        "kind: Test",
		"token":         "token of netlatency-agent for agent-x7k2p",
		"token's mode":  "-rw-r-----",
		"certificate":   "root certificate",
		"pod namespace": testNamespace,
		"env": []string{
			"PATH=" + searchPath, "HOSTNAME=" + pod.Name, "KUBERNETES_SERVICE_HOST=10.251.0.1", "KUBERNETES_SERVICE_PORT=6443",
			"KUBERNETES_SERVICE_PORT_HTTPS=6443", "POD_IP=10.250.0.8", "GOMEMLIMIT=8589934592",
		},
	}
	// A dynamically linked test binary brings the machine's libraries.
	if slices.Contains(told.Root, "usr") {
		got["root"] = strings.Join(slices.DeleteFunc(told.Root, func(name string) bool {
			return name == "lib" || name == "lib64" || name == "usr"
		}), " ")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what the pod finds (-want +got):\n%s", diff)
	}
}

func TestAPodMayKeepCapabilitiesAndAWritableRoot(t *testing.T) {
	c := runKubelet(t)
	pod := c.create(c.witnessPod(func(pod *v1.Pod) {
		pod.Spec.SecurityContext = &v1.PodSecurityContext{RunAsUser: ptr.To[int64](0)}
		pod.Spec.Containers[0].SecurityContext = &v1.SecurityContext{
			Capabilities: &v1.Capabilities{Drop: []v1.Capability{"ALL"}, Add: []v1.Capability{"DAC_OVERRIDE", "NET_RAW"}},
		}
	}))
	c.until(pod, "ready", isReady)
	told := c.testimony()
	const wanted = 1<<1 | 1<<13 // CAP_DAC_OVERRIDE, CAP_NET_RAW
	for _, set := range []string{"CapPrm", "CapEff", "CapBnd"} {
		if got, err := strconv.ParseUint(told.Status[set], 16, 64); err != nil || got != wanted {
			t.Errorf("%s is %s, want %016x", set, told.Status[set], wanted)
		}
	}
	if told.UID != 0 || told.Status["NoNewPrivs"] != "0" || !told.Writable["/"] {
		t.Errorf("uid %d, no_new_privs %s, writable root %t; want 0, 0, true", told.UID, told.Status["NoNewPrivs"], told.Writable["/"])
	}
}

func TestAPodOfAnOrdinaryUserCannotWriteItsRootEither(t *testing.T) {
	c := runKubelet(t)
	pod := c.create(c.witnessPod(func(pod *v1.Pod) {
		pod.Spec.Containers[0].SecurityContext.ReadOnlyRootFilesystem = new(false)
	}))
	c.until(pod, "ready", isReady)
	if told := c.testimony(); told.Writable["/"] || told.Writable["/dev"] {
		t.Error("the root of the image belongs to user 0, but user 65532 could write to it")
	}
}

func TestACrashedContainerIsStartedAgain(t *testing.T) {
	c := runKubelet(t)
	pod := c.create(c.witnessPod())
	c.until(pod, "ready", isReady)
	first, err := c.Pid(pod.Namespace, pod.Name)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Kill(pod.Namespace, pod.Name); err != nil {
		t.Fatal(err)
	}
	after := c.until(pod, "ready again", func(pod *v1.Pod) bool {
		return isReady(pod) && pod.Status.ContainerStatuses[0].RestartCount == 1
	})
	ended := after.Status.ContainerStatuses[0].LastTerminationState.Terminated
	if ended == nil || ended.ExitCode != 137 || ended.Reason != "Error" {
		t.Errorf("last state is %v, want exit code 137", ended)
	}
	if second, err := c.Pid(pod.Namespace, pod.Name); err != nil || second == first {
		t.Errorf("the container's process is %d (%v), want another than %d", second, err, first)
	}
	if starts := c.log(pod); strings.Count(starts, "witness starts") != 2 {
		t.Errorf("the log has not both starts:\n%s", starts)
	}
}

func TestReadinessFollowsTheProbe(t *testing.T) {
	c := runKubelet(t)
	pod := c.create(c.witnessPod())
	c.until(pod, "ready", isReady)
	if _, err := c.ask("/unready"); err != nil {
		t.Fatal(err)
	}
	c.until(pod, "running and not ready", func(pod *v1.Pod) bool {
		return !isReady(pod) && pod.Status.ContainerStatuses[0].State.Running != nil
	})
}

func TestADeletedPodEndsPolitelyAndItsObjectGoes(t *testing.T) {
	c := runKubelet(t)
	pod := c.create(c.witnessPod())
	c.until(pod, "ready", isReady)
	pid, err := c.Pid(pod.Namespace, pod.Name)
	if err != nil {
		t.Fatal(err)
	}
	// The fake API server knows no graceful deletion, so the test marks the
	// pod as the real one does.
	c.mark(pod)
	c.until(pod, "gone", func(pod *v1.Pod) bool { return pod == nil })
	if log := c.log(pod); !strings.Contains(log, "terminated") {
		t.Errorf("the container did not get SIGTERM:\n%s", log)
	}
	if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
		t.Errorf("process %d is still there: %v", pid, err)
	}
	if left, _ := os.ReadDir(c.podsDir()); len(left) > 0 {
		t.Errorf("the pod's folders are still there: %v", left)
	}
}

func TestAPodThatCannotStartSaysWhy(t *testing.T) {
	for _, test := range []struct {
		name            string
		change          func(*v1.Pod)
		reason, message string
	}{
		{
			"a command that the image does not have",
			func(pod *v1.Pod) { pod.Spec.Containers[0].Command = []string{"/agent"} },
			"RunContainerError", "/agent",
		},
		{
			"an image that nobody built",
			func(pod *v1.Pod) { pod.Spec.Containers[0].Image = ImagePrefix + "other:v1" },
			"ErrImagePull", "ghcr.io/netlatency/other:v1",
		},
		{
			"a ConfigMap that is missing",
			func(pod *v1.Pod) { pod.Spec.Volumes[1].ConfigMap.Name = "absent" },
			"ContainerCreating", `configmaps "absent" not found`,
		},
		{
			"root without leave",
			func(pod *v1.Pod) { pod.Spec.SecurityContext.RunAsUser = ptr.To[int64](0) },
			"CreateContainerConfigError", "runAsNonRoot",
		},
		{
			"an init container",
			func(pod *v1.Pod) { pod.Spec.InitContainers = []v1.Container{{Name: "init", Image: testImage}} },
			"CreateContainerConfigError", "spec.initContainers: init containers are not supported",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := runKubelet(t)
			pod := c.create(c.witnessPod(test.change))
			now := c.until(pod, "waiting with a reason", func(pod *v1.Pod) bool {
				return len(pod.Status.ContainerStatuses) > 0 && pod.Status.ContainerStatuses[0].State.Waiting != nil
			})
			waiting := now.Status.ContainerStatuses[0].State.Waiting
			if waiting.Reason != test.reason || !strings.Contains(waiting.Message, test.message) {
				t.Errorf("waiting because %s: %s\nwant %s: …%s…", waiting.Reason, waiting.Message, test.reason, test.message)
			}
			if now.Status.Phase != v1.PodPending {
				t.Errorf("phase is %s, want Pending", now.Status.Phase)
			}
			c.mark(pod)
			c.until(pod, "gone", func(pod *v1.Pod) bool { return pod == nil })
		})
	}
}

func TestNoContainerOutlivesTheKubelet(t *testing.T) {
	c := runKubelet(t)
	pod := c.create(c.witnessPod())
	c.until(pod, "ready", isReady)
	pid, err := c.Pid(pod.Namespace, pod.Name)
	if err != nil {
		t.Fatal(err)
	}
	c.stop()
	if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
		t.Errorf("process %d is still there: %v", pid, err)
	}
}
