package peers

import (
	"context"
	"fmt"
	"slices"
	"testing"

	agv1alpha1 "github.com/diktyo-io/appgroup-api/pkg/apis/appgroup/v1alpha1"
	ntv1alpha1 "github.com/diktyo-io/networktopology-api/pkg/apis/networktopology/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/rest"
	fwk "k8s.io/kube-scheduler/framework"
	schedulercache "k8s.io/kubernetes/pkg/scheduler/backend/cache"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"sigs.k8s.io/controller-runtime/pkg/client"
	pluginconfig "sigs.k8s.io/scheduler-plugins/apis/config"
	"sigs.k8s.io/scheduler-plugins/pkg/networkaware/networkoverhead"
)

const (
	namespace = "default"
	// appGroup is the application of which the workers and Qdrant are.
	appGroup     = "search"
	topologyName = "nt-default"
	weightsName  = "UserDefined"
)

// pod is a pod of the application's workload, on node unless that is empty.
func pod(name, workload, node string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace, UID: types.UID(name), Labels: map[string]string{
			agv1alpha1.AppGroupLabel:         appGroup,
			agv1alpha1.AppGroupSelectorLabel: workload,
		}},
		Spec: corev1.PodSpec{NodeName: node},
	}
}

// networkOverhead is the plugin of scheduler-plugins on a cluster that is
// described to it as it asks for: an AppGroup says that workers depend on
// Qdrant, a NetworkTopology what zones cost from each other.
type networkOverhead struct {
	*networkoverhead.NetworkOverhead
	factory informers.SharedInformerFactory
	nodes   []fwk.NodeInfo
}

func newNetworkOverhead(b *testing.B, c *cluster) *networkOverhead {
	b.Helper()
	snapshot := schedulercache.NewSnapshot(c.qdrant, c.nodes)
	o := &networkOverhead{factory: informers.NewSharedInformerFactory(nil, 0)}
	plugin, err := networkoverhead.New(b.Context(), &pluginconfig.NetworkOverheadArgs{
		Namespaces: []string{namespace}, WeightsName: weightsName, NetworkTopologyName: topologyName,
	}, &handle{snapshot: snapshot, factory: o.factory})
	if err != nil {
		b.Fatal(err)
	}
	o.NetworkOverhead = plugin.(*networkoverhead.NetworkOverhead)
	o.Client = &objects{group: newAppGroup(), topology: newTopology(c.declared(networkoverhead.MaxCost))}
	for _, pod := range c.qdrant {
		o.add(b, pod)
	}
	if o.nodes, err = snapshot.NodeInfos().List(); err != nil {
		b.Fatal(err)
	}
	return o
}

// add makes the plugin see a pod that was placed.
func (o *networkOverhead) add(b *testing.B, pod *corev1.Pod) {
	b.Helper()
	if err := o.factory.Core().V1().Pods().Informer().GetIndexer().Add(pod); err != nil {
		b.Fatal(err)
	}
}

// cycle is the plugin's part of placing pod: the scores of the nodes, in the
// order of o.nodes. It fails where the plugin rejects a node, because the
// AppGroup allows any cost.
func (o *networkOverhead) cycle(b *testing.B, pod *corev1.Pod, scores framework.NodeScoreList) {
	b.Helper()
	ctx, state := b.Context(), framework.NewCycleState()
	if _, status := o.PreFilter(ctx, state, pod, o.nodes); !status.IsSuccess() {
		b.Fatal(status)
	}
	for _, node := range o.nodes {
		if status := o.Filter(ctx, state, pod, node); !status.IsSuccess() {
			b.Fatal(status)
		}
	}
	for i, node := range o.nodes {
		score, status := o.Score(ctx, state, pod, node)
		if !status.IsSuccess() {
			b.Fatal(status)
		}
		scores[i].Score = score
	}
	if status := o.NormalizeScore(ctx, state, pod, scores); !status.IsSuccess() {
		b.Fatal(status)
	}
}

// newAppGroup says that workers depend on Qdrant at any cost.
func newAppGroup() *agv1alpha1.AppGroup {
	workload := func(name string) agv1alpha1.AppGroupWorkloadInfo {
		return agv1alpha1.AppGroupWorkloadInfo{Kind: "Deployment", APIVersion: "apps/v1", Namespace: namespace, Name: name, Selector: name}
	}
	return &agv1alpha1.AppGroup{
		ObjectMeta: metav1.ObjectMeta{Name: appGroup, Namespace: namespace, UID: "group"}, // without a UID it counts as absent, and the plugin crashes
		Spec: agv1alpha1.AppGroupSpec{
			NumMembers: 2, TopologySortingAlgorithm: agv1alpha1.AppGroupKahnSort,
			Workloads: agv1alpha1.AppGroupWorkloadList{
				{Workload: workload("worker"), Dependencies: agv1alpha1.DependenciesList{{Workload: workload("qdrant"), MaxNetworkCost: networkoverhead.MaxCost}}},
				{Workload: workload("qdrant")},
			},
		},
	}
}

func newTopology(costs map[zonePair]int64) *ntv1alpha1.NetworkTopology {
	byOrigin := make(map[string]ntv1alpha1.CostList)
	for zones, cost := range costs {
		if zones.origin != zones.destination {
			byOrigin[zones.origin] = append(byOrigin[zones.origin], ntv1alpha1.CostInfo{Destination: zones.destination, NetworkCost: cost})
		}
	}
	var zones ntv1alpha1.OriginList
	for origin, costs := range byOrigin {
		zones = append(zones, ntv1alpha1.OriginInfo{Origin: origin, CostList: costs})
	}
	return &ntv1alpha1.NetworkTopology{
		ObjectMeta: metav1.ObjectMeta{Name: topologyName, Namespace: namespace, UID: "topology"},
		Spec: ntv1alpha1.NetworkTopologySpec{Weights: ntv1alpha1.WeightList{{
			Name:         weightsName,
			TopologyList: ntv1alpha1.TopologyList{{TopologyKey: ntv1alpha1.NetworkTopologyZone, OriginList: zones}},
		}}},
	}
}

// handle is what the plugin asks of the scheduler.
type handle struct {
	framework.Handle
	snapshot *schedulercache.Snapshot
	factory  informers.SharedInformerFactory
}

func (h *handle) SnapshotSharedLister() framework.SharedLister           { return h.snapshot }
func (h *handle) SharedInformerFactory() informers.SharedInformerFactory { return h.factory }

// KubeConfig leads nowhere. The client that the plugin makes of it connects
// when it is asked, and is replaced before that.
func (h *handle) KubeConfig() *rest.Config { return &rest.Config{Host: "http://127.0.0.1:1"} }

// objects answers as the plugin's own client does from its cache: with a copy.
type objects struct {
	client.Client
	group    *agv1alpha1.AppGroup
	topology *ntv1alpha1.NetworkTopology
}

func (o *objects) Get(_ context.Context, key client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	switch into := into.(type) {
	case *agv1alpha1.AppGroup:
		o.group.DeepCopyInto(into)
	case *ntv1alpha1.NetworkTopology:
		o.topology.DeepCopyInto(into)
	default:
		return fmt.Errorf("no object %s of type %T", key, into)
	}
	return nil
}

// BenchmarkNetworkOverhead is the plugin's part in a scheduling cycle, one
// extension point after the other: what BenchmarkCycle of our plugin is for
// ours. Of what NetworkOverhead does, PreFilter, by far the most, runs on one
// processor in a scheduler too.
func BenchmarkNetworkOverhead(b *testing.B) {
	for _, nodes := range []int{1000, 5000} {
		for _, targets := range []int{10, 50} {
			b.Run(fmt.Sprintf("%dnodes/%dtargets", nodes, targets), func(b *testing.B) {
				o := newNetworkOverhead(b, newCluster(nodes, targets, 0))
				worker := pod("worker", "worker", "")
				scores := make(framework.NodeScoreList, nodes)
				b.ReportAllocs()
				for b.Loop() {
					o.cycle(b, worker, scores)
				}
				if slices.MinFunc(scores, byScore) == slices.MaxFunc(scores, byScore) {
					b.Fatal("all nodes have one score: the costs are not known")
				}
			})
		}
	}
}

func byScore(a, b framework.NodeScore) int { return int(a.Score - b.Score) }
