package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/api"
	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	promconfig "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/netlatency/netlatency/pkg/exposition"
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

const (
	// maxPrometheusPairs bounds the matrix: 50 target nodes in a cluster of
	// 5000.
	maxPrometheusPairs = 250_000
	// assumedCount is the number of samples, and of probes, where nobody says
	// it: enough for every quantile.
	assumedCount = 1000
	// clockSlack is how much newer than the evaluation a sample may be. The
	// time stamps of scrapes are the server's own; those that a prober gives
	// are of a clock that is kept by NTP.
	clockSlack = 2 * time.Second
	// targetsPause is the time between looks for peers while there are none: at
	// the start they are known a moment later.
	targetsPause = time.Second
)

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
	if !(o.Scale > 0) {
		errs = append(errs, fmt.Errorf("Scale is %v: want more than 0", o.Scale))
	}
	return errors.Join(errs...)
}

// list is the queries in the order in which they are asked, with what their
// answers are for.
func (q PrometheusQueries) list() []query {
	return slices.DeleteFunc([]query{
		{"mean", q.Mean, func(s *sample) *float64 { return &s.mean }},
		{"p50", q.P50, func(s *sample) *float64 { return &s.p50 }},
		{"p90", q.P90, func(s *sample) *float64 { return &s.p90 }},
		{"p99", q.P99, func(s *sample) *float64 { return &s.p99 }},
		{"samples", q.Samples, func(s *sample) *float64 { return &s.samples }},
		{"sent", q.Sent, func(s *sample) *float64 { return &s.sent }},
		{"loss", q.Loss, func(s *sample) *float64 { return &s.loss }},
		{"timestamp", q.Timestamp, func(s *sample) *float64 { return &s.age }},
	}, func(q query) bool { return q.promQL == "" })
}

func (q PrometheusQueries) wantPeers() bool {
	return slices.ContainsFunc(q.list(), func(q query) bool { return strings.Contains(q.promQL, PeersVariable) })
}

type query struct {
	name, promQL string
	field        func(*sample) *float64
}

// Prometheus asks a server with the HTTP API of Prometheus, over and over, and
// publishes what it knows as one matrix.
//
// The goroutine of Run owns all state. Readers share what it publishes, the
// matrices and Stats, which do not change any more.
type Prometheus struct {
	options PrometheusOptions
	clock   clock.Clock
	http    *http.Client
	api     promv1.API
	queries []query
	peers   bool // a query has PeersVariable
	stats   atomic.Pointer[Stats]

	matrix   *latency.Matrix
	observed map[latency.Pair]latency.Distribution
	failing  bool
	totals   totals
}

// NewPrometheus checks the options and prepares a source; Run starts it. The
// files of TLS must be there and good; that of the token may come later.
func NewPrometheus(options PrometheusOptions) (*Prometheus, error) {
	if err := options.validate(); err != nil {
		return nil, fmt.Errorf("source of Prometheus: %w", err)
	}
	if options.Clock == nil {
		options.Clock = clock.RealClock{}
	}
	p := &Prometheus{
		options: options,
		clock:   options.Clock,
		queries: options.Queries.list(),
		peers:   options.Queries.wantPeers(),
		totals:  newTotals(),
	}
	p.stats.Store(&Stats{})
	transport, err := promconfig.NewRoundTripperFromConfig(httpConfig(options), "netlatency",
		promconfig.WithDialContextFunc((&net.Dialer{Timeout: options.Timeout}).DialContext),
		promconfig.WithIdleConnTimeout(idleTimeout),
	)
	if err != nil {
		return nil, fmt.Errorf("source of Prometheus: %w", err)
	}
	p.http = &http.Client{
		Transport: limitedTransport{transport, options.MaxBytes},
		// A token is for the server that was named.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	client, err := api.NewClient(api.Config{Address: options.Address, Client: p.http})
	if err != nil {
		return nil, fmt.Errorf("source of Prometheus: address: %w", err)
	}
	p.api = promv1.NewAPI(client)
	return p, nil
}

// httpConfig is the options as Prometheus itself configures its clients.
func httpConfig(o PrometheusOptions) promconfig.HTTPClientConfig {
	c := promconfig.HTTPClientConfig{
		EnableHTTP2: true,
		TLSConfig: promconfig.TLSConfig{
			CAFile: o.TLS.CAFile, CertFile: o.TLS.CertFile, KeyFile: o.TLS.KeyFile,
			ServerName: o.TLS.ServerName, InsecureSkipVerify: o.TLS.InsecureSkipVerify,
		},
	}
	if o.BearerTokenFile != "" {
		c.Authorization = &promconfig.Authorization{Type: "Bearer", CredentialsFile: o.BearerTokenFile}
	}
	if len(o.Headers) > 0 {
		headers := make(map[string]promconfig.Header, len(o.Headers))
		for name, value := range o.Headers {
			headers[name] = promconfig.Header{Values: []string{value}}
		}
		c.HTTPHeaders = &promconfig.Headers{Headers: headers}
	}
	return c
}

// Run asks and publishes until ctx ends. It must be called once. It never
// fails: whatever cannot be had is in Stats, and asked for again.
func (p *Prometheus) Run(ctx context.Context) {
	defer p.http.CloseIdleConnections()
	for {
		started := p.clock.Now()
		pause := jittered(p.options.Interval)
		if !p.round(ctx, started) {
			pause = min(pause, targetsPause)
		}
		timer := p.clock.NewTimer(max(0, pause-p.clock.Since(started)))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C():
		}
	}
}

// Stats gives the state as of the last round. It may be called from any
// goroutine; the maps must not be changed.
func (p *Prometheus) Stats() Stats { return *p.stats.Load() }

// round asks every query once and publishes, unless ctx ended. It returns
// false when there was nothing to ask for.
func (p *Prometheus) round(ctx context.Context, started time.Time) bool {
	logger := klog.LoggerWithValues(klog.FromContext(ctx), "address", p.options.Address)
	var peers string
	if p.peers {
		peers = alternatives(p.options.Peers())
		if peers == "" {
			return false
		}
	}
	collected := make(samples)
	partial, failure, err := p.ask(ctx, peers, collected)
	if ctx.Err() != nil {
		return true
	}
	now := p.clock.Now()
	if err != nil {
		p.totals.failures[failure]++
		if !p.failing {
			logger.Error(err, "Cannot read latencies from Prometheus; the last ones are used until they are stale")
		}
		p.observe(nil, true, now)
	} else {
		p.totals.lastSuccess = now
		if p.failing {
			logger.Info("Prometheus answers again")
		}
		p.observe(collected, partial, now)
	}
	p.failing = err != nil
	p.matrix = p.matrix.Next(now, p.observed, p.options.Hysteresis)
	p.stats.Store(p.totals.snapshot(Stats{
		RoundDuration: now.Sub(started),
		Version:       p.matrix.Version(),
		Pairs:         p.matrix.Pairs(),
	}))
	p.options.Publish(p.matrix)
	return true
}

// ask puts the answers to all queries into collected. partial is whether the
// server warned that an answer may lack something.
func (p *Prometheus) ask(ctx context.Context, peers string, collected samples) (partial bool, _ Failure, _ error) {
	ctx, cancel := context.WithTimeout(ctx, p.options.Interval)
	defer cancel()
	for i, query := range p.queries {
		vector, warned, failure, err := p.instant(ctx, strings.ReplaceAll(query.promQL, PeersVariable, peers))
		if err != nil {
			return false, failure, fmt.Errorf("query for %s: %w", query.name, err)
		}
		partial = partial || warned
		if len(vector) > maxPrometheusPairs {
			return false, FailureLimit, fmt.Errorf("query for %s: %d series: at most %d are taken; limit the query to the nodes on which targets run, by {peer=~%q}", query.name, len(vector), maxPrometheusPairs, PeersVariable)
		}
		// The first query says which pairs there are.
		p.collect(vector, query, i == 0, collected)
	}
	return partial, "", nil
}

// instant asks one query, at the server's own time.
func (p *Prometheus) instant(ctx context.Context, promQL string) (vector model.Vector, warned bool, _ Failure, _ error) {
	ctx, cancel := context.WithTimeout(ctx, p.options.Timeout)
	defer cancel()
	value, warnings, err := p.api.Query(ctx, promQL, time.Time{}, promv1.WithTimeout(p.options.Timeout))
	if err != nil {
		return nil, false, failureOf(ctx, err), err
	}
	vector, ok := value.(model.Vector)
	if !ok {
		return nil, false, FailureDecode, fmt.Errorf("it returns %s: want an instant vector, with a series for each pair", typeOf(value))
	}
	return vector, len(warnings) > 0, "", nil
}

func typeOf(value model.Value) string {
	if value == nil {
		return "nothing"
	}
	return "a " + value.Type().String()
}

func failureOf(ctx context.Context, err error) Failure {
	var (
		answer  *promv1.Error
		request *url.Error
		network net.Error
	)
	switch {
	case errors.Is(err, errAnswerTooLarge):
		return FailureLimit
	case ctx.Err() != nil, errors.Is(err, context.DeadlineExceeded):
		return FailureTimeout
	case errors.As(err, &request), errors.As(err, &network), errors.Is(err, io.ErrUnexpectedEOF):
		return FailureConnect
	case !errors.As(err, &answer): // what came is no answer of the API
		return FailureDecode
	}
	switch answer.Type {
	case promv1.ErrTimeout, promv1.ErrCanceled:
		return FailureTimeout
	case promv1.ErrBadData, promv1.ErrExec:
		return FailureQuery
	case promv1.ErrBadResponse:
		return FailureDecode
	}
	return FailureStatus
}

// collect puts the values of one query where they belong. A pair that a first
// query does not have is an orphan in a later one.
func (p *Prometheus) collect(vector model.Vector, query query, first bool, collected samples) {
	node, peer := model.LabelName(p.options.NodeLabel), model.LabelName(p.options.PeerLabel)
	seen := make(map[latency.Pair]bool, len(vector))
	for _, series := range vector {
		pair := latency.Pair{Node: string(series.Metric[node]), Peer: string(series.Metric[peer])}
		switch {
		case series.Histogram != nil, validName("node", pair.Node) != nil, validName("peer", pair.Peer) != nil:
			p.totals.dropped[exposition.Malformed]++
			continue
		case pair.Node == pair.Peer:
			p.totals.dropped[exposition.Self]++
			continue
		case seen[pair]:
			p.totals.dropped[exposition.Duplicate]++
			continue
		}
		seen[pair] = true
		s := collected[pair]
		if s == nil {
			if !first {
				p.totals.dropped[exposition.Orphan]++
				continue
			}
			s = newSample()
			collected[pair] = s
		}
		value := float64(series.Value)
		if query.name == "timestamp" {
			// Both on the server's clock: ours need not agree with it.
			value = float64(series.Timestamp)/1e3 - value
		}
		*query.field(s) = value
	}
}

// observe makes p.observed out of what was collected. What was observed before
// stays until it is stale, unless the server has just told all it knows.
func (p *Prometheus) observe(collected samples, partial bool, now time.Time) {
	stale := func(d latency.Distribution) bool { return now.Sub(d.Newest) > p.options.StaleAfter }
	next := make(map[latency.Pair]latency.Distribution, len(collected))
	for pair, s := range collected {
		d, reason := s.distribution(p.options.Scale, now)
		if reason != "" {
			p.totals.dropped[reason]++
		} else if !stale(d) {
			next[pair] = d
		}
	}
	if partial {
		for pair, d := range p.observed {
			if _, ok := next[pair]; !ok && !stale(d) && len(next) < maxPrometheusPairs {
				next[pair] = d
			}
		}
	}
	p.observed = next
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

// limitedTransport fails a read of an answer beyond a number of bytes, after
// the transport has unpacked it.
type limitedTransport struct {
	http.RoundTripper
	bytes int64
}

var errAnswerTooLarge = errors.New("the answer exceeds maxBytes")

// RoundTrip implements http.RoundTripper.
func (t limitedTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := t.RoundTripper.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	response.Body = &limitedBody{bounded{r: response.Body, left: t.bytes, err: errAnswerTooLarge}, response.Body}
	return response, nil
}

// CloseIdleConnections lets http.Client reach that of the transport.
func (t limitedTransport) CloseIdleConnections() {
	if transport, ok := t.RoundTripper.(interface{ CloseIdleConnections() }); ok {
		transport.CloseIdleConnections()
	}
}

type limitedBody struct {
	bounded
	body io.Closer
}

// Close closes the body itself.
func (b *limitedBody) Close() error { return b.body.Close() }
