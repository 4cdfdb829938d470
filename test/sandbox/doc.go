// Package sandbox is a whole cluster of a scenario on one machine: the nodes'
// network namespaces, the WAN between them, the control plane, kwok and KubeRay,
// our own pods as real processes, and the applications that workers talk to.
// docs/sandbox.md says what of it is real.
//
// The program must go through namespace.Enter first, and everything ends with
// it.
package sandbox
