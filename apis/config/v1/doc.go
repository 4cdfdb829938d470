// +k8s:deepcopy-gen=package
// +k8s:conversion-gen=github.com/netlatency/netlatency/apis/config
// +k8s:defaulter-gen=TypeMeta
// +groupName=kubescheduler.config.k8s.io

// Package v1 is the configuration of the NetLatency plugin as users write it:
// the args of the plugin's pluginConfig in a KubeSchedulerConfiguration.
package v1
