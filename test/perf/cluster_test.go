package perf

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/source"
	"github.com/netlatency/netlatency/test/networks"
)

const (
	// targetNodes is on how many nodes Qdrant runs, in a cluster of at least
	// four times as many.
	targetNodes = 50
	// othersProbed is how many nodes each node has measured besides those of
	// Qdrant.
	othersProbed = 14

	// What runs in the cluster, and the namespace in which it does.
	qdrant = "qdrant"
	agent  = "agent"
	other  = "other"

	seed = 1
)

// cluster is nodes in three providers of a metropolitan area, of which the
// first runs Qdrant.
type cluster struct {
	network *networks.Network
	qdrant  []int // its nodes
	// cost is the true mean round trip to Qdrant from each node, in seconds.
	cost map[string]float64
}

func newCluster(nodes int) *cluster {
	c := &cluster{network: networks.Metro(nodes, seed), cost: make(map[string]float64, nodes)}
	running := min(targetNodes, nodes/4)
	for i := range running {
		c.qdrant = append(c.qdrant, i*nodes/running/3*3) // every third node is of the first provider
	}
	for i, name := range c.network.Names {
		for _, j := range c.qdrant {
			c.cost[name] += c.network.RTT[i][j] / float64(running)
		}
	}
	return c
}

// record writes what the agents would have measured.
func (c *cluster) record(path string) error {
	r := rand.New(rand.NewPCG(seed, 2))
	now := time.Now()
	observed := make(map[latency.Pair]latency.Distribution)
	measure := func(i, j int) {
		if i == j {
			return
		}
		rtt := time.Duration(c.network.Noise(r, c.network.RTT[i][j]) * float64(time.Second))
		observed[latency.Pair{Node: c.network.Names[i], Peer: c.network.Names[j]}] = latency.Distribution{
			Mean: rtt, P50: rtt, P90: rtt, P99: rtt, Min: rtt, Samples: 100, Sent: 100, Newest: now,
		}
	}
	for i := range c.network.Names {
		for _, j := range c.qdrant {
			measure(i, j)
		}
		for range othersProbed {
			measure(i, r.IntN(len(c.network.Names)))
		}
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := source.Record(f, latency.NewMatrix(now, observed), c.network.Groups, "generated", now); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// create makes the nodes, of the size that upstream's benchmarks have, an agent
// on each, Qdrant's pods, which nobody else would make ready, and as many others
// as run besides, evenly on all nodes.
func (c *cluster) create(ctx context.Context, client kubernetes.Interface, running int) error {
	for _, namespace := range []string{qdrant, agent, other} {
		if _, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("create namespace: %w", err)
		}
	}
	room := corev1.ResourceList{
		corev1.ResourceCPU:    resource.MustParse("4"),
		corev1.ResourceMemory: resource.MustParse("32Gi"),
		corev1.ResourcePods:   resource.MustParse("110"),
	}
	parallel, ctx := errgroup.WithContext(ctx)
	parallel.SetLimit(8)
	for _, name := range c.network.Names {
		group := c.network.Groups[name]
		parallel.Go(func() error {
			_, err := client.CoreV1().Nodes().Create(ctx, &corev1.Node{
				ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
					corev1.LabelHostname:       name,
					"netlatency.io/provider":   group.Provider,
					corev1.LabelTopologyRegion: group.Region,
					// Providers' zones have the same names; to a pod affinity they
					// would be one.
					corev1.LabelTopologyZone: group.Provider + "-" + group.Zone,
				}},
				Status: corev1.NodeStatus{
					Capacity: room, Allocatable: room,
					Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
				},
			}, metav1.CreateOptions{})
			return err
		})
	}
	run := func(app string, i, at int, requests corev1.ResourceList) {
		parallel.Go(func() error {
			pods := client.CoreV1().Pods(app)
			pod, err := pods.Create(ctx, &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-%d", app, i), Labels: map[string]string{"app.kubernetes.io/name": app}},
				Spec: corev1.PodSpec{
					NodeName:   c.network.Names[at],
					Containers: []corev1.Container{{Name: app, Image: app, Resources: corev1.ResourceRequirements{Requests: requests}}},
				},
			}, metav1.CreateOptions{})
			if err != nil || app != qdrant { // of which nobody asks whether they are ready
				return err
			}
			pod.Status.Phase = corev1.PodRunning
			pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
			_, err = pods.UpdateStatus(ctx, pod, metav1.UpdateOptions{})
			return err
		})
	}
	for i, at := range c.qdrant {
		run(qdrant, i, at, nil)
	}
	for i := range c.network.Names {
		run(agent, i, i, nil)
	}
	for i := range running {
		run(other, i, i%len(c.network.Names), corev1.ResourceList{
			corev1.ResourceCPU:    resource.MustParse("100m"),
			corev1.ResourceMemory: resource.MustParse("500Mi"),
		})
	}
	if err := parallel.Wait(); err != nil {
		return fmt.Errorf("create nodes and pods: %w", err)
	}
	return nil
}

// costOf is the mean cost of where pods were placed, in seconds.
func (c *cluster) costOf(pods []corev1.Pod) (float64, error) {
	var sum float64
	for _, pod := range pods {
		cost, ok := c.cost[pod.Spec.NodeName]
		if !ok {
			return 0, fmt.Errorf("pod %s is on node %q, which is none of the cluster's", pod.Name, pod.Spec.NodeName)
		}
		sum += cost
	}
	return sum / float64(len(pods)), nil
}
