package cluster

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/retry"
)

// NodeSpec is what a Node object shall say.
type NodeSpec struct {
	Name   string
	Labels map[string]string // besides hostname, os and arch, which every node gets
	Taints []corev1.Taint
	// Allocatable is the node's capacity as well. A node without "pods" gets
	// room for 110, as a kubelet would.
	Allocatable corev1.ResourceList
	InternalIP  netip.Addr
	ProviderID  string
}

// annotationDown keeps kwok from calling a node Ready that SetNodeDown took
// down.
const annotationDown = "sandbox.netlatency.io/down"

// kubeletPods is a kubelet's default of maxPods.
const kubeletPods = "110"

// object is the Node, with a kubelet of that version.
func (n NodeSpec) object(kubelet string) *corev1.Node {
	labels := map[string]string{
		corev1.LabelHostname:   n.Name,
		corev1.LabelOSStable:   "linux",
		corev1.LabelArchStable: "amd64",
	}
	maps.Copy(labels, n.Labels)
	allocatable := n.Allocatable.DeepCopy()
	if allocatable == nil {
		allocatable = corev1.ResourceList{}
	}
	if _, ok := allocatable[corev1.ResourcePods]; !ok {
		allocatable[corev1.ResourcePods] = quantity(kubeletPods)
	}
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: n.Name, Labels: labels},
		Spec:       corev1.NodeSpec{ProviderID: n.ProviderID, Taints: n.Taints},
		Status: corev1.NodeStatus{
			Capacity:    allocatable,
			Allocatable: allocatable,
			// kwok adds addresses of its own unless both are there.
			Addresses: []corev1.NodeAddress{
				{Type: corev1.NodeInternalIP, Address: n.InternalIP.String()},
				{Type: corev1.NodeHostName, Address: n.Name},
			},
			NodeInfo: corev1.NodeSystemInfo{
				KubeletVersion:  kubelet,
				OperatingSystem: "linux",
				Architecture:    "amd64",
			},
		},
	}
}

func (c *Cluster) createNodes(ctx context.Context, nodes []NodeSpec) error {
	version, err := c.client.Discovery().ServerVersion()
	if err != nil {
		return fmt.Errorf("version of the API server: %w", err)
	}
	for _, n := range nodes {
		if !n.InternalIP.IsValid() {
			return fmt.Errorf("node %q has no internal IP", n.Name)
		}
		// Unlike other kinds a Node may be created with its status.
		_, err := c.client.CoreV1().Nodes().Create(ctx, n.object(version.GitVersion), metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("create node %q: %w", n.Name, err)
		}
	}
	return nil
}

// waitNodesReady waits until pods can be placed on all nodes: kwok has made
// them Ready and the lifecycle controller has taken the taint off again that
// every new node carries.
func (c *Cluster) waitNodesReady(ctx context.Context) error {
	started := time.Now()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	source := cache.NewListWatchFromClient(c.client.CoreV1().RESTClient(), "nodes", metav1.NamespaceAll, fields.Everything())
	err := watchObjects(ctx, c, "nodes", source, &corev1.Node{}, func(nodes []*corev1.Node) string {
		waiting := make(map[string]struct{}, len(c.options.Nodes))
		for _, n := range c.options.Nodes {
			waiting[n.Name] = struct{}{}
		}
		for _, n := range nodes {
			if nodeReady(n) {
				delete(waiting, n.Name)
			}
		}
		if len(waiting) == 0 {
			return ""
		}
		return fmt.Sprintf("not ready: %q", slices.Sorted(maps.Keys(waiting)))
	})
	if err != nil {
		return err
	}
	c.progress(started, fmt.Sprintf("%d nodes ready", len(c.options.Nodes)))
	return nil
}

func nodeReady(n *corev1.Node) bool {
	for _, t := range n.Spec.Taints {
		if t.Key == corev1.TaintNodeNotReady || t.Key == corev1.TaintNodeUnreachable {
			return false
		}
	}
	for _, condition := range n.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

// SetNodeDown makes a node look as when its kubelet has gone silent (Ready is
// Unknown; the controllers then taint it), or, with down false, lets it come
// back.
func (c *Cluster) SetNodeDown(ctx context.Context, name string, down bool) error {
	nodes := c.client.CoreV1().Nodes()
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		n, err := nodes.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if !down {
			// kwok sees a node that is not Ready and makes it so.
			delete(n.Annotations, annotationDown)
			_, err = nodes.Update(ctx, n, metav1.UpdateOptions{})
			return err
		}
		if n.Annotations == nil {
			n.Annotations = map[string]string{}
		}
		n.Annotations[annotationDown] = "true"
		if n, err = nodes.Update(ctx, n, metav1.UpdateOptions{}); err != nil {
			return err
		}
		now := metav1.Now()
		for i := range n.Status.Conditions {
			n.Status.Conditions[i].Status = corev1.ConditionUnknown
			n.Status.Conditions[i].Reason = "NodeStatusUnknown"
			n.Status.Conditions[i].Message = "Kubelet stopped posting node status."
			n.Status.Conditions[i].LastTransitionTime = now
		}
		_, err = nodes.UpdateStatus(ctx, n, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		return fmt.Errorf("set node %q down=%t: %w", name, down, err)
	}
	return nil
}
