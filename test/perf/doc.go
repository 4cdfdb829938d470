// Package perf measures what the plugin costs a whole scheduler, in upstream's
// harness: a real API server and etcd, thousands of nodes and pods that nobody
// runs, and the scheduler with the profile that the chart ships. There are
// only benchmarks in it; hack/perf.sh runs them side by side.
package perf
