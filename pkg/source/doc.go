// Package source is where a latency matrix comes from. Agents reads the probe
// agents of a cluster directly and publishes an immutable latency.Matrix each
// round, in the background: nobody who reads the matrix ever waits for it.
package source
