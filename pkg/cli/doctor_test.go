package cli

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	apiversion "k8s.io/apimachinery/pkg/version"
	fakediscovery "k8s.io/client-go/discovery/fake"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/source"
)

// patient is a cluster in which everything is as it should be, until a test
// makes it ill.
type patient struct {
	nodes         []*corev1.Node
	agents        *appsv1.DaemonSet
	agentReady    map[string]bool // by node; absent: no pod
	scheduler     *appsv1.Deployment
	lease         *coordinationv1.Lease
	configuration string
	pods          []*corev1.Pod
	others        []runtime.Object
	minor         string
	forbidden     string // a resource that no account may touch
	measured      map[latency.Pair]latency.Distribution
	answered      int
	matrixErr     error
}

const doctorConfiguration = `
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
profiles:
- schedulerName: netlatency-scheduler
  plugins: {multiPoint: {enabled: [{name: NetLatency}]}}
  pluginConfig:
  - name: NetLatency
    args:
      targets:
      - {name: qdrant, pods: {labelSelector: {matchLabels: {app: qdrant}}}}
`

func healthy() *patient {
	labels := func(component string) map[string]string {
		return map[string]string{labelName: nameOfAll, labelComponent: component}
	}
	spec := func(image string, args ...string) corev1.PodTemplateSpec {
		return corev1.PodTemplateSpec{Spec: corev1.PodSpec{ServiceAccountName: "netlatency", Containers: []corev1.Container{{Image: image, Args: args}}}}
	}
	p := &patient{
		agents: &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: "netlatency", Name: "netlatency-agent", Labels: labels("agent")},
			Spec: appsv1.DaemonSetSpec{Template: spec("netlatency/agent:1.0.0", "--interval=4s", "--methods=udp,icmp,tcp")}},
		scheduler: &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "netlatency", Name: "netlatency-scheduler", Labels: labels("scheduler")},
			Spec:   appsv1.DeploymentSpec{Replicas: new(int32(2)), Template: spec("netlatency/scheduler:1.0.0", "--config=/c")},
			Status: appsv1.DeploymentStatus{ReadyReplicas: 2}},
		lease: &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "netlatency", Name: "netlatency-scheduler"},
			Spec: coordinationv1.LeaseSpec{HolderIdentity: new("scheduler-1"), RenewTime: &metav1.MicroTime{Time: time.Now()}}},
		configuration: doctorConfiguration,
		minor:         "36",
		agentReady:    make(map[string]bool),
		measured:      make(map[latency.Pair]latency.Distribution),
	}
	for _, n := range []struct{ name, provider string }{{"g-1", "gthost"}, {"g-2", "gthost"}, {"h-1", "hetzner"}} {
		p.nodes = append(p.nodes, st.MakeNode().Name(n.name).Label("netlatency.io/provider", n.provider).Obj())
		p.agentReady[n.name] = true
	}
	for _, node := range p.nodes {
		for _, peer := range p.nodes {
			if node != peer {
				p.measured[latency.Pair{Node: node.Name, Peer: peer.Name}] = latency.Distribution{
					Mean: time.Millisecond, P50: time.Millisecond, P90: time.Millisecond, P99: time.Millisecond, Min: time.Millisecond,
					Samples: 100, Sent: 100, Newest: time.Now(), Method: "udp",
				}
			}
		}
	}
	p.answered = len(p.nodes)
	p.pods = []*corev1.Pod{
		st.MakePod().Namespace("search").Name("q-0").UID("q-0").Label("app", "qdrant").Node("g-1").Phase(corev1.PodRunning).Condition(corev1.PodReady, corev1.ConditionTrue, "").Obj(),
		worker("w-0", "g-2"),
	}
	return p
}

// each changes the measurements of the pairs that chosen.
func (p *patient) each(chosen func(latency.Pair) bool, change func(*latency.Distribution)) {
	for pair, d := range p.measured {
		if chosen(pair) {
			change(&d)
			p.measured[pair] = d
		}
	}
}

func (p *patient) findings(t *testing.T) []finding {
	t.Helper()
	objects := append([]runtime.Object{}, p.others...)
	for _, node := range p.nodes {
		objects = append(objects, node)
		if ready, ok := p.agentReady[node.Name]; ok {
			agent := st.MakePod().Namespace("netlatency").Name("agent-"+node.Name).UID("agent-"+node.Name).Node(node.Name).Label(labelName, nameOfAll).Label(labelComponent, "agent").Phase(corev1.PodRunning)
			if ready {
				agent.Condition(corev1.PodReady, corev1.ConditionTrue, "")
			}
			objects = append(objects, agent.Obj())
		}
	}
	for _, pod := range p.pods {
		objects = append(objects, pod)
	}
	if p.agents != nil {
		objects = append(objects, p.agents)
	}
	if p.scheduler != nil {
		objects = append(objects, p.scheduler)
	}
	if p.lease != nil {
		objects = append(objects, p.lease)
	}
	objects = append(objects, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "netlatency", Name: "netlatency-scheduler-config", Labels: map[string]string{labelName: nameOfAll, labelComponent: "scheduler"}},
		Data:       map[string]string{"scheduler-config.yaml": p.configuration},
	})
	client := fake.NewClientset(objects...)
	client.Discovery().(*fakediscovery.FakeDiscovery).FakedServerVersion = &apiversion.Info{Major: "1", Minor: p.minor, GitVersion: "v1." + p.minor + ".0"}
	client.PrependReactor("create", "subjectaccessreviews", func(action clienttesting.Action) (bool, runtime.Object, error) {
		review := action.(clienttesting.CreateAction).GetObject().(*authorizationv1.SubjectAccessReview)
		review.Status.Allowed = review.Spec.ResourceAttributes.Resource != p.forbidden
		return true, review, nil
	})
	shared, _, _ := testOptions()
	o := &doctorOptions{options: shared, measurements: func(context.Context, *cluster) (*latency.Matrix, source.Stats, error) {
		return latency.NewMatrix(time.Now(), p.measured), source.Stats{Agents: len(p.agentReady), Answered: p.answered}, p.matrixErr
	}}
	return o.gather(t.Context(), &cluster{client: client, namespace: "netlatency", service: "netlatency-agent"}).findings(t.Context())
}

func TestDoctorFindsNothingInAHealthyCluster(t *testing.T) {
	checks := make(map[string]bool)
	for _, f := range healthy().findings(t) {
		checks[f.Check] = true
		if f.Level != levelOK || f.Remedy != "" {
			t.Errorf("found %+v", f)
		}
	}
	if len(checks) != 11 { // there is no KubeRay to look at
		t.Errorf("made %d checks: %v", len(checks), checks)
	}
}

func TestDoctorFinds(t *testing.T) {
	waiting := func(scheduler string, age time.Duration) *corev1.Pod {
		pod := worker("waits", "")
		pod.Spec.SchedulerName = scheduler
		pod.CreationTimestamp = metav1.NewTime(time.Now().Add(-age))
		pod.Status.Phase = corev1.PodPending
		return pod
	}
	kuberay := func(args ...string) runtime.Object {
		return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "ray", Name: "kuberay-operator", Labels: map[string]string{labelName: "kuberay-operator"}},
			Spec: appsv1.DeploymentSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Command: []string{"/manager"}, Args: args}}}}}}
	}
	all := func(latency.Pair) bool { return true }
	for _, c := range []struct {
		name         string
		ail          func(*patient)
		level        level
		check        string
		what, remedy string
	}{
		{"a cluster that is too old", func(p *patient) { p.minor = "31+" }, levelFault, "versions", "Kubernetes v1.31+.0; the scheduler works from 1.34 on", "Upgrade the cluster"},
		{"an older cluster that the scheduler does not emulate", func(p *patient) { p.minor = "35" }, levelWarning, "versions", "the scheduler is not told so", `scheduler.emulatedVersion to "1.35"`},
		{"agents and scheduler of different versions", func(p *patient) {
			p.scheduler.Spec.Template.Spec.Containers[0].Image = "r:5000/scheduler:v2.0.0@sha256:0"
		}, levelWarning, "versions", "the agents 1.0.0, the scheduler 2.0.0", "Upgrade the chart"},
		{"no agents", func(p *patient) { p.agents = nil }, levelFault, "agents", "no DaemonSet of agents in namespace netlatency", "Install the chart"},
		{"a node without an agent", func(p *patient) { delete(p.agentReady, "h-1") }, levelWarning, "agents", "1 node without an agent: h-1", "agent.tolerations"},
		{"an agent that is not ready", func(p *patient) { p.agentReady["g-2"] = false }, levelFault, "agents", "the agents of 1 node are not ready: g-2", "describe pods -l"},
		{"an agent that does not answer", func(p *patient) {
			p.answered = 2
			for pair := range p.measured {
				if pair.Node == "g-1" {
					delete(p.measured, pair)
				}
			}
		}, levelFault, "answers", "1 of 3 agents do not answer: g-1", "kubectl -n netlatency logs"},
		{"no way to the agents", func(p *patient) { p.matrixErr = errors.New("none of 3 agents answered") }, levelFault, "answers", "none of 3 agents answered", "get on pods/proxy in namespace netlatency"},
		{"a node behind a firewall", func(p *patient) {
			p.each(func(pair latency.Pair) bool { return pair.Node == "h-1" || pair.Peer == "h-1" }, func(d *latency.Distribution) { d.Newest = d.Newest.Add(-time.Hour) })
		}, levelFault, "freshness", "1 node reaches no other: h-1", "UDP and TCP port 9465"},
		{"providers that do not reach each other", func(p *patient) {
			p.nodes = append(p.nodes, st.MakeNode().Name("h-2").Label("netlatency.io/provider", "hetzner").Obj())
			p.agentReady["h-2"] = true
			p.answered++
			d := p.measured[latency.Pair{Node: "g-1", Peer: "g-2"}]
			for _, pair := range []latency.Pair{{Node: "h-1", Peer: "h-2"}, {Node: "h-2", Peer: "h-1"}} {
				p.measured[pair] = d
			}
			for pair := range p.measured {
				if pair.Node[0] == 'h' && pair.Peer[0] == 'g' {
					delete(p.measured, pair)
				}
			}
		}, levelFault, "freshness", "nothing is measured from hetzner to gthost", "firewalls and network policies"},
		{"probes that are too rare", func(p *patient) { p.agents.Spec.Template.Spec.Containers[0].Args[0] = "--interval=1m" }, levelFault, "freshness", "agents probe every 1m0s", "agent.interval to a third"},
		{"UDP that is blocked", func(p *patient) {
			p.each(func(pair latency.Pair) bool { return pair.Node == "h-1" }, func(d *latency.Distribution) { d.Method = "icmp" })
		}, levelWarning, "methods", "UDP is not answered everywhere: pairs are measured 2 by icmp, 4 by udp (hetzner to gthost)", "let UDP port 9465 through"},
		{"all by TCP", func(p *patient) { p.each(all, func(d *latency.Distribution) { d.Method = "tcp" }) }, levelWarning, "methods", "6 by tcp", "let UDP"},
		{"nodes without a provider", func(p *patient) { p.nodes[0].Labels = nil }, levelWarning, "groups", "1 node has no label that names a provider: g-1", "kubectl label node"},
		{"a scheduler that is switched off", func(p *patient) { p.scheduler.Spec.Replicas = new(int32(0)) }, levelFault, "scheduler", "scaled to 0", "scale deployment netlatency-scheduler --replicas=2"},
		{"a scheduler that does not start", func(p *patient) { p.scheduler.Status.ReadyReplicas = 0 }, levelFault, "scheduler", "none of 2 replicas of the scheduler is ready", "logs -l"},
		{"half a scheduler", func(p *patient) { p.scheduler.Status.ReadyReplicas = 1 }, levelWarning, "scheduler", "1 of 2 replicas", "logs -l"},
		{"a scheduler that nobody leads", func(p *patient) { p.lease.Spec.RenewTime.Time = time.Now().Add(-time.Hour) }, levelFault, "scheduler", "lease netlatency/netlatency-scheduler is not renewed", "logs -l"},
		{"an account without its role", func(p *patient) { p.forbidden = "pods" }, levelFault, "permissions", "ServiceAccount netlatency/netlatency of the scheduler may not watch pods, create pods/binding, patch pods/status", "helm upgrade"},
		{"a configuration that cannot be read", func(p *patient) { p.configuration = strings.Replace(p.configuration, "targets:", "tragets:", 1) }, levelFault, "profiles", `unknown field "tragets"`, "Correct the chart's values"},
		{"a profile that does not enable the plugin", func(p *patient) {
			p.configuration = strings.Replace(p.configuration, "enabled: [{name: NetLatency}]", "enabled: [{name: Coscheduling}]", 1)
		}, levelFault, "profiles", "does not enable it: pods are placed without regard to latency", "plugins.multiPoint.enabled"},
		{"a target that runs nowhere", func(p *patient) { p.pods = p.pods[1:] }, levelWarning, "targets", "target qdrant (pods app=qdrant) runs nowhere", "what it chooses is right"},
		{"a target to which nothing is measured", func(p *patient) {
			p.each(func(pair latency.Pair) bool { return pair.Peer == "g-1" }, func(d *latency.Distribution) { d.Newest = d.Newest.Add(-time.Hour) })
		}, levelFault, "targets", "no way to the nodes of target qdrant is measured", "have an agent"},
		{"a scheduler that no pod names", func(p *patient) { p.pods = p.pods[:1] }, levelWarning, "pods", "no pod names the scheduler", "Write schedulerName: netlatency-scheduler"},
		{"a schedulerName with a mistake", func(p *patient) { p.pods = append(p.pods, waiting("netlatency", time.Hour)) }, levelFault, "pods", "1 pod waits for scheduler netlatency, and none looks at them: search/waits", "the name is netlatency-scheduler"},
		{"a pod that its scheduler overlooks", func(p *patient) { p.pods = append(p.pods, waiting("netlatency-scheduler", time.Hour)) }, levelFault, "pods", "for scheduler netlatency-scheduler, and none looks", "what the scheduler logs"},
		{"a pod that no node takes", func(p *patient) {
			pod := waiting("netlatency-scheduler", time.Hour)
			pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "0/3 nodes are available"}}
			p.pods = append(p.pods, pod)
		}, levelWarning, "pods", "1 pod waits: 0/3 nodes are available", "explain POD"},
		{"KubeRay's batch scheduler", func(p *patient) { p.others = []runtime.Object{kuberay("--batch-scheduler=volcano")} }, levelFault, "KubeRay", "ray/kuberay-operator runs with the batch scheduler volcano", "without --batch-scheduler"},
		{"KubeRay's batch scheduler by its old flag", func(p *patient) { p.others = []runtime.Object{kuberay("--enable-batch-scheduler")} }, levelFault, "KubeRay", "batch scheduler volcano", "batchScheduler.name"},
		{"KubeRay as it should be", func(p *patient) { p.others = []runtime.Object{kuberay("--enable-leader-election=true")} }, levelOK, "KubeRay", "leaves schedulerName alone", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := healthy()
			c.ail(p)
			findings := p.findings(t)
			for _, f := range findings {
				if f.Check == c.check && f.Level == c.level && strings.Contains(f.What, c.what) && strings.Contains(f.Remedy, c.remedy) {
					return
				}
			}
			t.Errorf("found %+v\nwant %s of %s: %s, and the remedy %s", findings, c.level, c.check, c.what, c.remedy)
		})
	}
}

func TestDoctorPrintsItsRemedies(t *testing.T) {
	shared, _, out := testOptions()
	o := &doctorOptions{options: shared, output: outputTable}
	err := o.show([]finding{unknown("the nodes", errors.New("forbidden")), fault("Do this.\nAnd that.", "all is lost"), ok("well")})
	if err == nil || err.Error() != "found 1 fault" {
		t.Errorf("got error %v", err)
	}
	want := `unknown               the nodes: forbidden
                        Run doctor as somebody who may read that.
FAULT                 all is lost
                        Do this.
                        And that.
ok                    well
`
	if out() != want {
		t.Errorf("printed\n%s\nwant\n%s", out(), want)
	}
}
