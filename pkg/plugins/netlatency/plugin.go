// Package netlatency is the scheduler plugin that places pods near what they
// talk to. It scores nodes by the cost that pkg/placement computes from
// measured latency (pkg/source) and from where the pod's targets run
// (pkg/target).
//
// All that is expensive happens beside the scheduling cycle, in the goroutine
// that makes views; a cycle reads. Whatever is missing or broken makes the
// plugin neutral, never a pod that cannot be scheduled.
package netlatency

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	"k8s.io/utils/clock"

	"github.com/netlatency/netlatency/apis/config"
	_ "github.com/netlatency/netlatency/apis/config/scheme" // without it there are no defaults and no conversion
	"github.com/netlatency/netlatency/apis/config/validation"
	"github.com/netlatency/netlatency/pkg/placement"
	"github.com/netlatency/netlatency/pkg/target"
)

// Name is the plugin's name in the scheduler's configuration, and the name of
// its arguments less "Args".
const Name = "NetLatency"

// NetLatency scores nodes by measured latency to a pod's targets, and keeps
// pods off nodes beyond the limits that targets have.
type NetLatency struct {
	args    *config.NetLatencyArgs
	band    placement.Band
	rules   []rule
	targets *target.Index
	demands *demands
	waiting waiting
	feed    *feed
	handle  fwk.Handle
	pods    corelisters.PodLister
	// publisher tells the agents where targets run; nil when nobody is told.
	publisher *target.Publisher
	nodes     corelisters.NodeLister
	// nodesSynced is whether the handler for nodes has seen all of the start.
	nodesSynced cache.InformerSynced
	clock       clock.Clock
	recorder    events.EventRecorder // may be nil
	announced   announced
	metrics     *profileMetrics

	// wake asks the goroutine of run for a new view.
	wake chan struct{}
	// viewing serialises the making of views; readers only load view.
	viewing sync.Mutex
	view    atomic.Pointer[view]
	// moved asks the goroutine of admit to look through the waiting pods.
	moved chan struct{}
	// cycle is the scheduling cycle that was prepared last.
	cycle  atomic.Pointer[cycle]
	scorer scorer
	// rateAll keeps Filter from leaving out nodes that cannot be chosen.
	rateAll    bool
	othersOnce sync.Once
	others     *competition
	reserved   atomic.Pointer[string] // the node that was reserved last
}

var (
	_ fwk.PreFilterPlugin   = &NetLatency{}
	_ fwk.FilterPlugin      = &NetLatency{}
	_ fwk.EnqueueExtensions = &NetLatency{}
	_ fwk.PreScorePlugin    = &NetLatency{}
	_ fwk.ScorePlugin       = &NetLatency{}
	_ fwk.ScoreExtensions   = &NetLatency{}
	_ fwk.SignPlugin        = &NetLatency{}
	_ fwk.ReservePlugin     = &NetLatency{}
	_ fwk.BindPlugin        = &NetLatency{}
	_ fwk.PostBindPlugin    = &NetLatency{}
)

// New returns the factory of the plugin for all profiles of one scheduler.
// Profiles that ask for the same source share it: it is read once.
func New() frameworkruntime.PluginFactory {
	return newFactory(openSource, clock.RealClock{})
}

func newFactory(open opener, clock clock.Clock) frameworkruntime.PluginFactory {
	feeds, publishers := &feeds{open: open}, &publishers{}
	return func(ctx context.Context, object runtime.Object, handle fwk.Handle) (fwk.Plugin, error) {
		args, ok := object.(*config.NetLatencyArgs)
		if !ok {
			return nil, fmt.Errorf("want args to be of type NetLatencyArgs, got %T", object)
		}
		if err := validation.ValidateNetLatencyArgs(nil, args).ToAggregate(); err != nil {
			return nil, fmt.Errorf("NetLatencyArgs of profile %q: %w", handle.ProfileName(), err)
		}
		return newPlugin(ctx, args, handle, feeds, publishers, clock)
	}
}

// newPlugin prepares the plugin of one profile and starts what keeps it
// current, which ends with ctx. The scheduler gives a context that lasts as
// long as it does, and starts the informers later.
func newPlugin(ctx context.Context, args *config.NetLatencyArgs, handle fwk.Handle, feeds *feeds, publishers *publishers, clock clock.Clock) (*NetLatency, error) {
	ctx = klog.NewContext(ctx, klog.FromContext(ctx).WithValues("plugin", Name, "profile", handle.ProfileName()))
	factory := handle.SharedInformerFactory()
	if factory == nil {
		return nil, errors.New("the scheduler has no informers: NetLatency needs pods and nodes")
	}
	targets, err := target.NewIndex(args.Targets, factory, handle.ClientSet(), clock)
	if err != nil {
		return nil, err
	}
	rules, err := newRules(args, targets)
	if err != nil {
		return nil, err
	}
	p := &NetLatency{
		args:     args,
		band:     placement.Band{Ratio: args.Band.Ratio, Floor: args.Band.Floor.Duration},
		rules:    rules,
		targets:  targets,
		demands:  newDemands(args, targets, clock),
		handle:   handle,
		pods:     factory.Core().V1().Pods().Lister(),
		nodes:    factory.Core().V1().Nodes().Lister(),
		clock:    clock,
		recorder: handle.EventRecorder(),
		metrics:  newProfileMetrics(handle.ProfileName()),
		wake:     make(chan struct{}, 1),
		moved:    make(chan struct{}, 1),
	}
	targets.Notify(p.moved)
	targets.Guard(func(what string, handle func()) {
		p.metrics.guard(ctx, what, func(context.Context) { handle() })
	})
	registration, err := factory.Core().V1().Nodes().Informer().AddEventHandler(p.nodeHandler(ctx))
	if err != nil {
		return nil, fmt.Errorf("watch nodes: %w", err)
	}
	p.nodesSynced = registration.HasSynced
	if _, err := factory.Core().V1().Pods().Informer().AddEventHandler(p.podHandler(ctx)); err != nil {
		return nil, fmt.Errorf("watch pods: %w", err)
	}
	if p.feed, err = feeds.subscribe(ctx, args, handle.ClientSet(), targets.Nodes, p.metrics, p.wake); err != nil {
		return nil, err
	}
	if p.publisher, err = publishers.follow(ctx, p, handle.ClientSet()); err != nil {
		return nil, err
	}
	publishMetrics(ctx, p)
	go p.metrics.guard(ctx, "targets", targets.Run)
	go p.metrics.guard(ctx, "views", p.run)
	go p.metrics.guard(ctx, "waiting pods", p.admit)
	go p.metrics.guard(ctx, "demands", p.forget)
	return p, nil
}

// Name is the plugin's name in logs, metrics and configuration.
func (p *NetLatency) Name() string { return Name }

// signatureKey names what SignPod adds to a pod's signature.
const signatureKey = Name + ".Targets()"

// SignPod signs what the pod wants to be near, with all that is said about it,
// limits among it: pods that want the same rank nodes alike, whatever their
// labels and namespaces, unless these tell which target is meant. Versions of
// the matrix and of targets are left out, or no two pods would share a ranking;
// one that outlives a matrix does so for half a second, and Filter is run again.
func (p *NetLatency) SignPod(ctx context.Context, pod *corev1.Pod) (fragments []fwk.SignFragment, status *fwk.Status) {
	defer func() {
		if p.metrics.survived(ctx, "SignPod", recover()) {
			fragments, status = nil, fwk.NewStatus(fwk.Unschedulable, "the targets of the pod could not be signed")
		}
	}()
	d, _ := p.demandFor(pod)
	if d == nil {
		return nil, nil
	}
	return d.signature, nil
}
