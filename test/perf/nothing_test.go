package perf

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	fwk "k8s.io/kube-scheduler/framework"
)

// nothing is a plugin that does nothing at the extension points at which ours is
// called in a cycle before there is a node, but for NormalizeScore: what the
// framework takes for any plugin that scores, for its lists and for asking it
// about each node.
type nothing struct{}

const nothingName = "Nothing"

var (
	_ fwk.PreFilterPlugin = nothing{}
	_ fwk.FilterPlugin    = nothing{}
	_ fwk.PreScorePlugin  = nothing{}
	_ fwk.ScorePlugin     = nothing{}
	_ fwk.SignPlugin      = nothing{}
)

func newNothing(context.Context, runtime.Object, fwk.Handle) (fwk.Plugin, error) {
	return nothing{}, nil
}

func (nothing) Name() string { return nothingName }

func (nothing) PreFilter(context.Context, fwk.CycleState, *corev1.Pod, []fwk.NodeInfo) (*fwk.PreFilterResult, *fwk.Status) {
	return nil, fwk.NewStatus(fwk.Skip)
}

func (nothing) PreFilterExtensions() fwk.PreFilterExtensions { return nil }

func (nothing) Filter(context.Context, fwk.CycleState, *corev1.Pod, fwk.NodeInfo) *fwk.Status {
	return nil
}

func (nothing) PreScore(context.Context, fwk.CycleState, *corev1.Pod, []fwk.NodeInfo) *fwk.Status {
	return nil
}

func (nothing) Score(context.Context, fwk.CycleState, *corev1.Pod, fwk.NodeInfo) (int64, *fwk.Status) {
	return 0, nil
}

func (nothing) ScoreExtensions() fwk.ScoreExtensions { return nil }

func (nothing) SignPod(context.Context, *corev1.Pod) ([]fwk.SignFragment, *fwk.Status) {
	return nil, nil
}
