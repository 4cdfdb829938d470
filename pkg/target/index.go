package target

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"

	"github.com/netlatency/netlatency/apis/config"
	"github.com/netlatency/netlatency/pkg/placement"
)

// Grace is how long a target of which no replica is left keeps its last
// nodes. A restart of all its pods, or a probe that fails everywhere for a
// moment, must not let the pods that are placed meanwhile go anywhere.
const Grace = time.Minute

const (
	// lostTogether is how far apart replicas are lost by one cause. One that
	// crashes is lost at once; a readiness probe as Kubernetes has it by default
	// fails for good within 30 s (periodSeconds 10, failureThreshold 3).
	lostTogether = 30 * time.Second
	// provisionalFor is how long a set that was made from complete listers serves
	// all who ask before the handlers have synced: the whole of a pod's cycle reads
	// one set, and the pods are not walked through for each of its steps.
	provisionalFor = 200 * time.Millisecond
)

// Index keeps the sets of targets current: of those of the configuration, and
// of those that are followed while somebody wants them. The informers'
// handlers change it under mu; readers load what a Target has published, and
// are never in their way. Follow and Release are called under the lock of the
// scheduling queue and never wait for mu, which is held while pods are counted;
// who holds both has taken mu first.
type Index struct {
	clock      clock.Clock
	client     kubernetes.Interface // for EndpointSlices
	pods       cache.Indexer        // with an index by namespace
	nodes      corelisters.NodeLister
	services   corelisters.ServiceLister
	namespaces corelisters.NamespaceLister
	haveRead   []cache.InformerSynced // of the informers
	hasSynced  []cache.InformerSynced // of the handlers, which come later
	configured []*Target              // by place; nil for one that differs from pod to pod
	ending     chan struct{}          // a grace period has begun, or a target's end
	moved      []chan<- struct{}
	guard      func(what string, handle func())

	mu       sync.Mutex
	ctx      context.Context // of Run, for watches; nil before it has started
	started  bool            // sets are made and published
	affected affected
	watches  int // of EndpointSlices, for targets that are not of the configuration

	following sync.Mutex
	targets   map[string]*Target
	released  []*Target // what is known of them is yet to be dropped
}

// Target is one target that an Index keeps current.
type Target struct {
	index           *Index
	key             string
	ofConfiguration bool
	published       published
	users           int // under the index's following

	// The rest is the index's, under its mu.
	choice
	filled bool
	members
	selected      map[string]bool        // namespaces that ofNamespace chooses
	distribution  placement.Distribution // of the Service
	notReady      bool                   // the Service publishes pods that are not ready
	set           *Set
	lost          []loss    // the newest last, of lostTogether before it
	graceEnd      time.Time // zero unless set.Grace
	watch         *watch    // of EndpointSlices, nil without
	provisional   *Set      // before the handlers have synced
	provisionalAt time.Time
}

// NewIndex registers handlers for pods, nodes, Services and namespaces with
// the informers of factory, which the caller starts; Run makes the sets
// current. A Service without a selector is watched through client, since a
// scheduler's ClusterRole may not list EndpointSlices, and an informer of
// factory that cannot sync would keep the scheduler from starting. NewIndex
// fails for a target that chooses nothing and for a selector that cannot be.
func NewIndex(targets []config.Target, factory informers.SharedInformerFactory, client kubernetes.Interface, clock clock.Clock) (*Index, error) {
	core := factory.Core().V1()
	x := &Index{
		clock:      clock,
		client:     client,
		pods:       core.Pods().Informer().GetIndexer(),
		nodes:      core.Nodes().Lister(),
		services:   core.Services().Lister(),
		namespaces: core.Namespaces().Lister(),
		ending:     make(chan struct{}, 1),
		targets:    make(map[string]*Target),
		affected:   newAffected(),
		guard:      func(_ string, handle func()) { handle() },
	}
	for _, t := range targets {
		if t.Pods != nil && len(t.Pods.MatchLabelKeys) > 0 {
			if _, err := newChoice(t); err != nil {
				return nil, err
			}
			x.configured = append(x.configured, nil)
			continue
		}
		configured, err := x.Follow(t)
		if err != nil {
			return nil, err
		}
		configured.ofConfiguration = true
		x.configured = append(x.configured, configured)
	}
	// The scheduler's own informer of pods has no index by namespace.
	if _, ok := x.pods.GetIndexers()[cache.NamespaceIndex]; !ok {
		byNamespace := cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc}
		if err := core.Pods().Informer().AddIndexers(byNamespace); err != nil {
			return nil, fmt.Errorf("index pods by namespace: %w", err)
		}
	}
	for _, watched := range []struct {
		informer cache.SharedIndexInformer
		handler  cache.ResourceEventHandler
	}{
		{core.Services().Informer(), handler(x, "services", x.placeService, x.removeService)},
		{core.Namespaces().Informer(), handler(x, "namespaces", x.placeNamespace, x.removeNamespace)},
		{core.Pods().Informer(), handler(x, "pods", x.placePod, x.removePod)},
		{core.Nodes().Informer(), handler(x, "nodes", x.placeNode, x.removeNode)},
	} {
		registration, err := watched.informer.AddEventHandler(watched.handler)
		if err != nil {
			return nil, fmt.Errorf("watch what targets are made of: %w", err)
		}
		x.haveRead = append(x.haveRead, watched.informer.HasSynced)
		x.hasSynced = append(x.hasSynced, registration.HasSynced)
	}
	return x, nil
}

// Notify lets the index send to moved, without waiting, after each change of a
// target. It must be called before Run.
func (x *Index) Notify(moved chan<- struct{}) { x.moved = append(x.moved, moved) }

// Guard has run call what the handlers do with an object, of the kind that what
// says, so that run may recover from a panic there: client-go takes one in a
// handler for the end of the process. What the object would have changed is
// then as it was. It must be called before the informers start.
func (x *Index) Guard(run func(what string, handle func())) { x.guard = run }

// handler calls place for what is there and remove for what is gone.
func handler[T any](x *Index, what string, place, remove func(T)) cache.ResourceEventHandler {
	call := func(handle func(T), object any) {
		if o, ok := object.(T); ok {
			x.guard(what, func() { handle(o) })
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { call(place, object) },
		UpdateFunc: func(_, object any) { call(place, object) },
		DeleteFunc: func(object any) {
			if tombstone, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = tombstone.Obj
			}
			call(remove, object)
		},
	}
}

// Follow returns the target that t chooses, to be kept current until Release.
// Targets that choose alike are one. What t says besides does not matter. It
// looks at no pod; the first Set does.
func (x *Index) Follow(t config.Target) (*Target, error) {
	key, err := keyOf(t)
	if err != nil {
		return nil, fmt.Errorf("target %q: %w", t.Name, err)
	}
	x.following.Lock()
	defer x.following.Unlock()
	followed, ok := x.targets[key]
	if !ok {
		choice, err := newChoice(t)
		if err != nil {
			return nil, err
		}
		followed = &Target{index: x, key: key, choice: choice, members: newMembers(), set: &Set{}}
		x.targets[key] = followed
	}
	followed.users++
	return followed, nil
}

// Release takes back one Follow. After the last the set is no longer current.
func (x *Index) Release(t *Target) {
	x.following.Lock()
	defer x.following.Unlock()
	if t.users--; t.users > 0 {
		return
	}
	delete(x.targets, t.key)
	x.released = append(x.released, t)
	wakeUp(x.ending)
}

// dropReleased drops what is known of targets that were released.
func (x *Index) dropReleased() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.following.Lock()
	released := x.released
	x.released = nil
	x.following.Unlock()
	for _, t := range released {
		x.affected.remove(t)
		for key := range t.node {
			x.affected.forget(t, key)
		}
	}
	for _, t := range released {
		x.stopWatch(t) // for others, none of these among them
	}
}

func (x *Index) isFollowed(t *Target) bool {
	x.following.Lock()
	defer x.following.Unlock()
	return t.users > 0
}

// Configured is the target at place i of the list that the Index was made
// with; nil for one with labels to share, which differs from pod to pod.
func (x *Index) Configured(i int) *Target { return x.configured[i] }

// Sets is where each target of the configuration runs now, by its place in the
// list that the Index was made with; nowhere for one that differs from pod to
// pod. The caller only reads it.
func (x *Index) Sets() []*Set {
	sets := make([]*Set, len(x.configured))
	for i, t := range x.configured {
		if t == nil {
			sets[i] = &Set{}
			continue
		}
		sets[i] = t.Set()
	}
	return sets
}

// all is every target that is kept current.
func (x *Index) all() []*Target {
	x.following.Lock()
	defer x.following.Unlock()
	return slices.Collect(maps.Values(x.targets))
}

// Nodes is the nodes on which any target runs, those that are followed among
// them, in no order.
func (x *Index) Nodes() []string {
	unique := make(map[string]bool)
	for _, t := range x.all() {
		for _, replica := range t.Set().Replicas {
			unique[replica.Node] = true
		}
	}
	return slices.Collect(maps.Keys(unique))
}

// Census is the number of targets that are kept current, and of those that run
// nowhere.
func (x *Index) Census() (targets, empty int) {
	all := x.all()
	for _, t := range all {
		if len(t.Set().Replicas) == 0 {
			empty++
		}
	}
	return len(all), empty
}

// Set is where the target runs now. As long as the handlers are behind at the
// start, the answer is made from the listers instead, so that the first pods
// are not placed blind; and so is the first of a target that is followed.
func (t *Target) Set() *Set {
	if set := t.published.Load(); set != nil {
		return set
	}
	x := t.index
	set, choice := x.known(t)
	if set != nil {
		return set
	}
	complete := !slices.ContainsFunc(x.haveRead, func(has cache.InformerSynced) bool { return !has() })
	set = x.afresh(choice)
	if complete { // else the next one may have much more to see
		set = x.keepProvisional(t, set)
	}
	return set
}

// known is the set of t. It is nil where one is to be made from the listers, of
// what t chooses.
func (x *Index) known(t *Target) (*Set, choice) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.started && x.isFollowed(t) {
		x.fill(t)
		return t.set, t.choice
	}
	if t.provisional != nil && x.clock.Since(t.provisionalAt) < provisionalFor {
		return t.provisional, t.choice
	}
	return nil, t.choice
}

// keepProvisional keeps a set that was made from the listers, unless another
// was faster, and returns the one that is kept.
func (x *Index) keepProvisional(t *Target, set *Set) *Set {
	x.mu.Lock()
	defer x.mu.Unlock()
	if faster := t.published.Load(); faster != nil {
		return faster
	}
	if now := x.clock.Now(); t.provisional == nil || now.Sub(t.provisionalAt) >= provisionalFor {
		t.provisional, t.provisionalAt = t.unlessSame(set), now
	}
	return t.provisional
}

// unlessSame is set, or the provisional one if that says the same: what was
// computed from it holds on.
func (t *Target) unlessSame(set *Set) *Set {
	if p := t.provisional; p != nil && p.Version == set.Version && p.Distribution == set.Distribution && slices.Equal(p.Replicas, set.Replicas) {
		return p
	}
	return set
}

// afresh is where what c chooses runs by the listers. It takes no lock: there
// may be very many pods to walk through.
func (x *Index) afresh(c choice) *Set {
	t := &Target{index: x, choice: c, members: newMembers()}
	x.count(t)
	return t.firstSet()
}

// firstSet is the set of what was counted first.
func (t *Target) firstSet() *Set {
	if len(t.count) == 0 {
		return &Set{}
	}
	return &Set{Version: 1, Replicas: t.replicas(), Distribution: t.distribution}
}

// Settle waits until Run has seen all that was there when it began, so that no
// set is provisional. It returns false if ctx ends before that: EndpointSlices
// that may not be read never come.
func (x *Index) Settle(ctx context.Context) bool {
	return cache.WaitForCacheSync(ctx.Done(), func() bool {
		x.mu.Lock()
		defer x.mu.Unlock()
		if !x.started {
			return false
		}
		for _, t := range x.all() {
			if t.watch != nil && !t.watch.hasSynced() {
				return false
			}
		}
		return true
	})
}

// Run publishes the sets as soon as the handlers have synced, ends grace periods
// and drops what was released. It returns when ctx ends.
func (x *Index) Run(ctx context.Context) {
	if !cache.WaitForCacheSync(ctx.Done(), x.hasSynced...) {
		return
	}
	x.start(ctx)
	for {
		x.dropReleased()
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

// start makes the first sets. Until then the handlers do nothing: sets of
// which half is not read yet would be wrong, and one for each object that is
// read at the start would be slow.
func (x *Index) start(ctx context.Context) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.ctx, x.started = ctx, true
	for _, t := range x.all() {
		x.fill(t)
	}
}

// fill makes the first set of t, and lets the handlers change it from here on.
func (x *Index) fill(t *Target) {
	if t.filled {
		return
	}
	t.filled = true
	x.count(t)
	x.affected.add(t)
	for key := range t.node {
		x.affected.note(t, key)
	}
	if t.service != nil {
		x.watchIfUnselected(t)
	}
	t.set, t.provisional = t.unlessSame(t.firstSet()), nil
	x.publish(t)
}

// endGraces empties the sets whose grace is over and returns when the next one
// is, if one is running.
func (x *Index) endGraces() (next time.Time, ok bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	now := x.clock.Now()
	for _, t := range x.all() {
		switch {
		case t.graceEnd.IsZero():
		case !now.Before(t.graceEnd):
			t.graceEnd, t.lost = time.Time{}, nil
			t.set = &Set{Version: t.set.Version + 1}
			x.publish(t)
		case !ok || t.graceEnd.Before(next):
			next, ok = t.graceEnd, true
		}
	}
	return next, ok
}

// changed makes a new set of what t knows.
func (x *Index) changed(t *Target) {
	switch {
	case len(t.count) > 0:
		t.graceEnd = time.Time{}
		t.set = &Set{Version: t.set.Version + 1, Replicas: t.replicas(), Distribution: t.distribution}
	case len(t.set.Replicas) > 0 && !t.set.Grace:
		t.graceEnd = x.clock.Now().Add(Grace)
		t.set = &Set{Version: t.set.Version + 1, Replicas: t.lastReplicas(), Distribution: t.set.Distribution, Grace: true}
		wakeUp(x.ending)
	}
	x.publish(t)
}

// publish shows readers the current set of t.
func (x *Index) publish(t *Target) {
	if t.published.Swap(t.set) == t.set {
		return
	}
	for _, moved := range x.moved {
		wakeUp(moved)
	}
}

func wakeUp(wake chan<- struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// place notes that the replica called key of t runs on node, nowhere if node
// is empty, and reports whether the set of replicas is another one now.
func (x *Index) place(t *Target, key, node string) bool {
	before := t.node[key]
	if !t.place(key, node) {
		return false
	}
	if node == "" {
		x.affected.forget(t, key)
		t.lose(loss{key, before, x.clock.Now()})
	} else {
		x.affected.note(t, key)
	}
	return true
}

func (x *Index) placePod(pod *corev1.Pod) {
	x.mu.Lock()
	defer x.mu.Unlock()
	key := podKey(pod)
	for _, t := range x.affected.of(key, pod.Labels) {
		if x.place(t, key, t.placeOfPod(pod)) {
			x.changed(t)
		}
	}
}

func (x *Index) removePod(pod *corev1.Pod) {
	x.mu.Lock()
	defer x.mu.Unlock()
	key := podKey(pod)
	for _, t := range slices.Clone(x.affected.counting[key]) {
		if t.pods != nil && x.place(t, key, "") {
			x.changed(t)
		}
	}
}

func (x *Index) placeNode(node *corev1.Node) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for t := range x.affected.nodes {
		if x.place(t, node.Name, t.placeOfNode(node)) {
			x.changed(t)
		}
	}
}

func (x *Index) removeNode(node *corev1.Node) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for t := range x.affected.nodes {
		if x.place(t, node.Name, "") {
			x.changed(t)
		}
	}
}

func podKey(pod *corev1.Pod) string { return pod.Namespace + "/" + pod.Name }
