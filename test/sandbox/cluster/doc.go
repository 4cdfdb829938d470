// Package cluster is a real Kubernetes cluster on one machine without
// containers: etcd, the API server, the controller manager and the default
// scheduler as processes; kwok, which plays the kubelets of ordinary pods; and
// the KubeRay operator with a dashboard that tells it what Ray would.
//
// Pods of our own images (ImagePrefix) are left alone by kwok: package
// test/sandbox/kubelet runs them as processes and alone writes their status.
//
// Everything it starts dies with the thread that started it and is thrown away
// with Options.Dir; nothing is kept from one run to the next.
package cluster
