// Package peers runs what others have for placing pods by network latency on
// the same nodes, pods and measurements as ours, and compares what that costs
// and where pods go. There are only benchmarks in it; hack/peers.sh runs them.
//
// Others pin other versions of Kubernetes than the main module does. Of ours
// it therefore links what has no dependencies: the domain and its decisions.
package peers
