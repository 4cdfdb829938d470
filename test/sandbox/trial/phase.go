package trial

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/netlatency/netlatency/pkg/placement"
	"github.com/netlatency/netlatency/test/sandbox"
	"github.com/netlatency/netlatency/test/sandbox/application"
	"github.com/netlatency/netlatency/test/sandbox/cluster"
)

// outcome is what one mode did in a phase, before the truth of the whole phase
// is known.
type outcome struct {
	mode     string
	report   *Mode
	workers  []string  // their nodes
	places   []Place   // without costs
	from, to time.Time // of the burst
	searches []application.Search
}

// phase tries every mode and adds the phase to the report.
func (t *trial) phase(ctx context.Context, name string) error {
	if t.pinnedTo == nil {
		if err := t.pin(ctx); err != nil {
			return err
		}
	}
	if err := t.recorder.begin(ctx); err != nil {
		return err
	}
	outcomes := make([]outcome, 0, len(Modes))
	for _, mode := range Modes {
		t.options.Progress.Status("%s, %s: bursting from %d to %d workers", name, mode, t.Scenario.Burst.From, t.Scenario.Burst.To)
		o, err := t.burst(ctx, mode)
		if err != nil {
			return fmt.Errorf("mode %s: %w", mode, err)
		}
		outcomes = append(outcomes, o)
		t.options.Progress.Step("%s, %s: %d of %d workers bound in %.1f s", name, mode, o.report.Bound, o.report.Workers, o.report.SecondsToBound)
	}
	t.options.Progress.Status("%s: searching from where the workers landed", name)
	if err := t.search(ctx, outcomes); err != nil {
		return err
	}
	phase := Phase{Name: name, Modes: make(map[string]*Mode)}
	searches := make([][]searched, len(outcomes))
	for i, o := range outcomes {
		t.judgePlaces(o)
		var err error
		if searches[i], err = t.searched(o.searches); err != nil {
			return fmt.Errorf("mode %s: %w", o.mode, err)
		}
		phase.Modes[o.mode] = o.report
	}
	quiet := quietRounds(searches)
	for i, o := range outcomes {
		o.report.judgeSearches(searches[i], quiet)
	}
	t.report.Phases = append(t.report.Phases, phase)
	t.options.Progress.Step("%s: %d searches run for each mode", name, t.options.Searches)
	return nil
}

// pin chooses the provider whose nodes are the best place on average, as who
// pins by hand would.
func (t *trial) pin(ctx context.Context) error {
	if err := t.recorder.read(ctx); err != nil {
		return err
	}
	type provider struct {
		nodes []string
		sum   time.Duration
	}
	providers := make(map[string]*provider)
	for _, n := range t.Scenario.NodeList() {
		p := providers[n.Provider]
		if p == nil {
			p = &provider{}
			providers[n.Provider] = p
		}
		if cost, ok := t.cost(t.recorder.whole.Mean, n.Name); ok {
			p.nodes = append(p.nodes, n.Name)
			p.sum += cost
		}
	}
	var best time.Duration
	for _, candidate := range t.Scenario.Providers {
		p := providers[candidate.Name]
		if len(p.nodes) == 0 {
			continue
		}
		if mean := p.sum / time.Duration(len(p.nodes)); t.pinnedTo == nil || mean < best {
			best, t.pinnedTo = mean, p.nodes
		}
	}
	if t.pinnedTo == nil {
		return fmt.Errorf("the WAN's log has no round trip from any node to %v", t.Scenario.Applications.Search)
	}
	return nil
}

// cost is what a worker on a node costs: the mean round trip of its search's
// steps, each to all replicas alike.
func (t *trial) cost(mean func(node, peer string) (time.Duration, bool), node string) (time.Duration, bool) {
	var sum time.Duration
	for _, step := range t.Scenario.Applications.Search {
		var toReplicas time.Duration
		for _, r := range t.replicas[step] {
			rtt, ok := mean(node, r.Node)
			if !ok {
				return 0, false
			}
			toReplicas += rtt
		}
		sum += toReplicas / time.Duration(len(t.replicas[step]))
	}
	return sum / time.Duration(len(t.Scenario.Applications.Search)), true
}

// burst scales a RayService up, notes where its workers land, and deletes it.
func (t *trial) burst(ctx context.Context, mode string) (outcome, error) {
	burst := t.Scenario.Burst
	service, err := t.rayService(mode)
	if err != nil {
		return outcome{}, err
	}
	key := service.Key()
	if err := t.Cluster.ApplyRayService(ctx, service); err != nil {
		return outcome{}, err
	}
	starting, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := t.Cluster.WaitRayServiceRunning(starting, key); err != nil {
		return outcome{}, err
	}
	if _, err := t.Cluster.WaitWorkersBound(starting, key, burst.From); err != nil {
		return outcome{}, err
	}
	if foresee := t.options.BeforeBurst; foresee != nil && mode == ModeNetLatency {
		if err := foresee(ctx, service, burst.To-burst.From); err != nil {
			return outcome{}, err
		}
	}
	scaled := time.Now()
	if err := t.Cluster.ScaleRayService(ctx, key, burst.To); err != nil {
		return outcome{}, err
	}
	workers, took, err := t.settled(ctx, key, scaled)
	if err != nil {
		return outcome{}, err
	}
	o := outcome{mode: mode, from: scaled, to: scaled.Add(took)}
	o.report = &Mode{Workers: burst.To, Bound: len(workers), SecondsToBound: took.Seconds(), PerNode: make(map[string]int)}
	for _, w := range workers {
		o.workers = append(o.workers, w.Spec.NodeName)
		o.report.PerNode[w.Spec.NodeName]++
	}
	if o.places, o.report.Overcommitted, err = t.rooms(ctx, key); err != nil {
		return outcome{}, err
	}
	deleting, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	return o, t.Cluster.DeleteRayService(deleting, key)
}

// rayService is the example that we ship, as the mode wants it. For netlatency
// it is left as it is but for its size.
func (t *trial) rayService(mode string) (*cluster.RayService, error) {
	service, err := cluster.ReadRayService(t.Path("manifests", "examples", "rayservice.yaml"))
	if err != nil {
		return nil, err
	}
	service.Rename(types.NamespacedName{Namespace: sandbox.WorkerNamespace, Name: mode})
	if err := service.SetWorkers(t.Scenario.Burst.From); err != nil {
		return nil, err
	}
	if err := service.SetWorkerRequests(t.Scenario.Burst.Requests); err != nil {
		return nil, err
	}
	if mode == ModeNetLatency {
		return service, nil
	}
	if err := service.SetSchedulerName(corev1.DefaultSchedulerName); err != nil {
		return nil, err
	}
	head := []string{"spec", "rayClusterConfig", "headGroupSpec", "template", "spec", "schedulerName"}
	if err := unstructured.SetNestedField(service.Object().Object, corev1.DefaultSchedulerName, head...); err != nil {
		return nil, err
	}
	if mode == ModePinned {
		return service, service.SetWorkerAffinity(sandbox.OnNodes(t.pinnedTo))
	}
	return service, nil
}

// patience is how long a burst may make no progress before those that are
// bound are taken for all.
const patience = 15 * time.Second

// settled waits until all workers are bound, or no more of them are, and
// returns the bound ones and how long after start the last was seen.
func (t *trial) settled(ctx context.Context, key types.NamespacedName, start time.Time) ([]*corev1.Pod, time.Duration, error) {
	var bound []*corev1.Pod
	last := time.Now()
	for {
		workers, err := t.Cluster.Workers(ctx, key)
		if err != nil {
			return nil, 0, err
		}
		placed := slices.DeleteFunc(slices.Clone(workers), func(p *corev1.Pod) bool { return p.Spec.NodeName == "" })
		if len(placed) > len(bound) {
			bound, last = placed, time.Now()
		}
		if len(bound) >= t.Scenario.Burst.To || time.Since(last) > patience {
			return bound, last.Sub(start), nil
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return nil, 0, err
		}
	}
}

// pause keeps clients whose searches are short from loading the machine, of
// which the process that carries the packets needs half a processor as it is.
const pause = 20 * time.Millisecond

// search runs the searches of all modes once the machine has come to rest. The
// modes take turns, search by search: what still disturbs the machine then
// disturbs them alike, and what differs is where their workers are.
func (t *trial) search(ctx context.Context, outcomes []outcome) error {
	if err := rest(ctx); err != nil {
		return err
	}
	load := application.Load{
		Steps: t.Scenario.Applications.Search, Replicas: t.replicas,
		Clients: t.options.Clients, Pause: pause, Session: t.session, Dial: t.Dial,
	}
	var of []*outcome // of each search
	for i := range t.options.Searches {
		for j := range outcomes {
			if workers := outcomes[j].workers; len(workers) > 0 {
				load.From = append(load.From, workers[i%len(workers)])
				of = append(of, &outcomes[j])
			}
		}
	}
	t.session += uint64(len(load.From))
	searches, err := load.Run(ctx)
	if err != nil {
		return err
	}
	for i, search := range searches {
		of[i].searches = append(of[i].searches, search)
	}
	return t.recorder.read(ctx)
}

// band is the plugin's default: nodes within it are equally near.
var band = placement.Band{Floor: 100 * time.Microsecond, Ratio: 0.1}

// judgePlaces fills in what only the truth of the phase tells.
func (t *trial) judgePlaces(o outcome) {
	probe := t.Scenario.Probe
	held := t.recorder.whole.Held(o.from.Add(-probe.Window.Duration-probe.Interval.Duration), o.to)
	o.report.HeldCost = make(map[string]float64)
	for _, n := range t.Scenario.NodeList() {
		if cost, ok := t.cost(held, n.Name); ok {
			o.report.HeldCost[n.Name] = milliseconds(cost)
		}
	}
	for i := range o.places {
		o.places[i].Cost, o.places[i].Known = t.cost(t.recorder.phase.Mean, o.places[i].Node)
	}
	if best, ok := Solve(o.places, len(o.workers), band.Width); ok {
		o.report.NearShare = best.NearShare(o.workers)
		if cost, ok := MeanCost(o.places, o.workers); ok {
			o.report.Cost = milliseconds(cost)
			o.report.CostVsBest = float64(cost) / float64(best.Cost)
		}
	}
}
