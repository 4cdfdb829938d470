package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/utils/clock"

	"github.com/netlatency/netlatency/pkg/exposition"
)

const (
	// maxConcurrentReads keeps a thousand agents from answering at once, and
	// the memory of hostile answers at a few dozen times the limit of one.
	maxConcurrentReads = 32
	// idleTimeout outlasts several rounds, so that an agent that is read
	// regularly keeps its connection.
	idleTimeout = 2 * time.Minute
	// maxHeaderBytes is ample for the handful of headers of an answer.
	maxHeaderBytes = 16 << 10
)

// answer is what came of the attempt to read one agent in one round.
type answer struct {
	agent agent
	// attempted is whether the round got as far as this agent, at is when.
	attempted bool
	at        time.Time
	window    exposition.Window
	dropped   exposition.Dropped
	err       error
	failure   Failure // set when err is
}

// scraper reads agents over HTTP.
type scraper struct {
	client  *http.Client
	query   string
	timeout time.Duration
	clock   clock.Clock
}

// newScraper returns a scraper of its own connections when transport is nil.
func newScraper(transport http.RoundTripper, timeout, window time.Duration, clock clock.Clock) *scraper {
	s := &scraper{timeout: timeout, clock: clock}
	if window > 0 {
		s.query = url.Values{exposition.WindowParameter: {window.String()}}.Encode()
	}
	if transport == nil {
		// A transport of our own: agents are in the cluster, so a proxy from the
		// environment must not see these requests.
		transport = &http.Transport{
			DialContext:            (&net.Dialer{Timeout: timeout}).DialContext,
			MaxIdleConnsPerHost:    1,
			IdleConnTimeout:        idleTimeout,
			MaxResponseHeaderBytes: maxHeaderBytes,
		}
	}
	s.client = &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return s
}

func (s *scraper) close() { s.client.CloseIdleConnections() }

// scrape reads all agents, in their order, a bounded number at once, until ctx
// ends. There is an answer for each, in the same order.
func (s *scraper) scrape(ctx context.Context, agents []agent) []answer {
	answers := make([]answer, len(agents))
	var readers errgroup.Group
	readers.SetLimit(maxConcurrentReads)
	for i, agent := range agents {
		readers.Go(func() error {
			answers[i] = s.read(ctx, agent)
			return nil
		})
	}
	_ = readers.Wait() // readers return no error
	return answers
}

// read tries the addresses of an agent until one answers.
func (s *scraper) read(ctx context.Context, agent agent) answer {
	a := answer{agent: agent}
	if ctx.Err() != nil {
		a.err, a.failure = fmt.Errorf("scrape agent on node %q: the round was over before its turn", agent.node), FailureTimeout
		return a
	}
	a.attempted, a.at = true, s.clock.Now()
	if len(agent.addresses) == 0 {
		a.err, a.failure = fmt.Errorf("scrape agent on node %q: its EndpointSlice has no such port or no IP address: check the port's name", agent.node), FailurePort
		return a
	}
	for _, address := range agent.addresses {
		var err error
		if a.window, a.dropped, a.failure, err = s.get(ctx, agent.node, address); err == nil {
			a.err = nil
			return a
		}
		a.err = fmt.Errorf("scrape agent on node %q: %w", agent.node, err)
	}
	return a
}

// get reads one address of the agent on node.
func (s *scraper) get(ctx context.Context, node string, address netip.AddrPort) (exposition.Window, exposition.Dropped, Failure, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	fail := func(failure Failure, err error) (exposition.Window, exposition.Dropped, Failure, error) {
		// Whatever breaks because time is up is a matter of time.
		if ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) {
			failure = FailureTimeout
		}
		return exposition.Window{}, nil, failure, err
	}
	// AddrPort.String puts IPv6 addresses into brackets.
	target := url.URL{Scheme: "http", Host: address.String(), Path: exposition.MatrixPath, RawQuery: s.query}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return fail(FailureConnect, err)
	}
	// The transport asks for gzip by itself and unpacks it.
	request.Header.Set("Accept", exposition.Accept)
	response, err := s.client.Do(request)
	if err != nil {
		return fail(FailureConnect, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		// What is left of a short body is read, so that the connection lasts.
		_, _ = io.CopyN(io.Discard, response.Body, 4<<10)
		return fail(FailureStatus, fmt.Errorf("GET %s: %s", target.String(), response.Status))
	}
	window, dropped, err := exposition.Decode(response.Body, response.Header.Get("Content-Type"), exposition.Limits{}, s.clock.Now())
	switch {
	case errors.Is(err, exposition.ErrLimit):
		return fail(FailureLimit, fmt.Errorf("GET %s: %w", target.String(), err))
	case errors.Is(err, exposition.ErrRead):
		return fail(FailureConnect, fmt.Errorf("GET %s: %w", target.String(), err))
	case err != nil:
		return fail(FailureDecode, fmt.Errorf("GET %s: %w", target.String(), err))
	case window.Node != node:
		return fail(FailureIdentity, fmt.Errorf("GET %s: the agent speaks for node %q: all its rows are refused", target.String(), window.Node))
	}
	return window, dropped, "", nil
}
