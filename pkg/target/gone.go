package target

import (
	"context"
	"errors"
	"fmt"
	"slices"

	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/utils/ptr"
)

// maxGone bounds how many nodes are asked for in one look.
const maxGone = 64

// dropGone takes the endpoints of nodes that are no more out of the agents'
// slices. Kubernetes deletes the pods of such a node after 40 to 80 s (gcPeriod
// and quarantineTime of its pod garbage collector), and until then all agents
// would probe it. Its controller for slices leaves pods without a node out too,
// but looks only when something else changes; a slice that somebody has changed
// is such a thing, so it comes to the same.
func (p *Publisher) dropGone(ctx context.Context) error {
	if p.agents == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	api := p.client.DiscoveryV1().EndpointSlices(p.namespace)
	theirs := labels.Set{discoveryv1.LabelServiceName: p.agents}
	list, err := api.List(ctx, metav1.ListOptions{LabelSelector: theirs.String(), ResourceVersion: "0"})
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	gone, err := p.gone(ctx, list.Items)
	faults := []error{err}
	for i := range list.Items {
		next := list.Items[i].DeepCopy()
		next.Endpoints = slices.DeleteFunc(next.Endpoints, func(e discoveryv1.Endpoint) bool { return gone.Has(ptr.Deref(e.NodeName, "")) })
		if len(next.Endpoints) == len(list.Items[i].Endpoints) {
			continue
		}
		if _, err := api.Update(ctx, next, metav1.UpdateOptions{}); err != nil && !apierrors.IsConflict(err) { // its controller was faster
			faults = append(faults, fmt.Errorf("update %s: %w", next.Name, err))
		}
	}
	return errors.Join(faults...)
}

// gone is the nodes of endpoints that are no more. The informer may lag behind
// a node that has just come, so the API server has the last word.
func (p *Publisher) gone(ctx context.Context, from []discoveryv1.EndpointSlice) (sets.Set[string], error) {
	asked, gone := sets.New(""), sets.New[string]()
	for _, slice := range from {
		for _, e := range slice.Endpoints {
			name := ptr.Deref(e.NodeName, "")
			if asked.Has(name) || asked.Len() > maxGone {
				continue
			}
			if _, err := p.nodes.Get(name); err == nil {
				continue
			}
			asked.Insert(name)
			switch _, err := p.client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{}); {
			case apierrors.IsNotFound(err):
				gone.Insert(name)
			case err != nil:
				return gone, fmt.Errorf("get node: %w", err)
			}
		}
	}
	return gone, nil
}
