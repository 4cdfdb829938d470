package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	schedulerconfig "k8s.io/kubernetes/pkg/scheduler/apis/config"

	"github.com/netlatency/netlatency/pkg/plugins/netlatency"
)

func (e *examination) checkScheduler(ctx context.Context) []finding {
	if e.schedulerErr != nil {
		return []finding{unknown("the scheduler", e.schedulerErr)}
	}
	if e.scheduler == nil {
		return []finding{fault("Install the chart with the scheduler.", "there is no Deployment of the scheduler in namespace %s", e.namespace)}
	}
	logs := fmt.Sprintf("See why: kubectl -n %s describe pods -l %s; kubectl -n %s logs -l %s", e.namespace, selectorOf("scheduler"), e.namespace, selectorOf("scheduler"))
	wanted := int32(1)
	if e.scheduler.Spec.Replicas != nil {
		wanted = *e.scheduler.Spec.Replicas
	}
	switch ready := e.scheduler.Status.ReadyReplicas; {
	case wanted == 0:
		return []finding{fault(fmt.Sprintf("kubectl -n %s scale deployment %s --replicas=2", e.namespace, e.scheduler.Name), "the scheduler is scaled to 0: no pod that names it is placed")}
	case ready == 0:
		return []finding{fault(logs, "none of %s of the scheduler is ready: no pod that names it is placed", count(int(wanted), "replica"))}
	case ready < wanted:
		return []finding{warning(logs, "%d of %d replicas of the scheduler are ready", ready, wanted)}
	}
	lease, err := e.client.CoordinationV1().Leases(e.namespace).Get(ctx, e.scheduler.Name, metav1.GetOptions{})
	if err != nil {
		return []finding{unknown("who leads the scheduler", err)}
	}
	if lease.Spec.RenewTime == nil || lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity == "" || e.now.Sub(lease.Spec.RenewTime.Time) > time.Minute {
		return []finding{fault(logs, "no replica of the scheduler leads: its lease %s/%s is not renewed", e.namespace, lease.Name)}
	}
	return []finding{ok("%s ready, %s leads", verb(int(wanted), "replica is", "replicas are"), *lease.Spec.HolderIdentity)}
}

// permission is what an account must be allowed to do.
type permission struct{ verb, group, resource, namespace, name string }

func (p permission) String() string {
	text := p.verb + " " + p.resource
	if p.group != "" {
		text += "." + p.group
	}
	if p.namespace != "" {
		text += " in " + p.namespace
	}
	return text
}

// checkPermissions asks the API server what the accounts of agents and
// scheduler may do: one of each kind of what they need.
func (e *examination) checkPermissions(ctx context.Context) (findings []finding) {
	in := e.namespace
	accounts := []struct {
		of, name string
		needs    []permission
	}{}
	if e.agents != nil {
		accounts = append(accounts, struct {
			of, name string
			needs    []permission
		}{"agents", e.agents.Spec.Template.Spec.ServiceAccountName, []permission{{"watch", "discovery.k8s.io", "endpointslices", in, ""}}})
	}
	if e.scheduler != nil {
		accounts = append(accounts, struct {
			of, name string
			needs    []permission
		}{"scheduler", e.scheduler.Spec.Template.Spec.ServiceAccountName, []permission{
			{"watch", "", "pods", "", ""}, {"watch", "", "nodes", "", ""}, {"watch", "", "services", "", ""}, {"watch", "", "namespaces", "", ""},
			{"create", "", "pods/binding", "", ""}, {"patch", "", "pods/status", "", ""}, {"create", "events.k8s.io", "events", "", ""},
			{"watch", "storage.k8s.io", "storageclasses", "", ""}, {"watch", "discovery.k8s.io", "endpointslices", in, ""},
			{"update", "coordination.k8s.io", "leases", in, e.scheduler.Name},
		}})
	}
	checked := 0
	for _, account := range accounts {
		var missing []string
		for _, p := range account.needs {
			resource, sub, _ := strings.Cut(p.resource, "/")
			review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
				User:   "system:serviceaccount:" + in + ":" + account.name,
				Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + in, "system:authenticated"},
				ResourceAttributes: &authorizationv1.ResourceAttributes{
					Verb: p.verb, Group: p.group, Resource: resource, Subresource: sub, Namespace: p.namespace, Name: p.name,
				},
			}}
			answer, err := e.client.AuthorizationV1().SubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
			if err != nil {
				return []finding{unknown("what the accounts of agents and scheduler may do", err)}
			}
			checked++
			if !answer.Status.Allowed {
				missing = append(missing, p.String())
			}
		}
		if len(missing) > 0 {
			findings = append(findings, fault("Install the chart's Roles, ClusterRoleBindings and RoleBindings again: helm upgrade.",
				"ServiceAccount %s/%s of the %s may not %s", in, account.name, account.of, strings.Join(missing, ", ")))
		}
	}
	if len(findings) == 0 && checked > 0 {
		findings = append(findings, ok("agents and scheduler may do what they need (%d permissions)", checked))
	}
	return findings
}

func (e *examination) checkProfiles(context.Context) (findings []finding) {
	if e.profilesErr != nil {
		return []finding{fault("Correct the chart's values, and helm upgrade. A configuration of one's own must have a profile with NetLatency.", "%v", e.profilesErr)}
	}
	var names []string
	for _, p := range e.profiles {
		names = append(names, p.SchedulerName)
		if p.Plugins == nil || !enables(p.Plugins) {
			findings = append(findings, fault("Enable it in plugins.multiPoint.enabled of the profile.", "profile %s has arguments for NetLatency and does not enable it: pods are placed without regard to latency", p.SchedulerName))
		}
	}
	if len(findings) == 0 {
		findings = append(findings, ok("%s: %s", count(len(names), "profile"), strings.Join(names, ", ")))
	}
	return findings
}

func enables(plugins *schedulerconfig.Plugins) bool {
	is := func(p schedulerconfig.Plugin) bool { return p.Name == netlatency.Name }
	return slices.ContainsFunc(plugins.MultiPoint.Enabled, is) && !slices.ContainsFunc(plugins.Score.Disabled, is) || slices.ContainsFunc(plugins.Score.Enabled, is)
}

func (e *examination) checkTargets(ctx context.Context) (findings []finding) {
	if e.profilesErr != nil {
		return nil
	}
	seen, total := make(map[string]bool), 0
	for _, p := range e.profiles {
		reports, err := e.targets(ctx, p.args)
		if err != nil {
			return []finding{unknown("where the targets run", err)}
		}
		for _, r := range reports {
			key := r.Name + " " + r.Kind + " " + r.Chooses
			if seen[key] {
				continue
			}
			seen[key] = true
			total++
			if r.PerPod {
				continue
			}
			if r.Replicas == 0 {
				findings = append(findings, warning("See that what it chooses is right, and ready; a target that this cluster does not have may be taken out of the chart's values.",
					"target %s (%s %s) runs nowhere: it is left out of every pod's cost", r.Name, r.Kind, r.Chooses))
				continue
			}
			if e.matrix == nil {
				continue
			}
			ways := 0
			for _, on := range r.Nodes {
				for _, node := range e.withAgents() {
					if e.fresh(node, on.Node) {
						ways++
					}
				}
			}
			if ways == 0 {
				findings = append(findings, fault("See that these nodes have an agent, or that the target's port can be reached from the agents.",
					"no way to the nodes of target %s is measured: it is left out of every pod's cost", r.Name))
			}
		}
	}
	if len(findings) == 0 {
		findings = append(findings, ok("%s, and all run somewhere", count(total, "target")))
	}
	return findings
}

// overlooked is how long a pod may wait before a scheduler that works has said
// something about it.
const overlooked = time.Minute

func (e *examination) checkPods(context.Context) (findings []finding) {
	if e.podsErr != nil {
		return []finding{unknown("the pods", e.podsErr)}
	}
	ours := make(map[string]bool)
	for _, p := range e.profiles {
		ours[p.SchedulerName] = true
	}
	named, waiting := 0, make(map[string]int) // by why
	ignored := make(map[string][]string)      // pods, by schedulerName
	for i := range e.pods {
		pod := &e.pods[i]
		name := pod.Spec.SchedulerName
		if ours[name] {
			named++
		}
		if pod.Spec.NodeName != "" || pod.Status.Phase != corev1.PodPending && pod.Status.Phase != "" || pod.DeletionTimestamp != nil || len(pod.Spec.SchedulingGates) > 0 {
			continue
		}
		scheduled := slices.IndexFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodScheduled })
		switch {
		case scheduled < 0 && e.now.Sub(pod.CreationTimestamp.Time) > overlooked && name != corev1.DefaultSchedulerName:
			ignored[name] = append(ignored[name], pod.Namespace+"/"+pod.Name)
		case scheduled >= 0 && ours[name]:
			waiting[pod.Status.Conditions[scheduled].Message]++
		}
	}
	for _, name := range slices.Sorted(maps.Keys(ignored)) {
		pods := ignored[name]
		remedy := "See what the scheduler logs."
		if !ours[name] && len(e.profiles) > 0 {
			remedy = fmt.Sprintf("If netlatency was meant, the name is %s. Otherwise see whether the scheduler of that name runs.", strings.Join(slices.Sorted(maps.Keys(ours)), " or "))
		}
		findings = append(findings, fault(remedy, "%s for scheduler %s, and none looks at them: %s", verb(len(pods), "pod waits", "pods wait"), name, few(pods)))
	}
	for _, why := range slices.Sorted(maps.Keys(waiting)) {
		findings = append(findings, warning("kubectl netlatency explain POD says for each node why.", "%s: %s", verb(waiting[why], "pod waits", "pods wait"), why))
	}
	switch {
	case named == 0 && len(ours) > 0:
		findings = append(findings, warning(fmt.Sprintf("Write schedulerName: %s on a pod's template.", slices.Sorted(maps.Keys(ours))[0]), "no pod names the scheduler: it has nothing to do"))
	case len(findings) == 0:
		findings = append(findings, ok("%s the scheduler, and none waits", verb(named, "pod names", "pods name")))
	}
	return findings
}

// checkKubeRay looks for an operator that overwrites schedulerName.
func (e *examination) checkKubeRay(ctx context.Context) (findings []finding) {
	operators, err := e.client.AppsV1().Deployments("").List(ctx, metav1.ListOptions{LabelSelector: labelName + "=kuberay-operator"})
	if err != nil {
		return []finding{unknown("the KubeRay operator", err)}
	}
	for i := range operators.Items {
		d := &operators.Items[i]
		spec := &d.Spec.Template.Spec
		batch, given := argument(spec, "batch-scheduler")
		if old, is := argument(spec, "enable-batch-scheduler"); is && old != "false" && !given {
			batch, given = "volcano", true
		}
		if given && batch != "" {
			findings = append(findings, fault("Start the operator without --batch-scheduler (in its chart: batchScheduler.name: \"\"), and create the Ray clusters anew.",
				"KubeRay operator %s/%s runs with the batch scheduler %s, which overwrites schedulerName on the pods of Ray", d.Namespace, d.Name, batch))
		}
	}
	if len(findings) == 0 && len(operators.Items) > 0 {
		findings = append(findings, ok("the operator leaves schedulerName alone"))
	}
	return findings
}
