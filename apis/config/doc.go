// +k8s:deepcopy-gen=package

// Package config holds the configuration of the NetLatency plugin as the code
// uses it. Users write the versioned form, package v1.
package config
