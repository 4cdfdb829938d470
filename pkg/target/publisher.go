package target

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"

	"github.com/netlatency/netlatency/apis/config"
)

const (
	// publishInterval is the time between two looks at the targets, so a slice
	// is written at most so often: each write is sent to every agent.
	publishInterval = 10 * time.Second
	// publishPauseMost is how long failures in a row make the interval.
	publishPauseMost = 5 * time.Minute
	// publishTimeout bounds one look with all its writes.
	publishTimeout = 30 * time.Second

	// The Lease is kept at a fifth of the rate of a scheduler's own: where
	// targets are is not urgent, what was told stays.
	leaseDuration = 60 * time.Second
	leaseDeadline = 40 * time.Second
	leaseRetry    = 10 * time.Second
)

// Publisher tells the agents on which nodes targets run, in EndpointSlices:
// one for each target and address family, with one replica for each node. The
// Service that these name does not exist. It also tells them, in their own
// slices, which nodes are no more.
//
// Of all that publish under one name the one that holds a Lease of that name
// writes. Slices say the same as long as the targets stay where they are, and
// nothing is written then. Slices and Lease are owned by the agents' Service.
type Publisher struct {
	client             kubernetes.Interface
	namespace, service string
	agents             string // Service of the agents; empty is another's concern
	nodes              corelisters.NodeLister

	mu       sync.Mutex
	followed []followed
	stats    PublisherStats
	failing  map[string]bool // by what was tried
}

// followed is targets of one Index: their places, and what their slices are
// called.
type followed struct {
	index *Index
	base  map[int]string
}

// PublisherStats is what a Publisher counts.
type PublisherStats struct {
	// LeftOut is the number of nodes beyond MaxNodes.
	LeftOut int
	// Failures counts requests to the API server that failed.
	Failures uint64
}

// NewPublisher prepares a publisher in the namespace and under the Service name
// of to. agents is the name of the agents' own Service there, empty if their
// slices are to be left alone. The client needs to get, list, create, update and
// delete EndpointSlices there, to create Leases and to get and update the one
// called as the Service, and to get nodes.
func NewPublisher(client kubernetes.Interface, to config.TargetSlices, agents string, nodes corelisters.NodeLister) *Publisher {
	return &Publisher{client: client, namespace: to.Namespace, service: to.Service, agents: agents, nodes: nodes, failing: make(map[string]bool)}
}

// Follow adds those targets of index that have their places in the list. What
// is alike in several indexes is written once.
func (p *Publisher) Follow(index *Index, targets []config.Target, places []int) error {
	f := followed{index: index, base: make(map[int]string)}
	for _, at := range places {
		base, err := sliceBase(p.service, targets[at])
		if err != nil {
			return err
		}
		f.base[at] = base
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.followed = append(p.followed, f)
	return nil
}

// Stats is what was counted until now.
func (p *Publisher) Stats() PublisherStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stats
}

// Run publishes whenever it holds the Lease, until ctx ends. It never fails:
// what does not work is tried again, ever more rarely.
func (p *Publisher) Run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	terms := make(chan context.Context)
	go p.stand(ctx, terms)
	for {
		select {
		case <-ctx.Done():
			return
		case term := <-terms:
			p.lead(term)
		}
	}
}

// stand hands over a context for each time that the Lease is held, which ends
// when it no longer is.
func (p *Publisher) stand(ctx context.Context, terms chan<- context.Context) {
	host, _ := os.Hostname() // as a scheduler's identity, for people
	lease := &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: p.namespace, Name: p.service},
		Client:     owned{p.client.CoordinationV1(), p.owner},
		LockConfig: resourcelock.ResourceLockConfig{Identity: host + "_" + string(uuid.NewUUID())},
	}
	wait.UntilWithContext(ctx, func(ctx context.Context) {
		elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
			Lock:            &lock{Interface: lease, note: func(doing string, err error) { p.note(ctx, doing, err) }},
			Name:            p.service,
			LeaseDuration:   leaseDuration,
			RenewDeadline:   leaseDeadline,
			RetryPeriod:     leaseRetry,
			ReleaseOnCancel: true,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(term context.Context) {
					select {
					case terms <- klog.NewContext(term, klog.FromContext(ctx)):
					case <-term.Done():
					}
				},
				OnStoppedLeading: func() {},
			},
		})
		if err != nil {
			p.note(ctx, "stand for the Lease", err)
			return
		}
		// It would log each failed attempt, for ever; lock notes them.
		elector.Run(klog.NewContext(ctx, klog.Logger{}))
	}, leaseRetry)
}

// lock notes what becomes of the requests for a Lease.
type lock struct {
	resourcelock.Interface
	note func(doing string, err error)
}

// Get implements resourcelock.Interface.
func (l *lock) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	record, raw, err := l.Interface.Get(ctx)
	if !apierrors.IsNotFound(err) { // the first of all has none
		l.note("read the Lease", err)
	}
	return record, raw, err
}

// Create implements resourcelock.Interface.
func (l *lock) Create(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	err := l.Interface.Create(ctx, record)
	if !apierrors.IsAlreadyExists(err) { // another one was faster
		l.note("create the Lease", err)
	}
	return err
}

// Update implements resourcelock.Interface.
func (l *lock) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	err := l.Interface.Update(ctx, record)
	if !apierrors.IsConflict(err) { // another one was faster
		l.note("update the Lease", err)
	}
	return err
}

// note counts and logs a failure, a row of the same as one. A nil err ends the
// row.
func (p *Publisher) note(ctx context.Context, doing string, err error) {
	if ctx.Err() != nil {
		return // the end looks like a failure
	}
	p.mu.Lock()
	first := !p.failing[doing]
	p.failing[doing] = err != nil
	if err != nil {
		p.stats.Failures++
	}
	p.mu.Unlock()
	if err == nil {
		return
	}
	logger := klog.LoggerWithValues(klog.FromContext(ctx), "namespace", p.namespace, "service", p.service, "doing", doing)
	if first {
		logger.Error(err, "Cannot tell the agents on which nodes targets run; trying again. In a cluster of more nodes than the agents' --max-peers some ways to targets are estimated meanwhile. "+
			"A Role in the namespace is needed with get, list, create, update and delete on endpointslices, create on leases, and get and update on the lease that is called as the service")
		return
	}
	logger.V(4).Info("Still cannot tell the agents on which nodes targets run", "err", err)
}

// lead publishes until term ends.
func (p *Publisher) lead(term context.Context) {
	// What is not synced looks like targets that have gone.
	err := wait.PollUntilContextCancel(term, time.Second, true, func(context.Context) (bool, error) {
		_, known := p.targets()
		return known, nil
	})
	if err != nil {
		return
	}
	failures := workqueue.NewTypedItemExponentialFailureRateLimiter[string](publishInterval, publishPauseMost)
	for {
		pause := publishInterval
		err := p.publish(term)
		p.note(term, "write EndpointSlices", err)
		p.note(term, "take nodes that are gone out of the agents' EndpointSlices", p.dropGone(term))
		if err == nil {
			failures.Forget(p.service)
		} else {
			pause = failures.When(p.service)
		}
		select {
		case <-term.Done():
			return
		case <-time.After(pause):
		}
	}
}

// publish makes the slices what they should be.
func (p *Publisher) publish(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	targets, known := p.targets()
	if !known {
		return nil
	}
	owner := p.owner()
	if p.agents != "" && owner == nil {
		return nil // no agents that could be told; perhaps all is being uninstalled
	}
	p.leaveOut(ctx, bound(targets, MaxNodes))
	want, stay := p.wanted(targets)
	for _, slice := range want {
		slice.OwnerReferences = owner
	}
	api := p.client.DiscoveryV1().EndpointSlices(p.namespace)
	mine := labels.Set{discoveryv1.LabelServiceName: p.service, discoveryv1.LabelManagedBy: ManagedBy}
	// Version 0 is read from the API server's cache. What is older than we
	// think fails as a conflict and is done at the next look.
	list, err := api.List(ctx, metav1.ListOptions{LabelSelector: mine.String(), ResourceVersion: "0"})
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	var faults []error
	for i := range list.Items {
		have := &list.Items[i]
		wanted := want[have.Name]
		delete(want, have.Name)
		switch {
		case wanted == nil && stay[have.Name] || wanted != nil && same(have, wanted):
		case wanted == nil:
			err := api.Delete(ctx, have.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &have.UID}})
			if err != nil && !apierrors.IsNotFound(err) {
				faults = append(faults, fmt.Errorf("delete %s: %w", have.Name, err))
			}
		default:
			next := have.DeepCopy()
			maps.Copy(next.Labels, wanted.Labels)
			next.Endpoints, next.Ports, next.OwnerReferences = wanted.Endpoints, wanted.Ports, wanted.OwnerReferences
			if _, err := api.Update(ctx, next, metav1.UpdateOptions{}); err != nil {
				faults = append(faults, fmt.Errorf("update %s: %w", have.Name, err))
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if _, err := api.Create(ctx, want[name], metav1.CreateOptions{}); err != nil {
			faults = append(faults, fmt.Errorf("create %s: %w", name, err))
		}
	}
	return errors.Join(faults...)
}

// targets is where all that is followed can be reached, by what its slices are
// called. Nothing is known before all has synced.
func (p *Publisher) targets() (targets map[string]reach, known bool) {
	p.mu.Lock()
	all := p.followed
	p.mu.Unlock()
	targets = make(map[string]reach)
	for _, f := range all {
		for at, base := range f.base {
			if targets[base], known = f.index.reach(at); !known {
				return nil, false
			}
		}
	}
	return targets, true
}

// wanted is the slices as they should be, by name, and the names of those that
// stay as they are, because no replica of their target is ready and it is in
// its grace period.
func (p *Publisher) wanted(targets map[string]reach) (want map[string]*discoveryv1.EndpointSlice, stay map[string]bool) {
	want, stay = make(map[string]*discoveryv1.EndpointSlice), make(map[string]bool)
	for base, r := range targets {
		for _, family := range families {
			stay[base+family.suffix] = r.grace
		}
		for _, slice := range slicesOf(p.namespace, p.service, base, r, p.zone) {
			want[slice.Name] = slice
		}
	}
	return want, stay
}

// leaveOut counts the nodes that the agents are not told of, and logs when they
// become some.
func (p *Publisher) leaveOut(ctx context.Context, nodes int) {
	p.mu.Lock()
	before := p.stats.LeftOut
	p.stats.LeftOut = nodes
	p.mu.Unlock()
	if before == 0 && nodes > 0 {
		klog.FromContext(ctx).Info("Targets run on more nodes than the agents are told of; the ways to the others are measured as far as they are in the agents' samples", "most", MaxNodes, "leftOut", nodes)
	}
}

// zone is what EndpointSlices of Kubernetes' own would say.
func (p *Publisher) zone(name string) string {
	node, err := p.nodes.Get(name)
	if err != nil {
		return "" // it has just gone
	}
	return node.Labels[corev1.LabelTopologyZone]
}
