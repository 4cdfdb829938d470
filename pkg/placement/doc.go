// Package placement answers where a pod should go: what it would cost on each
// node, as the latency it is to expect to its targets, and the score that
// follows. The scheduler plugin, the command line and the descheduler all take
// their answer from here, so that they never differ.
//
// The package is pure: values in, values out; no clock, no I/O, no logging,
// and nothing of Kubernetes.
package placement
