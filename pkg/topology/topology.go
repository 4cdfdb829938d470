// Package topology places nodes in the network by what Kubernetes says of them.
package topology

import (
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/netlatency/netlatency/pkg/latency"
)

// GroupOf places node in the network as far as its labels tell; every part may
// be missing. The provider is the first of providerLabels that the node has,
// or else the scheme of spec.providerID, which a cloud controller sets
// ("hcloud://123").
func GroupOf(node *corev1.Node, providerLabels []string) latency.NodeGroup {
	return latency.NodeGroup{
		Provider: providerOf(node, providerLabels),
		Region:   node.Labels[corev1.LabelTopologyRegion],
		Zone:     node.Labels[corev1.LabelTopologyZone],
	}
}

func providerOf(node *corev1.Node, providerLabels []string) string {
	for _, label := range providerLabels {
		if provider := node.Labels[label]; provider != "" {
			return provider
		}
	}
	scheme, _, found := strings.Cut(node.Spec.ProviderID, "://")
	if !found {
		return ""
	}
	return scheme
}
