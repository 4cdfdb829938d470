package kubelet

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func testEnvironment(pod *v1.Pod) environment {
	return environment{
		client: apiServer(), pod: pod, address: netip.MustParseAddr("10.250.0.8"), apiServer: [2]string{"10.251.0.1", "6443"},
	}
}

func field(path string) *v1.EnvVarSource {
	return &v1.EnvVarSource{FieldRef: &v1.ObjectFieldSelector{FieldPath: path}}
}

func configMapKey(name, key string, optional bool) *v1.EnvVarSource {
	return &v1.EnvVarSource{ConfigMapKeyRef: &v1.ConfigMapKeySelector{
		LocalObjectReference: v1.LocalObjectReference{Name: name}, Key: key, Optional: &optional,
	}}
}

func secretKey(name, key string, optional bool) *v1.EnvVarSource {
	return &v1.EnvVarSource{SecretKeyRef: &v1.SecretKeySelector{
		LocalObjectReference: v1.LocalObjectReference{Name: name}, Key: key, Optional: &optional,
	}}
}

func limit(name, divisor string) *v1.EnvVarSource {
	return &v1.EnvVarSource{ResourceFieldRef: &v1.ResourceFieldSelector{Resource: name, Divisor: resource.MustParse(divisor)}}
}

func TestVariablesComeFromWhereTheManifestSays(t *testing.T) {
	for _, test := range []struct {
		name string
		from *v1.EnvVarSource
		want string
	}{
		{"the pod's name", field("metadata.name"), "agent-x7k2p"},
		{"the pod's namespace", field("metadata.namespace"), "netlatency"},
		{"the pod's uid", field("metadata.uid"), "3d0b"},
		{"a label", field("metadata.labels['x']"), "from a label"},
		{"the node", field("spec.nodeName"), "storage-1"},
		{"the ServiceAccount", field("spec.serviceAccountName"), "netlatency-agent"},
		{"the pod's address is the node's", field("status.podIP"), "10.250.0.8"},
		{"the pod's addresses", field("status.podIPs"), "10.250.0.8"},
		{"the node's address", field("status.hostIP"), "10.250.0.8"},
		{"a limit in bytes", limit("limits.memory", "1"), "67108864"},
		{"a limit in MiB", limit("limits.memory", "1Mi"), "64"},
		{"a limit that is not set is what the node has", limit("limits.cpu", "1"), "4"},
		{"a ConfigMap's key", configMapKey("config", "key", false), "from a ConfigMap"},
		{"a Secret's key", secretKey("secret", "key", false), "from a Secret"},
	} {
		t.Run(test.name, func(t *testing.T) {
			pod := agentPod()
			c := &pod.Spec.Containers[0]
			c.Resources.Limits = v1.ResourceList{v1.ResourceMemory: resource.MustParse("64Mi")}
			c.Env = []v1.EnvVar{{Name: "VALUE", ValueFrom: test.from}}
			_, got, err := testEnvironment(pod).variables(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got["VALUE"]); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAnOptionalVariableThatIsMissingIsNotSetAndAnotherIsAnError(t *testing.T) {
	for name, from := range map[string]func(optional bool) *v1.EnvVarSource{
		"no such ConfigMap":        func(optional bool) *v1.EnvVarSource { return configMapKey("absent", "key", optional) },
		"no such key in ConfigMap": func(optional bool) *v1.EnvVarSource { return configMapKey("config", "absent", optional) },
		"no such Secret":           func(optional bool) *v1.EnvVarSource { return secretKey("absent", "key", optional) },
		"no such key in Secret":    func(optional bool) *v1.EnvVarSource { return secretKey("secret", "absent", optional) },
	} {
		t.Run(name, func(t *testing.T) {
			pod := agentPod()
			c := &pod.Spec.Containers[0]
			c.Env = []v1.EnvVar{{Name: "VALUE", ValueFrom: from(true)}}
			_, got, err := testEnvironment(pod).variables(t.Context(), c)
			if value, set := got["VALUE"]; err != nil || set {
				t.Errorf("optional: got %q, %v", value, err)
			}
			c.Env[0].ValueFrom = from(false)
			_, _, err = testEnvironment(pod).variables(t.Context(), c)
			if err == nil || !strings.Contains(err.Error(), "environment variable VALUE") || !strings.Contains(err.Error(), "absent") {
				t.Errorf("error names neither variable nor what is missing: %v", err)
			}
		})
	}
}

func TestReferencesToVariablesAreReplaced(t *testing.T) {
	pod := agentPod()
	c := &pod.Spec.Containers[0]
	c.Env = []v1.EnvVar{
		{Name: "EARLY", Value: "$(LATE)"},
		{Name: "NODE_NAME", ValueFrom: field("spec.nodeName")},
		{Name: "LATE", Value: "on $(NODE_NAME)"},
		{Name: "SERVER", Value: "https://$(KUBERNETES_SERVICE_HOST):$(KUBERNETES_SERVICE_PORT)"},
	}
	c.Args = []string{"--node-name=$(NODE_NAME)", "$$(NODE_NAME)", "$(UNKNOWN)", "$NODE_NAME"}
	list, byName, err := testEnvironment(pod).variables(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"EARLY=$(LATE)", "NODE_NAME=storage-1", "LATE=on storage-1", "SERVER=https://10.251.0.1:6443"}
	if diff := cmp.Diff(want, list[len(list)-4:]); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
	want = []string{"/entrypoint", "--node-name=storage-1", "$(NODE_NAME)", "$(UNKNOWN)", "$NODE_NAME"}
	if diff := cmp.Diff(want, command(c, "/entrypoint", byName)); diff != "" {
		t.Errorf("arguments (-want +got):\n%s", diff)
	}
	c.Command = []string{"/bin/$(NODE_NAME)", "first"}
	want = slices.Concat([]string{"/bin/storage-1", "first"}, want[1:])
	if diff := cmp.Diff(want, command(c, "/entrypoint", byName)); diff != "" {
		t.Errorf("with a command (-want +got):\n%s", diff)
	}
}

func TestOurPodsAreThoseWithOurImages(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*v1.Pod)
		want   bool
	}{
		{"an agent", func(*v1.Pod) {}, true},
		{"somebody else's image", func(pod *v1.Pod) { pod.Spec.Containers[0].Image = "rayproject/ray:2.46" }, false},
		{"a mirror of ours", func(pod *v1.Pod) { pod.Spec.Containers[0].Image = "mirror.example/ghcr.io/netlatency/agent" }, false},
		{"ours beside another", func(pod *v1.Pod) {
			pod.Spec.Containers = append([]v1.Container{{Image: "proxy"}}, pod.Spec.Containers...)
		}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := Ours(agentPod(test.change)); got != test.want {
				t.Errorf("got %t", got)
			}
		})
	}
}

func TestWhatWouldNotBeDoneIsListed(t *testing.T) {
	if faults := unsupported(agentPod()); len(faults) > 0 {
		t.Fatalf("the chart's agent: %q", faults)
	}
	for want, change := range map[string]func(*v1.Pod){
		"spec.initContainers: init containers are not supported":      func(p *v1.Pod) { p.Spec.InitContainers = make([]v1.Container, 1) },
		"spec.containers: exactly one container is supported, not 2":  func(p *v1.Pod) { p.Spec.Containers = append(p.Spec.Containers, v1.Container{}) },
		"spec.hostPID: not supported":                                 func(p *v1.Pod) { p.Spec.HostPID = true },
		"spec.securityContext.sysctls[0]: forbidden with hostNetwork": func(p *v1.Pod) { p.Spec.HostNetwork = true },
		"spec.securityContext.sysctls[0]: net.core.somaxconn is not supported, only net.ipv4.ping_group_range": func(p *v1.Pod) {
			p.Spec.SecurityContext.Sysctls[0].Name = "net.core.somaxconn"
		},
		"spec.volumes[1]: volume host: only configMap, secret, emptyDir, downwardAPI and projected are supported": func(p *v1.Pod) {
			p.Spec.Volumes = append(p.Spec.Volumes, v1.Volume{Name: "host", VolumeSource: v1.VolumeSource{HostPath: &v1.HostPathVolumeSource{}}})
		},
		"spec.containers[0].volumeMounts[0]: subPath is not supported": func(p *v1.Pod) { p.Spec.Containers[0].VolumeMounts[0].SubPath = "x" },
		"spec.containers[0].ports[0].hostPort: not supported":          func(p *v1.Pod) { p.Spec.Containers[0].Ports[0].HostPort = 80 },
		"spec.containers[0].livenessProbe: only httpGet probes are supported": func(p *v1.Pod) {
			p.Spec.Containers[0].LivenessProbe = &v1.Probe{ProbeHandler: v1.ProbeHandler{Exec: &v1.ExecAction{}}}
		},
		"spec.containers[0].lifecycle.preStop: only sleep is supported": func(p *v1.Pod) {
			p.Spec.Containers[0].Lifecycle = &v1.Lifecycle{PreStop: &v1.LifecycleHandler{Exec: &v1.ExecAction{}}}
		},
		"spec.containers[0].securityContext.privileged: not supported": func(p *v1.Pod) {
			p.Spec.Containers[0].SecurityContext.Privileged = new(true)
		},
	} {
		if diff := cmp.Diff([]string{want}, unsupported(agentPod(change))); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}
