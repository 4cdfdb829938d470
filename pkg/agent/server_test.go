package agent

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/expfmt"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/klog/v2/ktesting"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/netlatency/netlatency/pkg/exposition"
	"github.com/netlatency/netlatency/pkg/probe"
)

func TestEndpoints(t *testing.T) {
	f := newFixture(t, testOptions(), slice("a").ready("node-2", "10.0.0.2"))
	f.probes(10*time.Second).answer("10.0.0.2:9465", probe.Outcome{RTT: 700 * us})
	f.clock.Step(2 * time.Minute)

	tests := map[string]struct {
		method, url string
		wantStatus  int
		wantBody    string // is in it
		wantNot     string // is not in it
	}{
		"the matrix as text": {
			url: "/matrix", wantStatus: 200, wantBody: `netlatency_window_rtt_seconds{method="udp",peer="node-2",quantile="0.5"} 0.0007`,
		},
		"the matrix over a span that has no sample": {
			url: "/matrix?window=1m", wantStatus: 200, wantBody: "netlatency_window_info", wantNot: "node-2",
		},
		"the matrix over a span that has": {
			url: "/matrix?window=2m30s", wantStatus: 200, wantBody: `peer="node-2"`,
		},
		"the matrix over more than is kept": {
			url: "/matrix?window=24h", wantStatus: 200, wantBody: `peer="node-2"`,
		},
		"a window without a unit": {
			url: "/matrix?window=120", wantStatus: 400, wantBody: `The parameter window is "120": give a positive duration with its unit, for instance 2m or 90s.`,
		},
		"a window of nothing":        {url: "/matrix?window=", wantStatus: 400, wantBody: "give a positive duration"},
		"a window of no time":        {url: "/matrix?window=0s", wantStatus: 400, wantBody: "give a positive duration"},
		"a window in the future":     {url: "/matrix?window=-1m", wantStatus: 400, wantBody: "give a positive duration"},
		"metrics of the pair":        {url: "/metrics", wantStatus: 200, wantBody: `netlatency_probes_sent_total{method="udp",node="node-1",peer="node-2"} 4`},
		"metrics of the agent":       {url: "/metrics", wantStatus: 200, wantBody: "netlatency_agent_build_info"},
		"metrics of the process":     {url: "/metrics", wantStatus: 200, wantBody: "go_goroutines"},
		"alive":                      {url: "/healthz", wantStatus: 200, wantBody: "ok"},
		"ready once peers are known": {url: "/readyz", wantStatus: 200, wantBody: "ok"},
		"samples when not asked for": {url: "/samples", wantStatus: 404},
		"nothing can be changed":     {method: http.MethodPost, url: "/matrix", wantStatus: 405},
		"there is nothing else":      {url: "/debug/pprof/", wantStatus: 404},
	}
	handler := f.handler(f.logger)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			answer := httptest.NewRecorder()
			handler.ServeHTTP(answer, httptest.NewRequest(test.method, test.url, nil))
			if answer.Code != test.wantStatus {
				t.Errorf("status is %d: want %d", answer.Code, test.wantStatus)
			}
			body := answer.Body.String()
			if !strings.Contains(body, test.wantBody) {
				t.Errorf("answer lacks %q:\n%s", test.wantBody, body)
			}
			if test.wantNot != "" && strings.Contains(body, test.wantNot) {
				t.Errorf("answer has %q:\n%s", test.wantNot, body)
			}
		})
	}
}

func TestReadersGetProtobufAndGzipWhenTheyAskForIt(t *testing.T) {
	f := newFixture(t, testOptions(), slice("a").ready("node-2", "10.0.0.2"))
	f.probes(10*time.Second).answer("10.0.0.2:9465", probe.Outcome{RTT: 700 * us})
	for _, path := range []string{exposition.MatrixPath, exposition.MetricsPath} {
		t.Run(path, func(t *testing.T) {
			request := httptest.NewRequest(http.MethodGet, path, nil)
			request.Header.Set("Accept", exposition.Accept)
			request.Header.Set("Accept-Encoding", "gzip")
			answer := httptest.NewRecorder()
			f.handler(f.logger).ServeHTTP(answer, request)

			if got := answer.Header().Get("Content-Encoding"); got != "gzip" {
				t.Fatalf("content encoding is %q: want gzip", got)
			}
			if got := expfmt.ResponseFormat(answer.Header()).FormatType(); got != expfmt.TypeProtoDelim {
				t.Fatalf("format is %v: want delimited protobuf", got)
			}
			if path != exposition.MatrixPath {
				return
			}
			plain, err := gzip.NewReader(answer.Body)
			if err != nil {
				t.Fatal(err)
			}
			got, dropped, err := exposition.Decode(plain, answer.Header().Get("Content-Type"), exposition.Limits{}, f.clock.Now())
			if err != nil || len(dropped) > 0 {
				t.Fatalf("decode: %v, dropped %v", err, dropped)
			}
			want := f.Window(0).Rows
			want[0].Sent = 0 // only sent where there are losses
			if diff := cmp.Diff(want, got.Rows); diff != "" {
				t.Errorf("rows (-agent's +reader's):\n%s", diff)
			}
		})
	}
}

// A native histogram is what Prometheus is to store: about 35 buckets of a
// pair instead of a choice of buckets that fits no network.
func TestTheHistogramIsNative(t *testing.T) {
	f := newFixture(t, testOptions(), slice("a").ready("node-2", "10.0.0.2"))
	f.probes(10*time.Second).answer("10.0.0.2:9465", probe.Outcome{RTT: 700 * us})
	families, err := f.metrics.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != exposition.RTTSeconds {
			continue
		}
		h := family.GetMetric()[0].GetHistogram()
		if h.GetSchema() != 3 || h.GetSampleCount() != 4 || len(h.GetBucket()) != 0 || len(h.GetPositiveSpan()) == 0 {
			t.Errorf("histogram is not native of schema 3: %v", h)
		}
		return
	}
	t.Errorf("there is no %s", exposition.RTTSeconds)
}

func TestNotReadyBeforeThePeersAreKnown(t *testing.T) {
	a, err := newAgent(testOptions(), "v1.2.3", slicesOf(fake.NewClientset()), clocktesting.NewFakeClock(start))
	if err != nil {
		t.Fatal(err)
	}
	logger, _ := ktesting.NewTestContext(t)
	answer := httptest.NewRecorder()
	a.handler(logger).ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/readyz", nil))
	if answer.Code != http.StatusServiceUnavailable {
		t.Errorf("status is %d: want 503", answer.Code)
	}
	answer = httptest.NewRecorder()
	a.handler(logger).ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/healthz", nil))
	if answer.Code != http.StatusOK {
		t.Errorf("but it is alive: status is %d, want 200", answer.Code)
	}
}

func TestACrowdOfReadersIsRefused(t *testing.T) {
	inside, leave := make(chan struct{}), make(chan struct{})
	handler := atMost(2, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		inside <- struct{}{}
		<-leave
	}))
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/matrix", nil))
		})
		<-inside
	}
	answer := httptest.NewRecorder()
	handler.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/matrix", nil))
	if answer.Code != http.StatusServiceUnavailable {
		t.Errorf("the third reader of two gets %d: want 503", answer.Code)
	}
	close(leave)
	readers.Wait()
	go func() { <-inside }()
	answer = httptest.NewRecorder()
	handler.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/matrix", nil))
	if answer.Code != http.StatusOK {
		t.Errorf("a reader after they have left gets %d: want 200", answer.Code)
	}
}

func TestTheSampleStream(t *testing.T) {
	newServer := func(t *testing.T) (*stream, *httptest.Server) {
		t.Helper()
		s := newStream("node-1")
		server := httptest.NewServer(s)
		t.Cleanup(server.Close)
		return s, server
	}
	connect := func(t *testing.T, server *httptest.Server) (io.Reader, context.CancelFunc) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		t.Cleanup(cancel)
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := server.Client().Do(request)
		if err != nil {
			t.Fatal(err)
		}
		if answer.StatusCode != http.StatusOK {
			t.Fatalf("status is %d: want 200", answer.StatusCode)
		}
		t.Cleanup(func() { _ = answer.Body.Close() })
		return answer.Body, cancel
	}
	outcome := probe.Outcome{
		Probe: probe.Probe{Peer: at("10.0.0.2:9465")}, Session: 1<<64 - 1, Seq: 5,
		RTT: 700 * us, Sent: start, Stamps: probe.Kernel,
	}

	t.Run("has one line a sample", func(t *testing.T) {
		s, server := newServer(t)
		body, _ := connect(t, server)
		s.Publish("node-2", outcome)
		line, err := bufio.NewReader(body).ReadBytes('\n')
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]any
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatal(err)
		}
		want := map[string]any{
			"node": "node-1", "peer": "node-2", "session": "18446744073709551615", "seq": 5.0,
			"rtt_ns": 700e3, "stamps": "kernel", "sent_unix_ns": float64(start.UnixNano()),
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("line (-want +got):\n%s", diff)
		}
	})
	t.Run("serves four clients, and the next when one has left", func(t *testing.T) {
		s, server := newServer(t)
		_, leave := connect(t, server)
		for range 3 {
			connect(t, server)
		}
		answer, err := server.Client().Get(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = answer.Body.Close() }()
		if answer.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("the fifth gets %d: want 503", answer.StatusCode)
		}
		leave()
		eventually(t, "the stream has noticed that a client left", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return len(s.clients) == 3
		})
		connect(t, server)
	})
	t.Run("drops samples, and counts them, rather than wait for a client", func(t *testing.T) {
		s := newStream("node-1")
		if _, ok := s.join(); !ok { // and reads nothing
			t.Fatal("no room for the first client")
		}
		for range streamBuffer + 10 {
			s.Publish("node-2", outcome)
		}
		if n := s.dropped.Load(); n != 10 {
			t.Errorf("%d samples were dropped: want 10", n)
		}
	})
}
