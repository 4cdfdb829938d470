// Package simulation asks a scheduler profile where pods would go now, and why,
// without placing any: the profile's plugins, all of them, run over a snapshot
// of a cluster.
//
// It is the scheduler's own framework (KEP-624) with what is around it left
// out: queue, preemption, extenders and binding. Of several nodes with the same
// score a scheduler takes one at random, and this takes the first by name.
package simulation

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/events"
	"k8s.io/dynamic-resource-allocation/resourceslice/tracker"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	schedulerconfig "k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/backend/cache"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/dynamicresources"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/nodevolumelimits"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	schedulermetrics "k8s.io/kubernetes/pkg/scheduler/metrics"
	"k8s.io/kubernetes/pkg/scheduler/util/assumecache"

	"github.com/netlatency/netlatency/apis/config"
	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/placement"
	"github.com/netlatency/netlatency/pkg/plugins/netlatency"
)

// Scheduler is a profile over a cluster as it was when New read it. It is not
// safe for concurrent use.
type Scheduler struct {
	framework framework.Framework
	plugin    *netlatency.NetLatency // nil if the profile has none
	nodes     []*corev1.Node
	pods      []*corev1.Pod // that are on a node, or were assumed to be
	snapshot  *snapshot
}

// New reads the cluster of client, which takes the permission to list what a
// scheduler watches, and prepares the profile with matrix for what is measured.
// Nothing is written to the cluster. What it starts ends with ctx. The profile
// is changed: its plugin tells no agents of targets.
func New(ctx context.Context, client kubernetes.Interface, profile *schedulerconfig.KubeSchedulerProfile, matrix *latency.Matrix) (*Scheduler, error) {
	schedulermetrics.Register()
	for _, p := range profile.PluginConfig {
		if args, ok := p.Args.(*config.NetLatencyArgs); ok {
			args.TargetSlices.Namespace = ""
		}
	}
	s := &Scheduler{snapshot: &snapshot{}}
	s.snapshot.Store(cache.NewEmptySnapshot())
	registry := plugins.NewInTreeRegistry()
	factory := netlatency.NewWithMatrix(matrix)
	if err := registry.Register(netlatency.Name, func(ctx context.Context, args runtime.Object, handle fwk.Handle) (fwk.Plugin, error) {
		plugin, err := factory(ctx, args, handle)
		s.plugin, _ = plugin.(*netlatency.NetLatency)
		return plugin, err
	}); err != nil {
		return nil, err
	}

	informerFactory := informers.NewSharedInformerFactory(client, 0)
	pods, nodes := informerFactory.Core().V1().Pods(), informerFactory.Core().V1().Nodes()
	pods.Informer()
	nodes.Informer()
	resources, err := tracker.StartTracker(ctx, tracker.Options{SliceInformer: informerFactory.Resource().V1().ResourceSlices(), KubeClient: client})
	if err != nil {
		return nil, fmt.Errorf("follow resource slices: %w", err)
	}
	claims := assumecache.NewAssumeCache(klog.FromContext(ctx), informerFactory.Resource().V1().ResourceClaims().Informer(), "ResourceClaim", "", nil)
	s.framework, err = frameworkruntime.NewFramework(ctx, registry, profile,
		frameworkruntime.WithClientSet(client),
		frameworkruntime.WithInformerFactory(informerFactory),
		frameworkruntime.WithEventRecorder(noEvents{}),
		frameworkruntime.WithSnapshotSharedLister(s.snapshot),
		frameworkruntime.WithSharedDRAManager(dynamicresources.NewDRAManager(ctx, claims, resources, informerFactory)),
		frameworkruntime.WithSharedCSIManager(nodevolumelimits.NewCSIManager(informerFactory.Storage().V1().CSINodes().Lister())),
	)
	if err != nil {
		return nil, fmt.Errorf("prepare profile %s: %w", profile.SchedulerName, err)
	}
	informerFactory.StartWithContext(ctx)
	var missing []string
	for kind, synced := range informerFactory.WaitForCacheSync(ctx.Done()) {
		if !synced {
			missing = append(missing, strings.TrimPrefix(kind.String(), "*"))
		}
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("read the cluster: %w; still missing: %s. It takes the permission to list and watch these", context.Cause(ctx), strings.Join(missing, ", "))
	}
	if s.nodes, err = nodes.Lister().List(labels.Everything()); err != nil {
		return nil, err
	}
	all, err := pods.Lister().List(labels.Everything())
	if err != nil {
		return nil, err
	}
	for _, pod := range all {
		if pod.Spec.NodeName != "" && pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed {
			s.pods = append(s.pods, pod)
		}
	}
	if s.plugin != nil {
		patience, enough := context.WithTimeout(ctx, Patience)
		defer enough()
		s.plugin.Settle(patience)
	}
	s.renew()
	return s, nil
}

// Patience is how long one waits for what may never come: the EndpointSlices of
// a Service without a selector that is a target, which not everybody may read.
// The informers, without which nothing works, have been waited for by then.
const Patience = 5 * time.Second

func (s *Scheduler) renew() { s.snapshot.Store(cache.NewSnapshot(s.pods, s.nodes)) }

// Node is what became of a node in the search for a place.
type Node struct {
	Name string
	// RefusedBy is the plugin that does not let the pod there, "" if it may go
	// there, and Reason what that says.
	RefusedBy, Reason string
	// Scores are by plugin, as they are added up to Total: each times its
	// weight. Only of nodes that are not refused.
	Scores map[string]int64
	Total  int64
	// Cost is the latency to the pod's targets, placement.Unknown where it is,
	// and Parts is what it is made of.
	Cost  time.Duration
	Parts []placement.Part
}

// Result is what a search for a place found.
type Result struct {
	// Nodes are all of them: those that the pod may go to, best first, and then
	// the others, nearest first.
	Nodes []Node
	// Targets says that the pod wants to be near something. Missing are those of
	// its targets that run nowhere, and Uninformed those to which no way is
	// measured: they are left out of costs.
	Targets             bool
	Missing, Uninformed []string
	// Fault is what is wrong with the pod's annotation, nil if nothing is.
	Fault error
}

// Chosen is the node that the pod would go to; ok is false if there is none.
func (r *Result) Chosen() (node Node, ok bool) {
	if len(r.Nodes) == 0 || r.Nodes[0].RefusedBy != "" {
		return Node{}, false
	}
	return r.Nodes[0], true
}

// Search finds the place of a pod, which may be on a node already: it is looked
// for as if it were not.
func (s *Scheduler) Search(ctx context.Context, pod *corev1.Pod) (*Result, error) {
	if remove := slices.IndexFunc(s.pods, func(p *corev1.Pod) bool { return p.UID == pod.UID && p.UID != "" }); remove >= 0 {
		all := s.pods
		s.pods = slices.Delete(slices.Clone(s.pods), remove, remove+1)
		s.renew()
		defer func() { s.pods = all; s.renew() }()
	}
	pod = pod.DeepCopy()
	pod.Spec.NodeName, pod.Status = "", corev1.PodStatus{}

	result := &Result{}
	var costs *placement.Costs
	if s.plugin != nil {
		costs, result.Fault = s.plugin.Costs(pod)
		if costs != nil {
			result.Targets, result.Missing, result.Uninformed = true, costs.Missing(), costs.Uninformed()
		}
	}
	nodes := make(map[string]*Node, len(s.nodes))
	for _, n := range s.nodes {
		node := &Node{Name: n.Name, Cost: placement.Unknown}
		if costs != nil {
			if i, ok := costs.Nodes().Index(n.Name); ok {
				node.Cost, node.Parts = costs.At(i), costs.Parts(i)
			}
		}
		nodes[n.Name] = node
	}
	feasible, state, err := s.filter(ctx, pod, nodes)
	if err != nil {
		return nil, err
	}
	if err := s.score(ctx, state, pod, feasible, nodes); err != nil {
		return nil, err
	}
	for _, node := range nodes {
		result.Nodes = append(result.Nodes, *node)
	}
	slices.SortFunc(result.Nodes, compare)
	return result, nil
}

// filter runs the filters, notes who is refused, and returns the others.
func (s *Scheduler) filter(ctx context.Context, pod *corev1.Pod, nodes map[string]*Node) ([]fwk.NodeInfo, fwk.CycleState, error) {
	state := framework.NewCycleState()
	infos, err := s.snapshot.NodeInfos().List()
	if err != nil {
		return nil, nil, err
	}
	only, status, by := s.framework.RunPreFilterPlugins(ctx, state, pod)
	if !status.IsSuccess() {
		if !status.IsRejected() {
			return nil, nil, status.AsError()
		}
		for _, node := range nodes {
			node.RefusedBy, node.Reason = status.Plugin(), status.Message()
		}
		return nil, state, nil
	}
	var feasible []fwk.NodeInfo
	for _, info := range infos {
		node := nodes[info.Node().Name]
		if !only.AllNodes() && !only.NodeNames.Has(node.Name) {
			node.RefusedBy, node.Reason = strings.Join(slices.Sorted(maps.Keys(by)), ", "), "is not among the nodes that it allows"
			continue
		}
		status := s.framework.RunFilterPlugins(ctx, state, pod, info)
		switch {
		case status.IsSuccess():
			feasible = append(feasible, info)
		case status.IsRejected():
			node.RefusedBy, node.Reason = status.Plugin(), status.Message()
		default:
			return nil, nil, fmt.Errorf("filter node %s: %w", node.Name, status.AsError())
		}
	}
	return feasible, state, nil
}

// score notes the scores of the nodes that are feasible.
func (s *Scheduler) score(ctx context.Context, state fwk.CycleState, pod *corev1.Pod, feasible []fwk.NodeInfo, nodes map[string]*Node) error {
	if len(feasible) == 0 {
		return nil
	}
	if status := s.framework.RunPreScorePlugins(ctx, state, pod, feasible); !status.IsSuccess() {
		return fmt.Errorf("prepare scores: %w", status.AsError())
	}
	scores, status := s.framework.RunScorePlugins(ctx, state, pod, feasible)
	if !status.IsSuccess() {
		return fmt.Errorf("score: %w", status.AsError())
	}
	for _, of := range scores {
		node := nodes[of.Name]
		node.Total, node.Scores = of.TotalScore, make(map[string]int64, len(of.Scores))
		for _, by := range of.Scores {
			node.Scores[by.Name] = by.Score
		}
	}
	return nil
}

// compare orders nodes: those that the pod may go to by their total, then the
// others by their cost.
func compare(a, b Node) int {
	refused := func(n Node) int {
		if n.RefusedBy != "" {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(refused(a), refused(b)), cmp.Compare(b.Total, a.Total), cmp.Compare(a.Cost, b.Cost), cmp.Compare(a.Name, b.Name))
}

// Assume puts a pod onto a node for the searches that follow.
func (s *Scheduler) Assume(pod *corev1.Pod, node string) {
	pod = pod.DeepCopy()
	pod.Spec.NodeName = node
	s.pods = append(slices.Clone(s.pods), pod)
	s.renew()
}

// snapshot is a lister of whatever snapshot it holds.
type snapshot struct{ atomic.Pointer[cache.Snapshot] }

func (s *snapshot) NodeInfos() fwk.NodeInfoLister           { return s.Load().NodeInfos() }
func (s *snapshot) StorageInfos() fwk.StorageInfoLister     { return s.Load().StorageInfos() }
func (s *snapshot) PodGroupStates() fwk.PodGroupStateLister { return s.Load().PodGroupStates() }

// noEvents records nothing.
type noEvents struct{}

func (noEvents) Eventf(runtime.Object, runtime.Object, string, string, string, string, ...any) {}
func (n noEvents) WithLogger(klog.Logger) events.EventRecorderLogger                           { return n }
