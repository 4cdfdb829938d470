package kubelet

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	"github.com/netlatency/netlatency/test/sandbox/namespace"
)

// These tests run real pods: this test binary, as the witness, in the network
// namespace of a node.

// cluster is a running Kubelet with one node.
type cluster struct {
	*testing.T
	*Kubelet
	client *fake.Clientset
	node   *namespace.Node
	stop   func()
}

// runKubelet runs a Kubelet until the test ends.
func runKubelet(t *testing.T) *cluster {
	node, err := namespace.NewNode(testNode, 7)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { node.Close() })
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	client := apiServer()
	k, err := New(Options{
		Client: client,
		Nodes:  []*namespace.Node{node},
		Images: map[string]Image{testImage: {Path: binary, Entrypoint: "/netlatency-agent"}},
		Dir:    t.TempDir(),
		Logger: klog.Background(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- k.Run(ctx) }()
	c := &cluster{T: t, Kubelet: k, client: client, node: node}
	c.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		ended <- nil
	}
	t.Cleanup(func() {
		c.stop()
		if t.Failed() {
			logs, _ := filepath.Glob(filepath.Join(k.logsDir(), "*"))
			for _, log := range logs {
				content, _ := os.ReadFile(log)
				t.Logf("%s:\n%s", filepath.Base(log), content)
			}
		}
	})
	return c
}

// witnessPod is the agent's pod with the witness as its program.
func (c *cluster) witnessPod(change ...func(*v1.Pod)) *v1.Pod {
	return agentPod(append([]func(*v1.Pod){func(pod *v1.Pod) {
		container := &pod.Spec.Containers[0]
		container.Args = []string{witness, "$(POD_IP):9465", "/,/tmp,/cache,/etc/netlatency,/dev,/var/run/secrets/kubernetes.io/serviceaccount", strings.Join([]string{
			"/etc/netlatency/config.yaml",
			"/var/run/secrets/kubernetes.io/serviceaccount/token",
			"/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
			"/var/run/secrets/kubernetes.io/serviceaccount/namespace",
		}, ",")}
		container.Env = []v1.EnvVar{
			{Name: "POD_IP", ValueFrom: &v1.EnvVarSource{FieldRef: &v1.ObjectFieldSelector{FieldPath: "status.podIP"}}},
			{Name: "GOMEMLIMIT", ValueFrom: &v1.EnvVarSource{ResourceFieldRef: &v1.ResourceFieldSelector{Resource: "limits.memory"}}},
		}
		container.ReadinessProbe = httpProbe("/readyz", func(p *v1.Probe) { p.PeriodSeconds, p.FailureThreshold = 1, 1 })
		container.VolumeMounts = append(container.VolumeMounts,
			v1.VolumeMount{Name: "config", MountPath: "/etc/netlatency", ReadOnly: true},
			v1.VolumeMount{Name: "cache", MountPath: "/cache"})
		pod.Spec.Volumes = append(pod.Spec.Volumes,
			v1.Volume{Name: "config", VolumeSource: v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{
				LocalObjectReference: v1.LocalObjectReference{Name: "config"}, Items: []v1.KeyToPath{{Key: "config.yaml", Path: "config.yaml"}},
			}}},
			v1.Volume{Name: "cache", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}})
	}}, change...)...)
}

func (c *cluster) create(pod *v1.Pod) *v1.Pod {
	c.Helper()
	created, err := c.client.CoreV1().Pods(pod.Namespace).Create(c.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		c.Fatal(err)
	}
	return created
}

// until waits until the pod (nil when it is gone) is as wanted.
func (c *cluster) until(pod *v1.Pod, what string, wanted func(*v1.Pod) bool) *v1.Pod {
	c.Helper()
	var now *v1.Pod
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		var err error
		now, err = c.client.CoreV1().Pods(pod.Namespace).Get(c.Context(), pod.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			now = nil
		} else if err != nil {
			c.Fatal(err)
		}
		if wanted(now) {
			return now
		}
	}
	if now == nil {
		now = &v1.Pod{}
	}
	status, _ := json.MarshalIndent(now.Status, "", "  ")
	c.Fatalf("pod %s is not %s: %s", pod.Name, what, status)
	return nil
}

// ask asks the witness from its node.
func (c *cluster) ask(path string) ([]byte, error) {
	client := &http.Client{Transport: &http.Transport{DialContext: c.node.Dial, DisableKeepAlives: true}}
	answer, err := client.Get("http://" + c.node.WAN.String() + ":9465" + path)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	return io.ReadAll(answer.Body)
}

func (c *cluster) testimony() testimony {
	c.Helper()
	answer, err := c.ask("/")
	if err != nil {
		c.Fatal(err)
	}
	var told testimony
	if err := json.Unmarshal(answer, &told); err != nil {
		c.Fatal(err)
	}
	return told
}

func isReady(pod *v1.Pod) bool {
	return pod != nil && slices.ContainsFunc(pod.Status.Conditions, func(c v1.PodCondition) bool {
		return c.Type == v1.PodReady && c.Status == v1.ConditionTrue
	})
}

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
		pod.Spec.Containers[0].SecurityContext.ReadOnlyRootFilesystem = ptr.To(false)
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

func (c *cluster) log(pod *v1.Pod) string {
	c.Helper()
	content, err := os.ReadFile(c.Log(pod.Namespace, pod.Name, "agent"))
	if err != nil {
		c.Fatal(err)
	}
	return string(content)
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

// mark sets the pod's deletion timestamp.
func (c *cluster) mark(pod *v1.Pod) {
	c.Helper()
	for {
		now, err := c.client.CoreV1().Pods(pod.Namespace).Get(c.Context(), pod.Name, metav1.GetOptions{})
		if err != nil {
			c.Fatal(err)
		}
		now.DeletionTimestamp = ptr.To(metav1.NewTime(time.Now().Add(30 * time.Second)))
		now.DeletionGracePeriodSeconds = ptr.To[int64](30)
		_, err = c.client.CoreV1().Pods(pod.Namespace).Update(c.Context(), now, metav1.UpdateOptions{})
		if err == nil {
			return
		}
		if !apierrors.IsConflict(err) {
			c.Fatal(err)
		}
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
