// Package scheme makes the scheduler know NetLatencyArgs. To import it is
// enough, and it must be imported (package netlatency does) before the first
// configuration is decoded.
package scheme

import (
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	schedulerconfigv1 "k8s.io/kube-scheduler/config/v1"
	schedulerconfig "k8s.io/kubernetes/pkg/scheduler/apis/config"
	schedulerscheme "k8s.io/kubernetes/pkg/scheduler/apis/config/scheme"

	"github.com/netlatency/netlatency/apis/config"
	configv1 "github.com/netlatency/netlatency/apis/config/v1"
)

var (
	// Scheme is the scheduler's own, with NetLatencyArgs added.
	Scheme = schedulerscheme.Scheme
	// Codecs decode the scheduler's configuration as the scheduler does:
	// strictly, with defaults, into the internal types.
	Codecs = schedulerscheme.Codecs
)

func init() {
	// The scheduler uses two schemes. Scheme decodes; it is complete by now, so
	// the types are added to it directly.
	utilruntime.Must(config.AddToScheme(Scheme))
	utilruntime.Must(configv1.AddToScheme(Scheme))
	// Defaults and conversion of plugin arguments happen in another scheme,
	// which the scheduler builds out of these two builders at first use. With
	// only the scheme above both silently do nothing: a profile without
	// pluginConfig gets nil instead of the defaults.
	schedulerconfig.SchemeBuilder.Register(config.AddToScheme)
	schedulerconfigv1.SchemeBuilder.Register(configv1.AddToScheme)
}
