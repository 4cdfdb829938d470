package target

import (
	"context"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
)

// owner is the agents' Service, as the owner of what is written for the agents:
// Kubernetes deletes it with the Service, and nothing is left after an
// uninstallation. Nil when the Service is not there, or another's concern.
func (p *Publisher) owner() []metav1.OwnerReference {
	p.mu.Lock()
	all := p.followed
	p.mu.Unlock()
	if p.agents == "" || len(all) == 0 {
		return nil
	}
	service, err := all[0].index.services.Services(p.namespace).Get(p.agents)
	if err != nil {
		return nil // a lister fails for what is not there only
	}
	return []metav1.OwnerReference{{APIVersion: corev1.SchemeGroupVersion.String(), Kind: "Service", Name: service.Name, UID: service.UID}}
}

// owned writes Leases that have an owner. The lock that the leader election has
// of client-go can give them labels only.
type owned struct {
	coordinationclient.LeasesGetter
	owner func() []metav1.OwnerReference
}

type ownedLeases struct {
	coordinationclient.LeaseInterface
	owner func() []metav1.OwnerReference
}

// Leases implements coordinationclient.LeasesGetter.
func (o owned) Leases(namespace string) coordinationclient.LeaseInterface {
	return ownedLeases{o.LeasesGetter.Leases(namespace), o.owner}
}

// Create implements coordinationclient.LeaseInterface.
func (o ownedLeases) Create(ctx context.Context, lease *coordinationv1.Lease, options metav1.CreateOptions) (*coordinationv1.Lease, error) {
	return o.LeaseInterface.Create(ctx, o.give(lease), options)
}

// Update implements coordinationclient.LeaseInterface.
func (o ownedLeases) Update(ctx context.Context, lease *coordinationv1.Lease, options metav1.UpdateOptions) (*coordinationv1.Lease, error) {
	return o.LeaseInterface.Update(ctx, o.give(lease), options)
}

func (o ownedLeases) give(lease *coordinationv1.Lease) *coordinationv1.Lease {
	if owner := o.owner(); owner != nil {
		lease = lease.DeepCopy()
		lease.OwnerReferences = owner
	}
	return lease
}
