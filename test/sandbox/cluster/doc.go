// Package cluster is a real Kubernetes cluster on one machine without
// containers: etcd, the API server, the controller manager and the default
// scheduler as processes; kwok, which plays the kubelets of ordinary pods; and
// the KubeRay operator with a dashboard that tells it what Ray would.
//
// Pods of our own images (kubelet.ImagePrefix) are left alone by kwok: package
// test/sandbox/kubelet runs them as processes and alone writes their status.
//
// It runs on the control side of package namespace, in whose address plan it
// lives and with which everything ends. Nothing is kept from one run to the
// next.
package cluster
