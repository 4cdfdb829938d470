// Package kubelet runs the pods of this project's own images as real
// processes on the sandbox's nodes, so that the chart's manifests, RBAC, flags
// and probes are tested and not only the code behind them. Every other pod is
// kwok's, whose stages exclude ours: each pod's status has one writer.
//
// One Kubelet serves all nodes. A pod has one worker, which owns its state: it
// writes the pod's volumes, starts its container in the node's network
// namespace (package container), probes it, restarts it, stops it, and tells
// the API server.
//
// What it does, it does as Kubernetes' kubelet does: environment and
// arguments, ConfigMap, Secret, emptyDir and projected volumes with rotating
// ServiceAccount tokens, security context, HTTP probes, restart backoff,
// graceful deletion. A pod that asks for anything else is not started and its
// status says what is not supported. Two things are accepted without being
// enforced, resource limits and seccomp or AppArmor profiles, and three differ
// from a cluster: a pod has its node's address, so that two pods on a node
// must not listen on one port; a changed ConfigMap reaches a pod when its
// token is renewed or its container restarts; there are no logs, exec or
// events through the API server.
package kubelet
