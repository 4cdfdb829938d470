package target

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"

	"github.com/netlatency/netlatency/apis/config"
)

// Grace is how long a target of which no replica is left keeps its last
// nodes. A restart of all its pods, or a probe that fails everywhere for a
// moment, must not let the pods that are placed meanwhile go anywhere.
const Grace = time.Minute

// Index keeps the sets of a list of targets current. The informers' handlers
// change it under mu; readers load published, and are never in their way.
type Index struct {
	clock     clock.Clock
	pods      corelisters.PodLister
	nodes     corelisters.NodeLister
	services  corelisters.ServiceLister // nil without a Service among the targets
	hasSynced []cache.InformerSynced    // of the handlers
	choices   []choice
	ending    chan struct{} // a grace period has begun

	mu      sync.Mutex
	tracks  []*track
	started bool // sets are made and published
	// published holds, after the handlers have synced, the current set of each
	// target, by its place in the list.
	published atomic.Pointer[[]*Set]
}

// track is one target as the handlers know it.
type track struct {
	choice // its own: the selector of a Service comes and goes
	members
	set      *Set
	graceEnd time.Time // zero unless set.Grace
}

// NewIndex registers handlers for what targets need with the informers of
// factory, which the caller starts: pods or nodes or services, never
// EndpointSlices, which a scheduler's ClusterRole may not list; an informer
// that cannot sync would keep the scheduler from starting. Run makes the
// sets current. It fails for a target that chooses nothing and for a selector
// that cannot be.
func NewIndex(targets []config.Target, factory informers.SharedInformerFactory, clock clock.Clock) (*Index, error) {
	x := &Index{clock: clock, ending: make(chan struct{}, 1)}
	var pods, nodes, services bool
	for _, t := range targets {
		choice, err := newChoice(t)
		if err != nil {
			return nil, err
		}
		pods = pods || choice.pods != nil
		nodes = nodes || choice.nodes != nil
		services = services || choice.service != nil
		x.choices = append(x.choices, choice)
		x.tracks = append(x.tracks, newTrack(choice))
	}
	core := factory.Core().V1()
	// Services come first: with the selectors at hand a pod is looked at once.
	if services {
		x.services = core.Services().Lister()
		if err := x.handle(core.Services().Informer(), handler(x.placeService, x.removeService)); err != nil {
			return nil, fmt.Errorf("watch the services of targets: %w", err)
		}
	}
	if pods {
		x.pods = core.Pods().Lister()
		if err := x.handle(core.Pods().Informer(), handler(x.placePod, x.removePod)); err != nil {
			return nil, fmt.Errorf("watch the pods of targets: %w", err)
		}
	}
	if nodes {
		x.nodes = core.Nodes().Lister()
		if err := x.handle(core.Nodes().Informer(), handler(x.placeNode, x.removeNode)); err != nil {
			return nil, fmt.Errorf("watch the nodes of targets: %w", err)
		}
	}
	return x, nil
}

func newTrack(choice choice) *track {
	return &track{choice: choice, members: newMembers(), set: &Set{}}
}

func (x *Index) handle(informer cache.SharedIndexInformer, h cache.ResourceEventHandler) error {
	registration, err := informer.AddEventHandler(h)
	if err != nil {
		return err
	}
	x.hasSynced = append(x.hasSynced, registration.HasSynced)
	return nil
}

// handler calls place for what is there and remove for what is gone.
func handler[T any](place, remove func(T)) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(object any) {
			if o, ok := object.(T); ok {
				place(o)
			}
		},
		UpdateFunc: func(_, object any) {
			if o, ok := object.(T); ok {
				place(o)
			}
		},
		DeleteFunc: func(object any) {
			if tombstone, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = tombstone.Obj
			}
			if o, ok := object.(T); ok {
				remove(o)
			}
		},
	}
}

// Sets is where each target runs now, by the target's place in the list that
// the Index was made with. The caller only reads it. As long as the handlers
// are behind at the start, the answer is made from the listers instead, so
// that the first pods are not placed blind.
func (x *Index) Sets() []*Set {
	if published := x.published.Load(); published != nil {
		return *published
	}
	return x.fromListers()
}

// Run publishes the sets as soon as the handlers have synced, and ends grace
// periods. It returns when ctx ends.
func (x *Index) Run(ctx context.Context) {
	if !cache.WaitForCacheSync(ctx.Done(), x.hasSynced...) {
		return
	}
	x.start()
	for {
		end, ok := x.endGraces()
		var timer clock.Timer
		var expired <-chan time.Time
		if ok {
			timer = x.clock.NewTimer(end.Sub(x.clock.Now()))
			expired = timer.C()
		}
		select {
		case <-ctx.Done():
		case <-expired:
		case <-x.ending:
		}
		if timer != nil {
			timer.Stop()
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// start makes the first sets. Until then the handlers only count: sets of
// which half is not read yet would be wrong, and one for each object that is
// read at the start would be slow.
func (x *Index) start() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.started = true
	for _, t := range x.tracks {
		if len(t.count) > 0 {
			t.set = &Set{Version: 1, Replicas: t.replicas()}
		}
	}
	x.publish()
}

// endGraces empties the sets whose grace is over and returns when the next one
// is, if one is running.
func (x *Index) endGraces() (next time.Time, ok bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	now := x.clock.Now()
	for _, t := range x.tracks {
		switch {
		case t.graceEnd.IsZero():
		case !now.Before(t.graceEnd):
			t.graceEnd = time.Time{}
			t.set = &Set{Version: t.set.Version + 1}
			x.publish()
		case !ok || t.graceEnd.Before(next):
			next, ok = t.graceEnd, true
		}
	}
	return next, ok
}

// changed makes a new set of what t knows.
func (x *Index) changed(t *track) {
	switch {
	case len(t.count) > 0:
		t.graceEnd = time.Time{}
		t.set = &Set{Version: t.set.Version + 1, Replicas: t.replicas()}
	case len(t.set.Replicas) > 0 && !t.set.Grace:
		t.graceEnd = x.clock.Now().Add(Grace)
		t.set = &Set{Version: t.set.Version + 1, Replicas: t.set.Replicas, Grace: true}
		select {
		case x.ending <- struct{}{}:
		default:
		}
	}
	x.publish()
}

// publish shows readers the current sets.
func (x *Index) publish() {
	sets := make([]*Set, len(x.tracks))
	for i, t := range x.tracks {
		sets[i] = t.set
	}
	x.published.Store(&sets)
}

func (x *Index) placePod(pod *corev1.Pod) {
	x.each(func(t *track) bool { return t.pods != nil && t.place(podKey(pod), t.placeOfPod(pod)) })
}

func (x *Index) removePod(pod *corev1.Pod) {
	x.each(func(t *track) bool { return t.pods != nil && t.place(podKey(pod), "") })
}

func (x *Index) placeNode(node *corev1.Node) {
	x.each(func(t *track) bool { return t.nodes != nil && t.place(node.Name, t.placeOfNode(node)) })
}

func (x *Index) removeNode(node *corev1.Node) {
	x.each(func(t *track) bool { return t.nodes != nil && t.place(node.Name, "") })
}

func (x *Index) placeService(service *corev1.Service) {
	x.each(func(t *track) bool { return t.follow(service, podSelector(service), x.pods) })
}

func (x *Index) removeService(service *corev1.Service) {
	x.each(func(t *track) bool { return t.follow(service, labels.Nothing(), x.pods) })
}

// each lets change act on every target, and publishes those it changed.
func (x *Index) each(change func(*track) bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, t := range x.tracks {
		if change(t) && x.started {
			x.changed(t)
		}
	}
}

// podSelector is the selector of a Service. One without a selector has its
// endpoints from elsewhere, and chooses no pods.
func podSelector(service *corev1.Service) labels.Selector {
	if len(service.Spec.Selector) == 0 {
		return labels.Nothing()
	}
	return labels.SelectorFromSet(service.Spec.Selector)
}

// follow takes over the selector of the Service that t is about, and counts
// the pods of its namespace again if that is another one. It reports whether
// the set of replicas is another one now.
func (t *track) follow(service *corev1.Service, selector labels.Selector, pods corelisters.PodLister) bool {
	if t.service == nil || t.service.Namespace != service.Namespace || t.service.Name != service.Name || t.pods.String() == selector.String() {
		return false
	}
	t.pods = selector
	changed := false
	// The lister may be ahead of the handler for pods, whose events then
	// change nothing, or something for the moment until it has caught up.
	chosen, err := pods.Pods(service.Namespace).List(selector)
	if err != nil {
		return false // the informers' lister returns none
	}
	stay := make(map[string]bool, len(chosen))
	for _, pod := range chosen {
		stay[podKey(pod)] = true
		changed = t.place(podKey(pod), t.placeOfPod(pod)) || changed
	}
	for key := range t.node {
		if !stay[key] {
			changed = t.place(key, "") || changed
		}
	}
	return changed
}

// fromListers makes the sets in one go, for readers that come before the
// handlers have synced. It shares nothing with the tracks that these fill.
func (x *Index) fromListers() []*Set {
	sets := make([]*Set, len(x.choices))
	for i, choice := range x.choices {
		now := newTrack(choice)
		if now.service != nil {
			if service, err := x.services.Services(now.service.Namespace).Get(now.service.Name); err == nil {
				now.follow(service, podSelector(service), x.pods)
			}
		} else if now.pods != nil {
			pods, _ := x.pods.List(now.pods)
			for _, pod := range pods {
				now.place(podKey(pod), now.placeOfPod(pod))
			}
		}
		if now.nodes != nil {
			nodes, _ := x.nodes.List(now.nodes)
			for _, node := range nodes {
				now.place(node.Name, now.placeOfNode(node))
			}
		}
		sets[i] = &Set{Replicas: now.replicas()}
	}
	return sets
}

func podKey(pod *corev1.Pod) string { return pod.Namespace + "/" + pod.Name }
