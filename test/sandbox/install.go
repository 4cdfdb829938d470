package sandbox

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/netlatency/netlatency/pkg/exposition"
	"github.com/netlatency/netlatency/test/sandbox/scenario"
)

// Names of what the sandbox installs.
const (
	// Namespace and Release of the chart.
	Namespace = "netlatency"
	Release   = "netlatency"
	// SchedulerName is what a pod template says to be placed by netlatency.
	SchedulerName = "netlatency-scheduler"
	// WorkerNamespace is where the RayService lives, QdrantNamespace where
	// Qdrant does.
	WorkerNamespace = "ray"
	QdrantNamespace = "qdrant"

	agentPort  = 9465
	qdrantPort = 6333
)

// SourceInterval is how often the scheduler reads the agents in a sandbox,
// where a network changes within seconds.
const SourceInterval = 2 * time.Second

// Values are the chart's values for the scenario: agents that probe as it
// says, and targets weighted by the round trips of its search.
func (s *Sandbox) Values() map[string]any {
	weights := make(map[string]any)
	for _, application := range s.Scenario.Applications.Search {
		n, _ := weights[application].(int)
		weights[application] = n + 1
	}
	var targets []any
	if w, ok := weights[scenario.ApplicationQdrant]; ok {
		targets = append(targets, map[string]any{
			"name": "qdrant", "weight": w,
			"pods": map[string]any{"labelSelector": map[string]any{"matchLabels": map[string]any{"app.kubernetes.io/name": "qdrant"}}},
		})
	}
	if w, ok := weights[scenario.ApplicationGPU]; ok {
		targets = append(targets, map[string]any{
			"name": "gpu", "weight": w,
			"nodes": map[string]any{"resource": "nvidia.com/gpu"},
		})
	}
	return map[string]any{
		"targets": targets,
		"agent": map[string]any{
			"interval": s.Scenario.Probe.Interval.Duration.String(),
			// A lost burst is to be known before the next one, as with the
			// default interval it is.
			"timeout":   (s.Scenario.Probe.Interval.Duration / 2).String(),
			"window":    s.Scenario.Probe.Window.Duration.String(),
			"extraArgs": []any{"--sample-stream"},
		},
		"scheduler": map[string]any{
			"args": map[string]any{
				"source": map[string]any{"agents": map[string]any{"interval": SourceInterval.String()}},
			},
		},
	}
}

// InstallChart installs the chart as a user would, in a namespace that
// enforces Pod Security restricted.
func (s *Sandbox) InstallChart(ctx context.Context, values map[string]any) error {
	labels := map[string]string{"pod-security.kubernetes.io/enforce": "restricted"}
	if err := s.Cluster.CreateNamespace(ctx, Namespace, labels); err != nil {
		return err
	}
	_, err := s.Cluster.InstallChart(ctx, s.Path("manifests", "chart", "netlatency"), Release, Namespace, values, nil)
	return err
}

// StartQdrant creates Qdrant's pods, as its chart labels them, and returns the
// nodes they run on.
func (s *Sandbox) StartQdrant(ctx context.Context) ([]string, error) {
	if err := s.Cluster.CreateNamespace(ctx, QdrantNamespace, nil); err != nil {
		return nil, err
	}
	replicas := int32(s.Scenario.Applications.Qdrant.Replicas)
	labels := map[string]string{"app": "qdrant", "app.kubernetes.io/name": "qdrant", "app.kubernetes.io/instance": "qdrant"}
	set := &appsv1.StatefulSet{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "StatefulSet"},
		ObjectMeta: metav1.ObjectMeta{Name: "qdrant", Namespace: QdrantNamespace, Labels: labels},
		Spec: appsv1.StatefulSetSpec{
			Replicas:            &replicas,
			ServiceName:         "qdrant-headless",
			PodManagementPolicy: appsv1.ParallelPodManagement,
			Selector:            &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					// Its stand-in listens on the node's address.
					HostNetwork: true,
					Containers:  []corev1.Container{{Name: "qdrant", Image: "qdrant/qdrant", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: qdrantPort}}}},
					Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
					Affinity:    OnNodes(s.Scenario.QdrantNodes()),
				},
			},
		},
	}
	set.Spec.Template.Spec.Affinity.PodAntiAffinity = &corev1.PodAntiAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{
			LabelSelector: &metav1.LabelSelector{MatchLabels: labels}, TopologyKey: corev1.LabelHostname,
		}},
	}
	if err := s.Cluster.ApplyObjects(ctx, set); err != nil {
		return nil, err
	}
	var nodes []string
	err := s.until(ctx, "Qdrant's pods to be ready", func() (string, error) {
		pods, err := s.Cluster.Client().CoreV1().Pods(QdrantNamespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return "", err
		}
		nodes = nil
		for _, p := range pods.Items {
			if podReady(&p) {
				nodes = append(nodes, p.Spec.NodeName)
			}
		}
		if len(nodes) < int(replicas) {
			return fmt.Sprintf("%d of %d are", len(nodes), replicas), nil
		}
		return "", nil
	})
	return nodes, err
}

// OnNodes is a required affinity to nodes by name, as one pins by hand.
func OnNodes(names []string) *corev1.Affinity {
	return &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
			NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: names}},
			}},
		},
	}}
}

func podReady(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue && p.DeletionTimestamp == nil
		}
	}
	return false
}

// AgentsReady is how many agents are ready.
func (s *Sandbox) AgentsReady(ctx context.Context) (int, error) {
	pods, err := s.Cluster.Client().CoreV1().Pods(Namespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=agent"})
	if err != nil {
		return 0, err
	}
	ready := 0
	for _, p := range pods.Items {
		if podReady(&p) {
			ready++
		}
	}
	return ready, nil
}

// client reaches the agents from the control side, which has a route to every
// node.
var client = &http.Client{Timeout: 5 * time.Second}

// FreshPairs counts the ordered pairs of nodes that were measured within the
// last three probe intervals.
func (s *Sandbox) FreshPairs(ctx context.Context) int {
	fresh := 0
	for _, n := range s.Nodes {
		window, err := s.Window(ctx, n.Name)
		if err != nil {
			continue // not yet ready, which is what the count says
		}
		now := time.Now()
		for _, row := range window.Rows {
			if now.Sub(row.Newest) <= 3*s.Scenario.Probe.Interval.Duration {
				fresh++
			}
		}
	}
	return fresh
}

// Window reads the /matrix of a node's agent.
func (s *Sandbox) Window(ctx context.Context, node string) (exposition.Window, error) {
	response, err := s.get(ctx, client, node, exposition.MatrixPath)
	if err != nil {
		return exposition.Window{}, err
	}
	defer response.Body.Close()
	window, _, err := exposition.Decode(response.Body, response.Header.Get("Content-Type"), exposition.Limits{}, time.Now())
	return window, err
}

func (s *Sandbox) get(ctx context.Context, client *http.Client, node, path string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s:%d%s", s.Node(node).WAN, agentPort, path), nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("read agent on node %q: %w", node, err)
	}
	if response.StatusCode != http.StatusOK {
		response.Body.Close()
		return nil, fmt.Errorf("read agent on node %q: %s", node, response.Status)
	}
	return response, nil
}

// Sample is one round trip that an agent measured.
type Sample struct {
	Node    string `json:"node"`
	Peer    string `json:"peer"`
	Session uint64 `json:"session,string"`
	Seq     uint32 `json:"seq"`
	RTT     int64  `json:"rtt_ns"`
	Stamps  string `json:"stamps"`
}

// Samples hands over the samples of a node's agent, from now on, until ctx
// ends or the agent does.
func (s *Sandbox) Samples(ctx context.Context, node string, take func(Sample)) error {
	response, err := s.get(ctx, &http.Client{}, node, "/samples")
	if err != nil {
		return err
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		var sample Sample
		if err := json.Unmarshal(lines.Bytes(), &sample); err != nil {
			return fmt.Errorf("sample of the agent on node %q: %w", node, err)
		}
		take(sample)
	}
	if err := lines.Err(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("samples of the agent on node %q: %w", node, err)
	}
	return nil
}

// until polls until missing returns "", and says what was missing when ctx or
// the cluster ends first.
func (s *Sandbox) until(ctx context.Context, what string, missing func() (string, error)) error {
	ticker := time.NewTicker(250 * time.Millisecond)
	defer ticker.Stop()
	for {
		still, err := missing()
		if err == nil && still == "" {
			return nil
		}
		if err != nil {
			still = err.Error()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %s: %w", what, still, context.Cause(ctx))
		case <-s.Cluster.Done():
			return fmt.Errorf("wait for %s: the cluster ended: %w", what, s.Cluster.Err())
		case <-ticker.C:
		}
	}
}
