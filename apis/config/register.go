package config

import (
	"k8s.io/apimachinery/pkg/runtime"
	schedulerconfig "k8s.io/kubernetes/pkg/scheduler/apis/config"
)

// SchemeGroupVersion is the scheduler's own internal configuration group. The
// scheduler looks plugin arguments up there under the name of the plugin
// followed by "Args", so the group cannot be one of ours.
var SchemeGroupVersion = schedulerconfig.SchemeGroupVersion

var (
	// SchemeBuilder collects what AddToScheme does.
	SchemeBuilder = runtime.NewSchemeBuilder(addKnownTypes)
	// AddToScheme adds the internal NetLatencyArgs to a scheme.
	AddToScheme = SchemeBuilder.AddToScheme
)

func addKnownTypes(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(SchemeGroupVersion, &NetLatencyArgs{})
	return nil
}
