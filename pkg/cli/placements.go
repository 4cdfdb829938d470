package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"

	"github.com/netlatency/netlatency/apis/config"
	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/placement"
	"github.com/netlatency/netlatency/pkg/plugins/netlatency"
	"github.com/netlatency/netlatency/pkg/source"
	"github.com/netlatency/netlatency/pkg/target"
	"github.com/netlatency/netlatency/pkg/ui"
)

// view is a cluster under one configuration of the scheduler.
type view struct {
	profiles []profile
	indexes  []*target.Index // by profile; nil for targets that cannot be
	args     *config.NetLatencyArgs
	nodes    corelisters.NodeLister
	pods     corelisters.PodLister
	agents   *source.Agents
	problems *problems
}

const (
	// maxPlacements is more than anybody reads.
	maxPlacements = 200
	maxEvents     = 500
)

// readEvents reads what the scheduler announced about pods. Events are kept for
// an hour.
func (w *watcher) readEvents(ctx context.Context, v *view) {
	ctx, cancel := context.WithTimeout(ctx, w.interval)
	defer cancel()
	events := make(map[string][]ui.Event)
	for _, reason := range netlatency.EventReasons {
		list, err := w.cluster.client.EventsV1().Events(metav1.NamespaceAll).List(ctx, metav1.ListOptions{
			FieldSelector: fields.OneTermEqualSelector("reason", reason).String(), Limit: maxEvents,
		})
		if err != nil {
			v.problems.set("events", fmt.Errorf("list events: %w", err))
			return // with those of the time before
		}
		for i := range list.Items {
			e := &list.Items[i]
			at := e.EventTime.Time
			if e.Series != nil {
				at = e.Series.LastObservedTime.Time
			}
			pod := string(e.Regarding.UID)
			events[pod] = append(events[pod], ui.Event{Reason: e.Reason, Note: e.Note, At: ui.Time{Time: at}})
		}
	}
	v.problems.set("events", nil)
	w.events = events
}

// place fills in targets and placements.
func (w *watcher) place(s *ui.Snapshot, v *view, names []string, groups map[string]latency.NodeGroup) {
	pods, err := v.pods.List(labels.Everything())
	if err != nil { // out of memory it never fails
		return
	}
	nodes := placement.NewNodes(names)
	for i, p := range v.profiles {
		t := &tally{profile: p, nodes: nodes, statistic: s.Statistic, matrix: s.Matrix, estimates: s.Estimates, groups: groups, known: make(map[string]*placement.Latencies)}
		if v.indexes[i] != nil {
			t.sets = v.indexes[i].Sets()
		}
		t.of(pods, w.events)
		t.report(s)
	}
	slices.SortFunc(s.Placements, func(a, b ui.Placement) int {
		return cmp.Or(b.Since.Compare(a.Since.Time), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	if left := len(s.Placements) - maxPlacements; left > 0 {
		s.Placements, s.PlacementsLeftOut = s.Placements[:maxPlacements], left
	}
}

// tally is the pods of one profile.
type tally struct {
	profile   profile
	nodes     *placement.Nodes
	statistic latency.Statistic
	matrix    *latency.Matrix
	estimates *latency.Estimator
	groups    map[string]latency.NodeGroup
	sets      []*target.Set
	known     map[string]*placement.Latencies // by what of a target matters to them

	placements []ui.Placement
	users      map[string]map[string]int // by target, then node
}

// of looks at the pods.
func (t *tally) of(pods []*corev1.Pod, events map[string][]ui.Event) {
	t.users = make(map[string]map[string]int)
	costs := make(map[string]*placement.Costs)
	for _, pod := range pods {
		if pod.Spec.SchedulerName != t.profile.SchedulerName {
			continue
		}
		wants := netlatency.TargetsOf(t.profile.args, pod)
		p := ui.Placement{
			Namespace: pod.Namespace, Name: pod.Name, Profile: t.profile.SchedulerName, Node: pod.Spec.NodeName, Since: ui.Time{Time: pod.CreationTimestamp.Time},
			Events: events[string(pod.UID)],
		}
		for _, condition := range pod.Status.Conditions {
			if condition.Type != corev1.PodScheduled {
				continue
			}
			if condition.Status == corev1.ConditionTrue {
				p.Since.Time = condition.LastTransitionTime.Time
			} else if p.Node == "" {
				p.Waits = cmp.Or(condition.Message, condition.Reason)
			}
		}
		if text := pod.Annotations[netlatency.PlacementAnnotation]; text != "" {
			e := &placement.Record{}
			if json.Unmarshal([]byte(text), e) == nil { // anybody may have written it
				p.Explanation = e
			}
		}
		ended := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
		if p.Node != "" && !ended {
			for _, want := range wants {
				if t.users[want.Name] == nil {
					t.users[want.Name] = make(map[string]int)
				}
				t.users[want.Name][p.Node]++
			}
		}
		key := fmt.Sprint(pod.Namespace, keysOf(wants))
		c, ok := costs[key]
		if !ok {
			c = t.costs(wants)
			costs[key] = c
		}
		if c != nil && !ended {
			if cost := c.Of(p.Node); p.Node != "" && cost != placement.Unknown {
				p.Cost = new(ms(cost))
			}
			if best, cost, ok := c.Best(); ok {
				p.Best, p.BestCost = best, new(ms(cost))
			}
		}
		t.placements = append(t.placements, p)
	}
}

// costs is what every node costs a pod with these targets; nil if one of them
// is not of the configuration or is another one for each pod.
func (t *tally) costs(wants []config.Target) *placement.Costs {
	columns := make([]*placement.Latencies, 0, len(wants))
	for _, want := range wants {
		l := t.latencies(want)
		if l == nil {
			return nil
		}
		columns = append(columns, l)
	}
	if len(columns) == 0 {
		return nil
	}
	return placement.NewCosts(t.nodes, columns)
}

func (t *tally) latencies(want config.Target) *placement.Latencies {
	at := slices.IndexFunc(t.profile.args.Targets, func(c config.Target) bool { return c.Name == want.Name })
	if at < 0 || t.sets == nil || want.Pods != nil && len(want.Pods.MatchLabelKeys) > 0 {
		return nil
	}
	quantile := 0.0
	if want.Quantile != nil {
		quantile = *want.Quantile
	}
	key := fmt.Sprint(want.Name, want.Weight, want.Aggregation, quantile)
	if l, ok := t.known[key]; ok {
		return l
	}
	estimates := t.estimates
	if quantile != 0 {
		statistic := t.statistic
		statistic.Quantile = quantile
		estimates = estimates.Next(t.matrix, statistic, t.profile.args.StaleAfter.Duration, t.groups, t.matrix.Taken())
	}
	l := placement.NewLatencies(t.nodes, placement.Target{
		Name: want.Name, Weight: int(want.Weight), Aggregation: placement.Aggregation(want.Aggregation),
		Replicas: t.sets[at].Replicas, Distribution: t.sets[at].Distribution,
		ZoneOf: func(node string) string { return t.groups[node].Zone },
	}, estimates)
	t.known[key] = l
	return l
}

// keysOf tells lists of targets apart.
func keysOf(targets []config.Target) []string {
	all := make([]string, 0, len(targets))
	for _, t := range targets {
		quantile := 0.0
		if t.Quantile != nil {
			quantile = *t.Quantile
		}
		all = append(all, fmt.Sprintf("%s*%d/%s/%v", t.Name, t.Weight, t.Aggregation, quantile))
	}
	return all
}

// report adds what was found to s.
func (t *tally) report(s *ui.Snapshot) {
	p := ui.Profile{Name: t.profile.SchedulerName, Targets: []ui.Target{}}
	for i, c := range t.profile.args.Targets {
		distribution := placement.ToAll
		if t.sets != nil {
			distribution = t.sets[i].Distribution
		}
		kind, chooses := describe(c, distribution)
		r := ui.Target{
			Name: c.Name, Kind: kind, Chooses: chooses, Weight: c.Weight, Aggregation: string(c.Aggregation),
			PerPod: c.Pods != nil && len(c.Pods.MatchLabelKeys) > 0, Nodes: []ui.TargetPlace{},
		}
		if c.MaxRTT != nil {
			r.MaxRTT = c.MaxRTT.Duration.Round(time.Microsecond).String()
		}
		places := make(map[string]ui.TargetPlace)
		if t.sets != nil {
			for _, replica := range t.sets[i].Replicas {
				places[replica.Node] = ui.TargetPlace{Node: replica.Node, Replicas: replica.Count}
			}
		}
		for node, n := range t.users[c.Name] {
			place := places[node]
			place.Node, place.Users = node, n
			places[node] = place
		}
		latencies := t.latencies(c)
		for _, place := range places {
			if at, ok := t.nodes.Index(place.Node); ok && latencies != nil {
				if l, basis := latencies.At(at); basis != latency.Unknown && l != placement.Unknown {
					place.Latency = new(ms(l))
				}
			}
			r.Nodes = append(r.Nodes, place)
		}
		slices.SortFunc(r.Nodes, func(a, b ui.TargetPlace) int { return cmp.Compare(a.Node, b.Node) })
		p.Targets = append(p.Targets, r)
	}
	s.Profiles = append(s.Profiles, p)
	s.Placements = append(s.Placements, t.placements...)
}
