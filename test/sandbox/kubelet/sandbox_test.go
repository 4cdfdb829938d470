package kubelet

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	"github.com/netlatency/netlatency/test/sandbox/namespace"
)

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
	t.Helper()
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

func (c *cluster) log(pod *v1.Pod) string {
	c.Helper()
	content, err := os.ReadFile(c.Log(pod.Namespace, pod.Name, "agent"))
	if err != nil {
		c.Fatal(err)
	}
	return string(content)
}

// mark sets the pod's deletion timestamp.
func (c *cluster) mark(pod *v1.Pod) {
	c.Helper()
	for {
		now, err := c.client.CoreV1().Pods(pod.Namespace).Get(c.Context(), pod.Name, metav1.GetOptions{})
		if err != nil {
			c.Fatal(err)
		}
		now.DeletionTimestamp = new(metav1.NewTime(time.Now().Add(30 * time.Second)))
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
