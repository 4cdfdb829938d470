package source

import (
	"maps"
	"time"

	"github.com/netlatency/netlatency/pkg/exposition"
)

// Failure says why an agent, a query or a file could not be read, in the form
// of a metric label.
type Failure string

const (
	// FailureRead means that the file could not be opened.
	FailureRead Failure = "read"
	// FailureQuery means that the server refused the query as such.
	FailureQuery Failure = "query"
	// FailurePort means that the Service has no port of the configured name.
	FailurePort Failure = "port"
	// FailureConnect means that there was no connection, or that it broke.
	FailureConnect Failure = "connect"
	// FailureTimeout means that there was no whole answer within the timeout,
	// or before the round was over.
	FailureTimeout Failure = "timeout"
	// FailureStatus is an HTTP status other than 200. Redirects are not
	// followed.
	FailureStatus Failure = "status"
	// FailureLimit is an answer or a file of too many bytes, series or pairs.
	FailureLimit Failure = "limit"
	// FailureDecode is an answer or a file that cannot be understood.
	FailureDecode Failure = "decode"
	// FailureIdentity is an answer in the name of another node than the one
	// that the agent's EndpointSlice says it runs on.
	FailureIdentity Failure = "identity"
)

// Stats is how a source is doing, as of the end of its last round. It is
// immutable.
type Stats struct {
	// Synced is whether the EndpointSlices have been listed at least once. Like
	// the next three it is of Agents alone, and zero for other sources.
	Synced bool
	// DiscoveryErrors counts failed attempts to list or watch EndpointSlices;
	// what was known before is used on.
	DiscoveryErrors uint64
	// Agents is the number of nodes with a ready agent, Answered how many of
	// them gave their rows in the last round.
	Agents, Answered int
	// Failures counts reads that failed, of an agent, a query or the file,
	// since the start.
	Failures map[Failure]uint64
	// Dropped counts rows of readable answers that were dropped, since the
	// start.
	Dropped map[exposition.Reason]uint64
	// RoundDuration is how long the last round took.
	RoundDuration time.Duration
	// LastSuccess is the end of the last round in which something could be
	// read: an agent answered, every query did, or the file was as it should
	// be. It is the zero time when there was none.
	LastSuccess time.Time
	// Version and Pairs describe the matrix that was published last; Version is
	// 0 before the first.
	Version uint64
	Pairs   int
}

// Stats gives the state as of the last round. It may be called from any
// goroutine; the maps must not be changed.
func (a *Agents) Stats() Stats {
	stats := *a.stats.Load()
	stats.Synced = a.discovery.hasSynced()
	stats.DiscoveryErrors = a.discovery.errors.Load()
	return stats
}

// totals counts since the start. The goroutine of Run owns it.
type totals struct {
	failures    map[Failure]uint64
	dropped     map[exposition.Reason]uint64
	lastSuccess time.Time
}

func newTotals() totals {
	return totals{failures: make(map[Failure]uint64), dropped: make(map[exposition.Reason]uint64)}
}

// snapshot completes stats by copies of the totals.
func (t totals) snapshot(stats Stats) *Stats {
	stats.Failures = maps.Clone(t.failures)
	stats.Dropped = maps.Clone(t.dropped)
	stats.LastSuccess = t.lastSuccess
	return &stats
}
