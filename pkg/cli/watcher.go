package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	configv1 "github.com/netlatency/netlatency/apis/config/v1"
	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/source"
	"github.com/netlatency/netlatency/pkg/target"
	"github.com/netlatency/netlatency/pkg/ui"
)

// watcher reads a cluster over and over and gives a page what it found. Who
// calls run owns its state.
type watcher struct {
	*uiOptions
	cluster *cluster
	server  *ui.Server

	estimates *latency.Estimator // of the last snapshot
	events    map[string][]ui.Event
}

func (o *uiOptions) newWatcher(ctx context.Context, server *ui.Server) (*watcher, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, o.timeout, fmt.Errorf("it took longer than %v; --timeout gives more", o.timeout))
	defer cancel()
	c, err := o.find(ctx)
	if err != nil {
		return nil, err
	}
	return &watcher{uiOptions: o, cluster: c, server: server}, nil
}

// run watches until ctx ends.
func (w *watcher) run(ctx context.Context) {
	for ctx.Err() == nil {
		w.term(ctx)
	}
}

// term watches as long as the scheduler's configuration stays the same. What
// cannot be read is a problem that the page tells; the rest is shown.
func (w *watcher) term(ctx context.Context) {
	ctx, end := context.WithCancel(ctx)
	defer end()
	profiles, configProblem := w.cluster.profiles(ctx)
	factory := informers.NewSharedInformerFactoryWithOptions(w.cluster.client, 0, informers.WithTransform(withoutManagedFields))
	v := &view{
		profiles: profiles, args: defaultArgs(), problems: newProblems(),
		nodes: factory.Core().V1().Nodes().Lister(), pods: factory.Core().V1().Pods().Lister(),
	}
	if configProblem != nil {
		v.problems.set("configuration", configProblem)
	} else {
		v.args = profiles[0].args
	}
	for _, p := range profiles {
		index, err := target.NewIndex(p.args.Targets, factory, w.cluster.client, clock.RealClock{})
		if err != nil {
			v.problems.set("targets", err)
			index = nil
		}
		v.indexes = append(v.indexes, index)
	}
	core := factory.Core().V1()
	watched := map[string]cache.SharedIndexInformer{"nodes": core.Nodes().Informer(), "pods": core.Pods().Informer()}
	if len(profiles) > 0 {
		watched["services"], watched["namespaces"] = core.Services().Informer(), core.Namespaces().Informer()
	}
	for what, informer := range watched {
		// It fails only once the informer runs.
		_ = informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
			// A watch ends every few minutes, which is no problem.
			if !informer.HasSynced() || apierrors.IsForbidden(err) {
				v.problems.setFor(retried, what, fmt.Errorf("list and watch %s: %w", what, err))
			}
		})
	}
	agents, err := source.NewAgents(source.AgentsOptions{
		Client: w.cluster.client, Namespace: w.cluster.namespace, Service: w.cluster.service, Port: configv1.DefaultAgentsPort,
		Transport: w.wayToAgents(), Interval: w.interval, Timeout: min(w.interval, 5*time.Second), StaleAfter: oldest,
		Publish: func(m *latency.Matrix) { w.publish(ctx, v, m) },
	})
	if err != nil { // of options that are all there
		v.problems.set("agents", err)
		w.publish(ctx, v, nil)
		<-ctx.Done()
		return
	}
	v.agents = agents
	factory.StartWithContext(ctx)
	defer factory.Shutdown()
	defer end() // before Shutdown, which waits
	var running sync.WaitGroup
	defer running.Wait()
	defer end()
	for _, index := range v.indexes {
		if index != nil {
			running.Go(func() { index.Run(ctx) })
		}
	}
	running.Go(func() {
		// The first picture is to be whole. What may not be listed is not waited
		// for.
		soon, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		for _, informer := range watched {
			cache.WaitForCacheSync(soon.Done(), informer.HasSynced)
		}
		agents.Run(ctx)
	})

	for every := time.NewTicker(configInterval); ; {
		select {
		case <-ctx.Done():
			every.Stop()
			return
		case <-every.C:
		}
		now, err := w.cluster.profiles(ctx)
		if ctx.Err() != nil {
			continue
		}
		if changed := err == nil && !reflect.DeepEqual(now, profiles); changed {
			klog.FromContext(ctx).V(2).Info("The scheduler's configuration has changed")
			every.Stop()
			return
		}
		v.problems.set("configuration", err)
	}
}

// configInterval is how often the scheduler's configuration is looked at, which
// changes when somebody upgrades the chart.
const configInterval = 30 * time.Second

// withoutManagedFields halves what an object takes in memory.
func withoutManagedFields(object any) (any, error) {
	if accessor, err := meta.Accessor(object); err == nil {
		accessor.SetManagedFields(nil)
	}
	return object, nil
}

// wayToAgents is nil, which is the direct way, in a pod of this cluster. From
// outside it leads through the API server.
func (w *watcher) wayToAgents() http.RoundTripper {
	inside, err := rest.InClusterConfig()
	if err == nil && inside.Host == w.cluster.config.Host && inside.BearerTokenFile == w.cluster.config.BearerTokenFile {
		return nil
	}
	return &renewedProxy{cluster: w.cluster, every: w.interval}
}

// renewedProxy is a podProxy that learns every now and then which pods there
// are.
type renewedProxy struct {
	cluster *cluster
	every   time.Duration

	mu   sync.Mutex
	made time.Time
	err  error
	now  *podProxy
}

// RoundTrip implements http.RoundTripper.
func (p *renewedProxy) RoundTrip(request *http.Request) (*http.Response, error) {
	proxy, err := p.current(request.Context())
	if err != nil {
		return nil, err
	}
	return proxy.RoundTrip(request)
}

func (p *renewedProxy) current(ctx context.Context) (*podProxy, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.made) >= p.every/2 {
		p.now, p.err = p.cluster.newPodProxy(ctx)
		p.made = time.Now()
	}
	return p.now, p.err
}

// problems is what cannot be read at present, by what it is.
type problems struct {
	mu  sync.Mutex
	now map[string]problem
}

type problem struct {
	err error
	end time.Time // zero for one that somebody will end
}

func newProblems() *problems { return &problems{now: make(map[string]problem)} }

// set notes that what cannot be read, or can again if err is nil.
func (p *problems) set(what string, err error) { p.setFor(0, what, err) }

// retried is longer than client-go waits before it lists again, 30 s: who does
// not fail for so long has succeeded.
const retried = time.Minute

// setFor is set for some time; 0 is until it is set again.
func (p *problems) setFor(d time.Duration, what string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.now, what)
	if err == nil {
		return
	}
	now := problem{err: err}
	if d > 0 {
		now.end = time.Now().Add(d)
	}
	p.now[what] = now
}

// list is the problems in sentences.
func (p *problems) list() (sentences []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, what := range slices.Sorted(maps.Keys(p.now)) {
		if end := p.now[what].end; end.IsZero() || time.Now().Before(end) {
			sentences = append(sentences, p.now[what].err.Error())
		}
	}
	return sentences
}

// publish gives the page what there is now.
func (w *watcher) publish(ctx context.Context, v *view, m *latency.Matrix) {
	now := time.Now()
	nodes, err := v.nodes.List(labels.Everything())
	if err != nil { // out of memory it never fails
		return
	}
	groups := make(map[string]latency.NodeGroup, len(nodes))
	names := make([]string, 0, len(nodes))
	for _, n := range nodes {
		maps.Copy(groups, groupsOf([]corev1.Node{*n}, v.args.ProviderLabels))
		names = append(names, n.Name)
	}
	agents := v.health()
	if len(nodes) == 0 { // they may not be listed: what agents know of must do
		names = namesIn(m, agents)
	}
	statistic := latency.Statistic{TailWeight: v.args.Statistic.TailWeight, LossPenalty: v.args.Statistic.LossPenalty.Duration}
	staleAfter := v.args.StaleAfter.Duration
	w.estimates = w.estimates.Next(m, statistic, staleAfter, groups, now)
	s := &ui.Snapshot{
		Taken: now, Interval: w.interval, Matrix: m, Estimates: w.estimates, Statistic: statistic, StaleAfter: staleAfter,
	}
	for _, name := range names {
		agent, ok := agents[name]
		if !ok {
			agent.State = ui.AgentNone
		}
		s.Nodes = append(s.Nodes, ui.Node{Name: name, Group: groups[name], Agent: agent})
	}
	slices.Sort(names)
	w.readEvents(ctx, v)
	w.place(s, v, names, groups)
	s.Problems = v.problems.list()
	w.server.Publish(s)
}

// health is how the agents do, by node.
func (v *view) health() map[string]ui.Agent {
	agents := make(map[string]ui.Agent)
	if v.agents == nil {
		return agents
	}
	failed := 0
	for _, a := range v.agents.Agents() {
		agent := ui.Agent{State: ui.AgentAnswered, Answered: a.Answered}
		if a.Err != nil {
			agent.State, agent.Fault = ui.AgentSilent, a.Err.Error()
			failed++
		}
		agents[a.Node] = agent
	}
	stats := v.agents.Stats()
	switch {
	case !stats.Synced:
		v.problems.set("agents", errors.New("the agents' EndpointSlices have not been listed yet; they take the permission to list and watch them"))
	case len(agents) == 0:
		v.problems.set("agents", errors.New("there is no ready agent"))
	case failed == len(agents):
		v.problems.set("agents", fmt.Errorf("none of %d agents answers; from outside of the cluster it takes the permission to get pods/proxy in their namespace", failed))
	default:
		v.problems.set("agents", nil)
	}
	return agents
}

func namesIn(m *latency.Matrix, agents map[string]ui.Agent) []string {
	known := make(map[string]bool)
	for pair := range m.All() {
		known[pair.Node], known[pair.Peer] = true, true
	}
	for node := range agents {
		known[node] = true
	}
	return slices.SortedFunc(maps.Keys(known), cmp.Compare[string])
}
