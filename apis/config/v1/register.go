package v1

import (
	"k8s.io/apimachinery/pkg/runtime"
	schedulerconfigv1 "k8s.io/kube-scheduler/config/v1"
)

// SchemeGroupVersion is the scheduler's own configuration group, version v1.
// The scheduler looks plugin arguments up there under the name of the plugin
// followed by "Args", so the group cannot be one of ours.
var SchemeGroupVersion = schedulerconfigv1.SchemeGroupVersion

var (
	// SchemeBuilder collects what AddToScheme does. The generated conversions
	// register themselves with it.
	SchemeBuilder      = runtime.NewSchemeBuilder(addKnownTypes, RegisterDefaults)
	localSchemeBuilder = &SchemeBuilder
	// AddToScheme adds the versioned NetLatencyArgs, its defaults and its
	// conversions to a scheme.
	AddToScheme = SchemeBuilder.AddToScheme
)

func addKnownTypes(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(SchemeGroupVersion, &NetLatencyArgs{})
	return nil
}
