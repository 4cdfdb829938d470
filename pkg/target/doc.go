// Package target knows on which nodes the things run that pods want to be
// near: ready pods that a selector chooses, the pods behind a Service, nodes
// with a label or a device. It keeps that current from informers, change by
// change, and hands it out as immutable sets, so that a reader neither waits
// nor looks at a pod.
package target
