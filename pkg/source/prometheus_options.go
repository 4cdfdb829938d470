package source

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"

	"k8s.io/utils/clock"

	"github.com/netlatency/netlatency/pkg/latency"
)

// PrometheusOptions configures Prometheus. All fields are required unless it
// is said otherwise.
type PrometheusOptions struct {
	// Address is the URL of the server, without its /api/v1.
	Address string
	// Headers are added to every request; may be nil.
	Headers map[string]string
	// BearerTokenFile, when not empty, holds a token that every request
	// carries. It is read at each request, since a mounted Secret changes.
	BearerTokenFile string
	// TLS is for an address with https; its files are read again when they
	// change.
	TLS TLSOptions
	// Interval is the time from the start of one round of queries to that of
	// the next. A round that is not done by then ends without a result.
	Interval time.Duration
	// Timeout bounds each query, MaxBytes the answer to it, unpacked.
	Timeout  time.Duration
	MaxBytes int64
	// Queries are what is asked, one after the other.
	Queries PrometheusQueries
	// NodeLabel and PeerLabel name the two nodes of a pair in the answers.
	NodeLabel, PeerLabel string
	// Scale is the seconds in a unit of the latencies in the answers.
	Scale float64
	// Peers are the nodes that latencies are wanted to, which PeersVariable
	// stands for in the queries. It is called in each round, from the goroutine
	// of Run. Only needed where a query has the variable.
	Peers func() []string
	// StaleAfter is how old a pair's newest sample may become before the pair
	// leaves the matrix. A server that does not answer leaves the matrix to
	// grow old until then.
	StaleAfter time.Duration
	// Hysteresis is applied from one matrix to the next; the zero value takes
	// every observation as it is.
	Hysteresis latency.Hysteresis
	// Publish takes each new matrix, from the goroutine of Run, which waits for
	// it. The first comes as soon as the first round is done.
	Publish func(*latency.Matrix)
	// Clock is the real clock when nil. It times rounds and ages; timeouts of
	// queries are always real.
	Clock clock.Clock
}

// TLSOptions say how a server is verified and what it is shown. All may be
// empty.
type TLSOptions struct {
	// CAFile holds the authorities that are trusted instead of the system's.
	CAFile string
	// CertFile and KeyFile are the client's certificate; both or none.
	CertFile, KeyFile string
	// ServerName is the name in the server's certificate where it is not the
	// host of the address.
	ServerName         string
	InsecureSkipVerify bool
}

// PrometheusQueries are instant queries, each for one number of every pair.
// Mean or P50 must be given, and Timestamp. An empty one is not asked: of Mean
// and P50 the one takes the value of the other, P90 is then the larger of the
// two and P99 is P90. Without Samples there are enough for every quantile;
// without Sent a thousand were; without Loss nothing was lost.
type PrometheusQueries struct {
	Mean, P50, P90, P99 string // latencies, in units of the Scale
	Samples             string
	Sent                string
	Loss                string // from 0 to 1
	Timestamp           string // unix seconds, on the server's clock
}

// PeersVariable in a query stands for a regular expression that matches the
// names of Peers, written as the inside of a string in double quotes.
const PeersVariable = "$peers"

func (o PrometheusOptions) validate() error {
	var errs []error
	for _, field := range []struct {
		name    string
		missing bool
	}{
		{"Address", o.Address == ""}, {"NodeLabel", o.NodeLabel == ""}, {"PeerLabel", o.PeerLabel == ""}, {"Publish", o.Publish == nil},
		{"Queries.Mean or Queries.P50", o.Queries.Mean == "" && o.Queries.P50 == ""}, {"Queries.Timestamp", o.Queries.Timestamp == ""},
		{"Peers, for a query with " + PeersVariable + ",", o.Peers == nil && o.Queries.wantPeers()},
	} {
		if field.missing {
			errs = append(errs, fmt.Errorf("%s is not set", field.name))
		}
	}
	for _, field := range []struct {
		name  string
		value time.Duration
	}{{"Interval", o.Interval}, {"Timeout", o.Timeout}, {"StaleAfter", o.StaleAfter}} {
		if field.value <= 0 {
			errs = append(errs, fmt.Errorf("%s is %v: want more than 0", field.name, field.value))
		}
	}
	if o.MaxBytes <= 0 {
		errs = append(errs, fmt.Errorf("MaxBytes is %d: want more than 0", o.MaxBytes))
	}
	if !(o.Scale > 0) || math.IsInf(o.Scale, 0) {
		errs = append(errs, fmt.Errorf("Scale is %v: want more than 0, and a finite number", o.Scale))
	}
	return errors.Join(errs...)
}

// query is one of PrometheusQueries. take puts its value for a pair, evaluated
// at that time in seconds, where it belongs.
type query struct {
	name, promQL string
	take         func(s *sample, value, at float64)
}

// list is the queries in the order in which they are asked. The first one says
// which pairs there are.
func (q PrometheusQueries) list() []query {
	return slices.DeleteFunc([]query{
		{"mean", q.Mean, func(s *sample, value, _ float64) { s.mean = value }},
		{"p50", q.P50, func(s *sample, value, _ float64) { s.p50 = value }},
		{"p90", q.P90, func(s *sample, value, _ float64) { s.p90 = value }},
		{"p99", q.P99, func(s *sample, value, _ float64) { s.p99 = value }},
		{"samples", q.Samples, func(s *sample, value, _ float64) { s.samples = value }},
		{"sent", q.Sent, func(s *sample, value, _ float64) { s.sent = value }},
		{"loss", q.Loss, func(s *sample, value, _ float64) { s.loss = value }},
		// Both on the server's clock: ours need not agree with it.
		{"timestamp", q.Timestamp, func(s *sample, value, at float64) { s.age = at - value }},
	}, func(q query) bool { return q.promQL == "" })
}

func (q PrometheusQueries) wantPeers() bool {
	return slices.ContainsFunc(q.list(), func(q query) bool { return strings.Contains(q.promQL, PeersVariable) })
}

// alternatives is a regular expression that matches the names and nothing
// else, as PromQL has it in double quotes; "" when there are none.
func alternatives(names []string) string {
	unique := make(map[string]bool, len(names))
	for _, name := range names {
		unique[regexp.QuoteMeta(name)] = true
	}
	all := strings.Join(slices.Sorted(maps.Keys(unique)), "|")
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(all)
}
