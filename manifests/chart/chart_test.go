package chart_test

import (
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"
)

const (
	agentKey     = "DaemonSet netlatency/netlatency-agent"
	schedulerKey = "Deployment netlatency/netlatency-scheduler"
)

func TestHelmLintFindsNothing(t *testing.T) {
	linter := lint.AllWithKubeVersion(chartDirectory, nil, "netlatency", &chartutil.KubeVersion{Version: "v1.36.3", Major: "1", Minor: "36"})
	for _, message := range linter.Messages {
		if message.Severity > support.InfoSev {
			t.Error(message)
		}
	}
}

func TestSupportedKubernetesVersions(t *testing.T) {
	constraint := load(t).Metadata.KubeVersion
	for version, want := range map[string]bool{
		"v1.33.9": false, "v1.34.0": true, "v1.34.3-gke.1245000": true, "v1.36.3": true, "v1.37.2+k3s1": true,
	} {
		if got := chartutil.IsCompatibleRange(constraint, version); got != want {
			t.Errorf("Kubernetes %s allowed: %v, want %v", version, got, want)
		}
	}
}

func TestWhatIsInstalled(t *testing.T) {
	want := []string{
		"ClusterRoleBinding netlatency-scheduler:kube-scheduler",
		"ClusterRoleBinding netlatency-scheduler:volume-scheduler",
		"ConfigMap netlatency/netlatency-scheduler-config",
		"DaemonSet netlatency/netlatency-agent",
		"Deployment netlatency/netlatency-scheduler",
		"PodDisruptionBudget netlatency/netlatency-scheduler",
		"Role netlatency/netlatency-agent",
		"Role netlatency/netlatency-scheduler",
		"RoleBinding kube-system/netlatency-scheduler:extension-apiserver-authentication-reader",
		"RoleBinding netlatency/netlatency-agent",
		"RoleBinding netlatency/netlatency-scheduler",
		"Service netlatency/netlatency-agent",
		"ServiceAccount netlatency/netlatency-agent",
		"ServiceAccount netlatency/netlatency-scheduler",
	}
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(render(t, "")))); diff != "" {
		t.Errorf("objects (-want +got):\n%s", diff)
	}
}

// GitOps tools compare renderings: whatever is random, tells the time or asks
// the cluster would be a change each time, and hooks are not theirs to run.
func TestRenderingTwiceGivesTheSame(t *testing.T) {
	for name, values := range map[string]string{"as shipped": "", "with every value": everyValue, "for Claudie": claudie(t)} {
		t.Run(name, func(t *testing.T) {
			first, err := renderFiles(t, values)
			if err != nil {
				t.Fatal(err)
			}
			upgrade := chartutil.ReleaseOptions{Name: "netlatency", Namespace: "netlatency", Revision: 2, IsUpgrade: true}
			second, err := renderRelease(t, upgrade, values)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(first, second); diff != "" {
				t.Errorf("second rendering (-first +second):\n%s", diff)
			}
		})
	}
	for _, template := range load(t).Templates {
		for _, unsteady := range []string{"lookup", "genCA", "genSignedCert", "genSelfSignedCert", "genPrivateKey", "randAlpha", "randNumeric", "randAscii", "randBytes", "uuidv4", "now", "helm.sh/hook"} {
			if regexp.MustCompile(`\{\{[^}]*\b` + regexp.QuoteMeta(unsteady) + `\b|helm\.sh/hook`).Match(template.Data) {
				t.Errorf("%s uses %s", template.Name, unsteady)
			}
		}
	}
}

// claudie is the values for clusters made by Claudie.
func claudie(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("netlatency/values-claudie.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestValuesForClaudieChangeSomething(t *testing.T) {
	var given map[string]any
	if err := yaml.UnmarshalStrict([]byte(claudie(t)), &given); err != nil {
		t.Fatal(err)
	}
	defaults := load(t).Values
	var unchanged func(path string, values map[string]any)
	unchanged = func(path string, values map[string]any) {
		for name, value := range values {
			below := strings.TrimPrefix(path+"."+name, ".")
			if inner, ok := value.(map[string]any); ok {
				unchanged(below, inner)
			} else if cmp.Equal(value, at(defaults, below)) {
				t.Errorf("%s is %v without it", below, value)
			}
		}
	}
	unchanged("", given)
	configuration(t, claudie(t))
}

func TestEveryNodeRunsAnAgentWhateverItsTaints(t *testing.T) {
	spec := get[*appsv1.DaemonSet](t, render(t, ""), agentKey).Spec.Template.Spec
	if diff := cmp.Diff([]corev1.Toleration{{Operator: corev1.TolerationOpExists}}, spec.Tolerations); diff != "" {
		t.Errorf("tolerations (-want +got):\n%s", diff)
	}
}

func TestAgentsAreReplacedATenthAtATime(t *testing.T) {
	strategy := get[*appsv1.DaemonSet](t, render(t, ""), agentKey).Spec.UpdateStrategy
	if got := strategy.RollingUpdate.MaxUnavailable.String(); strategy.Type != appsv1.RollingUpdateDaemonSetStrategyType || got != "10%" {
		t.Errorf("%s with %s unavailable, want RollingUpdate with 10%%", strategy.Type, got)
	}
}

func TestTheServiceLeadsToReadyAgents(t *testing.T) {
	objects := render(t, "")
	service := get[*corev1.Service](t, objects, "Service netlatency/netlatency-agent")
	if service.Spec.ClusterIP != corev1.ClusterIPNone || service.Spec.PublishNotReadyAddresses {
		t.Error("the Service is not headless or publishes agents that are not ready")
	}
	template := get[*appsv1.DaemonSet](t, objects, agentKey).Spec.Template
	if !labels.SelectorFromSet(service.Spec.Selector).Matches(labels.Set(template.Labels)) {
		t.Errorf("selector %v does not choose pods with labels %v", service.Spec.Selector, template.Labels)
	}
	type port struct {
		name     string
		number   int32
		protocol corev1.Protocol
	}
	want := []port{{"http", 9465, corev1.ProtocolTCP}, {"probe", 9465, corev1.ProtocolUDP}}
	var ofService, ofContainer []port
	for _, p := range service.Spec.Ports {
		if p.TargetPort.StrVal != p.Name {
			t.Errorf("port %s of the Service leads to %s", p.Name, p.TargetPort.String())
		}
		ofService = append(ofService, port{p.Name, p.Port, p.Protocol})
	}
	for _, p := range template.Spec.Containers[0].Ports {
		ofContainer = append(ofContainer, port{p.Name, p.ContainerPort, p.Protocol})
	}
	if !slices.Equal(ofService, want) || !slices.Equal(ofContainer, want) {
		t.Errorf("ports %v of the Service and %v of the pod, want %v", ofService, ofContainer, want)
	}
}

func TestReplicasOfTheSchedulerKeepApartAndOneStays(t *testing.T) {
	objects := render(t, "")
	deployment := get[*appsv1.Deployment](t, objects, schedulerKey)
	if got := *deployment.Spec.Replicas; got != 2 {
		t.Errorf("%d replicas, want 2", got)
	}
	pod := labels.Set(deployment.Spec.Template.Labels)
	budget := get[*policyv1.PodDisruptionBudget](t, objects, "PodDisruptionBudget netlatency/netlatency-scheduler")
	if budget.Spec.MaxUnavailable.IntValue() != 1 || !labels.SelectorFromSet(budget.Spec.Selector.MatchLabels).Matches(pod) {
		t.Errorf("the disruption budget %+v does not protect the scheduler", budget.Spec)
	}
	term := deployment.Spec.Template.Spec.Affinity.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution[0].PodAffinityTerm
	if term.TopologyKey != corev1.LabelHostname || !labels.SelectorFromSet(term.LabelSelector.MatchLabels).Matches(pod) {
		t.Errorf("the anti-affinity %+v does not keep schedulers apart", term)
	}
	agent := labels.Set(get[*appsv1.DaemonSet](t, objects, agentKey).Spec.Template.Labels)
	if labels.SelectorFromSet(budget.Spec.Selector.MatchLabels).Matches(agent) {
		t.Error("the scheduler's selector chooses agents as well")
	}
}

func TestPermissions(t *testing.T) {
	objects := render(t, "")
	read := []string{"get", "list", "watch"}
	for key, want := range map[string][]rbacv1.PolicyRule{
		"Role netlatency/netlatency-agent": {
			{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: read},
		},
		"Role netlatency/netlatency-scheduler": {
			{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, Verbs: []string{"create"}},
			{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, ResourceNames: []string{"netlatency-scheduler", "netlatency-targets"}, Verbs: []string{"get", "update"}},
			{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: append(read, "create", "update", "delete")},
		},
	} {
		if diff := cmp.Diff(want, get[*rbacv1.Role](t, objects, key).Rules); diff != "" {
			t.Errorf("%s (-want +got):\n%s", key, diff)
		}
	}

	got := map[string]string{} // subject to role, both with their kind
	for key, object := range objects {
		var role rbacv1.RoleRef
		var subjects []rbacv1.Subject
		switch binding := object.(type) {
		case *rbacv1.RoleBinding:
			role, subjects = binding.RoleRef, binding.Subjects
		case *rbacv1.ClusterRoleBinding:
			role, subjects = binding.RoleRef, binding.Subjects
		default:
			continue
		}
		if len(subjects) != 1 {
			t.Errorf("%s has subjects %v, want one", key, subjects)
			continue
		}
		got[key] = subjects[0].Kind + " " + subjects[0].Namespace + "/" + subjects[0].Name + " has " + role.Kind + " " + role.Name
	}
	want := map[string]string{
		"RoleBinding netlatency/netlatency-agent":                                                "ServiceAccount netlatency/netlatency-agent has Role netlatency-agent",
		"RoleBinding netlatency/netlatency-scheduler":                                            "ServiceAccount netlatency/netlatency-scheduler has Role netlatency-scheduler",
		"RoleBinding kube-system/netlatency-scheduler:extension-apiserver-authentication-reader": "ServiceAccount netlatency/netlatency-scheduler has Role extension-apiserver-authentication-reader",
		"ClusterRoleBinding netlatency-scheduler:kube-scheduler":                                 "ServiceAccount netlatency/netlatency-scheduler has ClusterRole system:kube-scheduler",
		"ClusterRoleBinding netlatency-scheduler:volume-scheduler":                               "ServiceAccount netlatency/netlatency-scheduler has ClusterRole system:volume-scheduler",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("bindings (-want +got):\n%s", diff)
	}
	for key, account := range map[string]string{
		agentKey:     get[*appsv1.DaemonSet](t, objects, agentKey).Spec.Template.Spec.ServiceAccountName,
		schedulerKey: get[*appsv1.Deployment](t, objects, schedulerKey).Spec.Template.Spec.ServiceAccountName,
	} {
		if _, ok := objects["ServiceAccount netlatency/"+account]; !ok {
			t.Errorf("%s runs as ServiceAccount %s, which the chart does not have", key, account)
		}
	}
}

func TestImages(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0a", 32)
	for _, c := range []struct{ name, values, agent, scheduler string }{
		{"the chart's own version", "", "ghcr.io/netlatency/agent:0.1.0", "ghcr.io/netlatency/scheduler:0.1.0"},
		{
			"a mirror, a tag and a digest", "{agent: {image: {repository: mirror/agent, tag: v1}}, scheduler: {image: {tag: v1, digest: '" + digest + "'}}}",
			"mirror/agent:v1", "ghcr.io/netlatency/scheduler@" + digest,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			objects := render(t, c.values)
			if got := get[*appsv1.DaemonSet](t, objects, agentKey).Spec.Template.Spec.Containers[0].Image; got != c.agent {
				t.Errorf("agent's image %s, want %s", got, c.agent)
			}
			if got := get[*appsv1.Deployment](t, objects, schedulerKey).Spec.Template.Spec.Containers[0].Image; got != c.scheduler {
				t.Errorf("scheduler's image %s, want %s", got, c.scheduler)
			}
		})
	}
}

func TestTheSchedulerFindsItsConfiguration(t *testing.T) {
	objects := render(t, "")
	spec := get[*appsv1.Deployment](t, objects, schedulerKey).Spec.Template.Spec
	volume, mount := spec.Volumes[0], spec.Containers[0].VolumeMounts[0]
	configMap := get[*corev1.ConfigMap](t, objects, "ConfigMap netlatency/"+volume.ConfigMap.Name)
	if volume.Name != mount.Name || !mount.ReadOnly {
		t.Errorf("volume %s is mounted as %+v", volume.Name, mount)
	}
	directory, key := path.Split(strings.TrimPrefix(spec.Containers[0].Args[0], "--config="))
	if path.Clean(directory) != mount.MountPath || configMap.Data[key] == "" {
		t.Errorf("%s is not in the volume, which has %v at %s", spec.Containers[0].Args[0], slices.Sorted(maps.Keys(configMap.Data)), mount.MountPath)
	}
}

func TestEmulatedVersionIsPassedOnWhenSet(t *testing.T) {
	for values, want := range map[string][]string{
		"": {"--config=/etc/netlatency/scheduler-config.yaml"},
		`scheduler: {emulatedVersion: "1.34", extraArgs: [--v=4]}`: {"--config=/etc/netlatency/scheduler-config.yaml", "--emulated-version=1.34", "--v=4"},
	} {
		got := get[*appsv1.Deployment](t, render(t, values), schedulerKey).Spec.Template.Spec.Containers[0].Args
		if !slices.Equal(got, want) {
			t.Errorf("arguments %q with values %q, want %q", got, values, want)
		}
	}
}

func TestANewConfigurationRestartsTheScheduler(t *testing.T) {
	checksum := func(values string) string {
		return get[*appsv1.Deployment](t, render(t, values), schedulerKey).Spec.Template.Annotations["checksum/config"]
	}
	before := checksum("")
	if before == "" || before == checksum("scheduler: {args: {staleAfter: 5m}}") {
		t.Errorf("the pod template's checksum %q does not follow the configuration", before)
	}
	if before != checksum("agent: {burst: 5}") {
		t.Error("the scheduler restarts for a change of the agents")
	}
}

func TestNotesSayWhatToDoNext(t *testing.T) {
	files, err := renderFiles(t, "")
	if err != nil {
		t.Fatal(err)
	}
	notes := files["netlatency/templates/NOTES.txt"]
	for _, want := range []string{
		"\n    schedulerName: netlatency-scheduler\n",
		"\nTargets: qdrant, gpu\n",
		"kubectl -n netlatency get pods",
		"pod-security.kubernetes.io/enforce=restricted",
		"\n    kubectl get pods --all-namespaces --field-selector spec.schedulerName=netlatency-scheduler\n    kubectl get pods --all-namespaces --field-selector spec.schedulerName=netlatency-scheduler-pack\n",
	} {
		if !strings.Contains(notes, want) {
			t.Errorf("the notes lack %q:\n%s", want, notes)
		}
	}
}
