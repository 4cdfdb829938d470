package scenario

import (
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
)

// Node is one node of the scenario, as its Node object will describe it.
type Node struct {
	Name       string
	Provider   string
	Labels     map[string]string
	Taints     []corev1.Taint
	Capacity   corev1.ResourceList
	ProviderID string
}

// resourceGPU is what makes a node a GPU node.
const resourceGPU corev1.ResourceName = "nvidia.com/gpu"

// NodeList lists the nodes of all providers, in the order of the file.
func (s *Scenario) NodeList() []Node {
	var nodes []Node
	for _, p := range s.Providers {
		for i := range p.Nodes {
			name := fmt.Sprintf("%s-%d", p.Name, i+1)
			labels := map[string]string{
				corev1.LabelHostname:   name,
				corev1.LabelOSStable:   "linux",
				corev1.LabelArchStable: "amd64",
			}
			if p.Region != "" {
				labels[corev1.LabelTopologyRegion] = p.Region
			}
			if p.Zone != "" {
				labels[corev1.LabelTopologyZone] = p.Zone
			}
			if p.ProviderLabel != "" {
				labels[p.ProviderLabel] = p.Name
			}
			maps.Copy(labels, p.Labels)
			n := Node{Name: name, Provider: p.Name, Labels: labels, Taints: p.Taints, Capacity: p.Capacity}
			if p.ProviderIDScheme != "" {
				n.ProviderID = fmt.Sprintf("%s://%s", p.ProviderIDScheme, name)
			}
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// QdrantNodes are the nodes where the replicas of Qdrant run, one a node,
// taken from the named places in turn so that every place gets its share.
func (s *Scenario) QdrantNodes() []string {
	places := make([][]string, 0, len(s.Applications.Qdrant.Places))
	for _, end := range s.Applications.Qdrant.Places {
		places = append(places, s.nodesAt(end))
	}
	var chosen []string
	taken := make(map[string]bool)
	for rank := 0; len(chosen) < s.Applications.Qdrant.Replicas; rank++ {
		exhausted := true
		for _, place := range places {
			if rank >= len(place) {
				continue
			}
			exhausted = false
			if !taken[place[rank]] && len(chosen) < s.Applications.Qdrant.Replicas {
				taken[place[rank]] = true
				chosen = append(chosen, place[rank])
			}
		}
		if exhausted {
			break
		}
	}
	return chosen
}

// GPUNodes are the nodes where the GPU service runs: all that have a GPU to
// allocate.
func (s *Scenario) GPUNodes() []string {
	var names []string
	for _, n := range s.NodeList() {
		if gpus, ok := n.Capacity[resourceGPU]; ok && !gpus.IsZero() {
			names = append(names, n.Name)
		}
	}
	return names
}

// ApplicationNodes are the nodes where an application of the search runs.
func (s *Scenario) ApplicationNodes(application string) []string {
	if application == ApplicationGPU {
		return s.GPUNodes()
	}
	return s.QdrantNodes()
}

// nodesAt lists the nodes of an end: of a provider, or the one node of that
// name; nil when there is neither.
func (s *Scenario) nodesAt(end string) []string {
	var names []string
	for _, n := range s.NodeList() {
		if n.Provider == end || n.Name == end {
			names = append(names, n.Name)
		}
	}
	return names
}
