package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/source"
)

// examination is what the checks look at: all of it as it could be read, with
// the error where it could not.
type examination struct {
	*cluster
	now time.Time

	nodes    []corev1.Node
	nodesErr error
	// running are the nodes on which there is a ready agent, by its pod.
	agents    *appsv1.DaemonSet
	running   map[string]bool
	agentsErr error
	matrix    *latency.Matrix
	stats     source.Stats
	matrixErr error

	scheduler    *appsv1.Deployment
	schedulerErr error
	profiles     []profile
	profilesErr  error

	pods    []corev1.Pod
	podsErr error
}

// gather reads it all.
func (o *doctorOptions) gather(ctx context.Context, c *cluster) *examination {
	e := &examination{cluster: c, now: time.Now()}
	e.nodes, e.nodesErr = c.nodes(ctx)
	e.profiles, e.profilesErr = c.profiles(ctx)
	e.agents, e.running, e.agentsErr = c.agentsOf(ctx)
	e.scheduler, e.schedulerErr = c.schedulerOf(ctx)
	if list, err := c.client.CoreV1().Pods("").List(ctx, metav1.ListOptions{}); err != nil {
		e.podsErr = err
	} else {
		e.pods = list.Items
	}
	defer o.progress("Reading the agents")()
	e.matrix, e.stats, e.matrixErr = o.measurements(ctx, c)
	return e
}

func (c *cluster) agentsOf(ctx context.Context) (*appsv1.DaemonSet, map[string]bool, error) {
	sets, err := c.client.AppsV1().DaemonSets(c.namespace).List(ctx, metav1.ListOptions{LabelSelector: selectorOf("agent")})
	if err != nil {
		return nil, nil, err
	}
	pods, err := c.client.CoreV1().Pods(c.namespace).List(ctx, metav1.ListOptions{LabelSelector: selectorOf("agent")})
	if err != nil {
		return nil, nil, err
	}
	running := make(map[string]bool)
	for i := range pods.Items {
		pod := &pods.Items[i]
		if pod.Spec.NodeName != "" && pod.DeletionTimestamp == nil {
			running[pod.Spec.NodeName] = running[pod.Spec.NodeName] || isReady(pod)
		}
	}
	if len(sets.Items) == 0 {
		return nil, running, nil
	}
	return &sets.Items[0], running, nil
}

func (c *cluster) schedulerOf(ctx context.Context) (*appsv1.Deployment, error) {
	deployments, err := c.client.AppsV1().Deployments(c.namespace).List(ctx, metav1.ListOptions{LabelSelector: selectorOf("scheduler")})
	if err != nil || len(deployments.Items) == 0 {
		return nil, err
	}
	return &deployments.Items[0], nil
}

func isReady(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// staleAfter is when a measurement counts no more.
func (e *examination) staleAfter() time.Duration {
	if e.profilesErr == nil {
		return e.profiles[0].args.StaleAfter.Duration
	}
	return defaultArgs().StaleAfter.Duration
}

// withAgents are the nodes with a ready agent, sorted.
func (e *examination) withAgents() []string {
	var names []string
	for node, ready := range e.running {
		if ready {
			names = append(names, node)
		}
	}
	slices.Sort(names)
	return names
}

// fresh reports whether there is a measurement from node to peer that counts.
func (e *examination) fresh(node, peer string) bool {
	d, ok := e.matrix.Measured(node, peer)
	return ok && e.matrix.Taken().Sub(d.Newest) <= e.staleAfter()
}

// argument is the value of a container's flag, "" if it is not given.
func argument(spec *corev1.PodSpec, flag string) (value string, given bool) {
	for _, container := range spec.Containers {
		for i, text := range append(slices.Clone(container.Command), container.Args...) {
			name, value, joined := strings.Cut(strings.TrimLeft(text, "-"), "=")
			if name != flag || !strings.HasPrefix(text, "-") {
				continue
			}
			all := append(slices.Clone(container.Command), container.Args...)
			if !joined && i+1 < len(all) && !strings.HasPrefix(all[i+1], "-") {
				value = all[i+1]
			}
			return value, true
		}
	}
	return "", false
}

// few names some of many.
func few(names []string) string {
	const most = 5
	slices.Sort(names)
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// count is "1 node" or "2 nodes".
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
