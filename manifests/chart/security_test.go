package chart_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"k8s.io/utils/ptr"
)

func podTemplates(t *testing.T, values string) map[string]corev1.PodTemplateSpec {
	t.Helper()
	objects := render(t, values)
	return map[string]corev1.PodTemplateSpec{
		"agent":     get[*appsv1.DaemonSet](t, objects, agentKey).Spec.Template,
		"scheduler": get[*appsv1.Deployment](t, objects, schedulerKey).Spec.Template,
	}
}

// restricted is what the API server's Pod Security admission says about a pod
// in a namespace that enforces "restricted".
func restricted(t *testing.T, template corev1.PodTemplateSpec) policy.AggregateCheckResult {
	t.Helper()
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	level := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	return policy.AggregateCheckResults(evaluator.EvaluatePod(level, &template.ObjectMeta, &template.Spec))
}

func TestPodSecurityRestrictedAdmitsAllPods(t *testing.T) {
	for name, template := range podTemplates(t, "") {
		if result := restricted(t, template); !result.Allowed {
			t.Errorf("%s: %s", name, result.ForbiddenDetail())
		}
	}
}

func TestContainersHaveNoMoreThanTheyNeed(t *testing.T) {
	for name, template := range podTemplates(t, "") {
		t.Run(name, func(t *testing.T) {
			pod, container := template.Spec.SecurityContext, template.Spec.Containers[0].SecurityContext
			if ptr.Deref(pod.RunAsUser, 0) != 65532 || ptr.Deref(pod.RunAsGroup, 0) != 65532 {
				t.Error("does not run as user and group 65532")
			}
			if !ptr.Deref(container.ReadOnlyRootFilesystem, false) {
				t.Error("may write its root file system")
			}
			if len(container.Capabilities.Add) > 0 {
				t.Errorf("has capabilities %v", container.Capabilities.Add)
			}
			for _, volume := range template.Spec.Volumes {
				if volume.ConfigMap == nil {
					t.Errorf("has volume %s, which is not configuration", volume.Name)
				}
			}
			resources := template.Spec.Containers[0].Resources
			if resources.Requests.Cpu().IsZero() || resources.Requests.Memory().IsZero() || resources.Limits.Memory().IsZero() {
				t.Errorf("asks for %v: a neighbour's burst would starve it", resources)
			}
		})
	}
}

func TestTheOnlySysctlOpensPingsToTheAgentsGroup(t *testing.T) {
	for name, want := range map[string][]corev1.Sysctl{
		"agent":     {{Name: "net.ipv4.ping_group_range", Value: "65532 65532"}},
		"scheduler": nil,
	} {
		got := podTemplates(t, "")[name].Spec.SecurityContext.Sysctls
		if len(got) != len(want) || len(want) > 0 && got[0] != want[0] {
			t.Errorf("%s has sysctls %v, want %v", name, got, want)
		}
	}
}

func TestProbesAskThePodItself(t *testing.T) {
	https := corev1.HTTPGetAction{Port: intstr.FromString("https"), Scheme: corev1.URISchemeHTTPS}
	http := corev1.HTTPGetAction{Port: intstr.FromString("http")}
	templates := podTemplates(t, "")
	for name, want := range map[string]corev1.HTTPGetAction{"agent": http, "scheduler": https} {
		container := templates[name].Spec.Containers[0]
		for path, probe := range map[string]*corev1.Probe{"/readyz": container.ReadinessProbe, "/healthz": container.LivenessProbe} {
			want.Path = path
			if diff := cmp.Diff(&want, probe.HTTPGet); diff != "" {
				t.Errorf("%s of the %s (-want +got):\n%s", path, name, diff)
			}
		}
	}
}

// With the node's own network a sysctl of the pod's would be refused.
func TestAgentInTheNodesNetwork(t *testing.T) {
	spec := podTemplates(t, "agent: {hostNetwork: true}")["agent"].Spec
	if !spec.HostNetwork || spec.DNSPolicy != corev1.DNSClusterFirstWithHostNet {
		t.Errorf("host network %v with DNS policy %q", spec.HostNetwork, spec.DNSPolicy)
	}
	if len(spec.SecurityContext.Sysctls) > 0 {
		t.Errorf("has sysctls %v", spec.SecurityContext.Sysctls)
	}
}
