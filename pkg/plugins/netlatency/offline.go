package netlatency

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	fwk "k8s.io/kube-scheduler/framework"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	"k8s.io/utils/clock"

	"github.com/netlatency/netlatency/apis/config"
	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/placement"
	"github.com/netlatency/netlatency/pkg/source"
)

// NewWithMatrix returns a factory of the plugin that takes matrix for what is
// measured, whatever source the arguments name: for who wants to know what a
// scheduler would do. The plugin leaves out no node that cannot be chosen: who
// asks also wants to know what they are like.
func NewWithMatrix(matrix *latency.Matrix) frameworkruntime.PluginFactory {
	open := func(_ *config.NetLatencyArgs, _ kubernetes.Interface, _ func() []string, publish func(*latency.Matrix)) (matrixSource, error) {
		publish(matrix)
		return given{}, nil
	}
	factory := newFactory(open, clock.RealClock{})
	return func(ctx context.Context, args runtime.Object, handle fwk.Handle) (fwk.Plugin, error) {
		plugin, err := factory(ctx, args, handle)
		if p, ok := plugin.(*NetLatency); ok && p != nil {
			p.rateAll = true
		}
		return plugin, err
	}
}

// given is the source of a matrix that is there already.
type given struct{}

func (given) Run(ctx context.Context) { <-ctx.Done() }
func (given) Stats() source.Stats     { return source.Stats{} }

// Settle waits until the plugin knows what there was in the cluster when it was
// made. It returns false if ctx ends before that.
func (p *NetLatency) Settle(ctx context.Context) bool {
	return cache.WaitForCacheSync(ctx.Done(), p.nodesSynced) && p.targets.Settle(ctx)
}

// Costs is what pod costs on every node now, as PreScore would find it; nil if
// it wants to be near nothing. An error says what is wrong with the pod's
// annotation, instead of which its rule counts.
func (p *NetLatency) Costs(pod *corev1.Pod) (*placement.Costs, error) {
	d, err := p.demandFor(pod)
	if d == nil {
		return nil, err
	}
	return p.current().costsOf(d), err
}

// TargetsOf is what pod wants to be near by its annotation, or by the rules of
// args where it has none that is understood. It is for who looks at pods from
// outside of a scheduler; labels that a target shares with the pod are not
// filled in.
func TargetsOf(args *config.NetLatencyArgs, pod *corev1.Pod) []config.Target {
	if text, ok := pod.Annotations[nearAnnotation]; ok {
		if targets, err := parseNear(text, args.Targets); err == nil {
			return targets
		}
	}
	if len(args.Rules) == 0 {
		return args.Targets
	}
	for _, r := range args.Rules {
		selector := labels.Everything()
		if r.PodSelector != nil {
			var err error
			if selector, err = metav1.LabelSelectorAsSelector(r.PodSelector); err != nil {
				continue // validation has refused it
			}
		}
		if len(r.Namespaces) > 0 && !slices.Contains(r.Namespaces, pod.Namespace) || !selector.Matches(labels.Set(pod.Labels)) {
			continue
		}
		var targets []config.Target
		for _, t := range args.Targets {
			if slices.Contains(r.Targets, t.Name) {
				targets = append(targets, t)
			}
		}
		return targets
	}
	return nil
}

// EventReasons are the reasons of the plugin's events.
var EventReasons = []string{reasonNoData, reasonNoReplicas, reasonBadAnnotation, reasonFar}
