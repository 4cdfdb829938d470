package source_test

import (
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/netlatency/netlatency/pkg/exposition"
	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/source"
)

// serverNow is the time of the fake servers, which is not that of the reader.
var serverNow = time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC)

// series is one of an answer: its labels, and its value as it is sent.
type series struct {
	labels map[string]string
	value  string
}

func of(node, peer, value string) series {
	return series{map[string]string{"__name__": "rtt", "node": node, "peer": peer}, value}
}

// fakePrometheus answers instant queries, each by its text.
type fakePrometheus struct {
	*httptest.Server

	mu       sync.Mutex
	answers  map[string][]series
	warnings []string
	handler  http.HandlerFunc // instead of answering
	requests []*http.Request
	asked    []string
	times    []string // at which they are to be evaluated
}

func newFakePrometheus(t *testing.T, start func(*httptest.Server)) *fakePrometheus {
	t.Helper()
	f := &fakePrometheus{answers: make(map[string][]series)}
	f.Server = httptest.NewUnstartedServer(f)
	f.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that must fail
	start(f.Server)
	t.Cleanup(func() {
		f.CloseClientConnections()
		f.Close()
	})
	return f
}

// answer makes the answer to a query.
func (f *fakePrometheus) answer(query string, all ...series) *fakePrometheus {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers[query] = all
	return f
}

func (f *fakePrometheus) with(change func(*fakePrometheus)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

func (f *fakePrometheus) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.FormValue("query")
	f.mu.Lock()
	f.requests, f.asked, f.times = append(f.requests, r), append(f.asked, query), append(f.times, r.FormValue("time"))
	handler := f.handler
	f.mu.Unlock()
	if handler == nil {
		handler = f.reply
	}
	handler(w, r)
}

func (f *fakePrometheus) reply(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	answer, warnings := f.answers[r.FormValue("query")], f.warnings
	f.mu.Unlock()
	vector := make([]any, 0, len(answer))
	for _, s := range answer {
		vector = append(vector, map[string]any{"metric": s.labels, "value": []any{serverNow.Unix(), s.value}})
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{
		"status": "success", "warnings": warnings, "data": map[string]any{"resultType": "vector", "result": vector},
	})
}

// fresh is the time stamp of a sample that is so old on the server's clock.
func fresh(age time.Duration) string {
	return fmt.Sprint(float64(serverNow.Add(-age).UnixMilli()) / 1e3)
}

// asking is a source of Prometheus that runs.
type asking struct {
	*running
	source *source.Prometheus
}

func ask(t *testing.T, server *fakePrometheus, edits ...func(*source.PrometheusOptions)) *asking {
	t.Helper()
	r, prometheus := run(t, recordedAt, func(r *running) (*source.Prometheus, error) {
		options := source.PrometheusOptions{
			Address: server.URL, Interval: interval, Timeout: 5 * time.Second, MaxBytes: 1 << 20, StaleAfter: staleAfter,
			Queries:   source.PrometheusQueries{Mean: "mean", Timestamp: "time"},
			NodeLabel: "node", PeerLabel: "peer", Scale: 1, Clock: r.clock, Publish: r.publish,
		}
		for _, edit := range edits {
			edit(&options)
		}
		return source.NewPrometheus(options)
	})
	return &asking{r, prometheus}
}

func started(s *httptest.Server) { s.Start() }

func TestPrometheusTellsAWholeDistribution(t *testing.T) {
	f := newFakePrometheus(t, started)
	for query, value := range map[string]string{
		"mean": "2", "p50": "1.5", "p90": "3", "p99": "8.25", "samples": "119.4", "sent": "720.2", "loss": "0.0125", "time": fresh(4 * time.Second),
	} {
		f.answer(query, of("a", "b", value))
	}
	a := ask(t, f, func(o *source.PrometheusOptions) {
		o.Scale = 1e-3
		o.Queries = source.PrometheusQueries{Mean: "mean", P50: "p50", P90: "p90", P99: "p99", Samples: "samples", Sent: "sent", Loss: "loss", Timestamp: "time"}
	})
	want := map[latency.Pair]latency.Distribution{{Node: "a", Peer: "b"}: {
		Mean: 2 * ms, P50: 1500 * time.Microsecond, P90: 3 * ms, P99: 8250 * time.Microsecond, Min: 1500 * time.Microsecond,
		Samples: 120, Sent: 720, Lost: 9, Newest: recordedAt.Add(-4 * time.Second),
	}}
	if diff := cmp.Diff(want, maps.Collect(a.matrix().All())); diff != "" {
		t.Errorf("matrix (-want +got):\n%s", diff)
	}
	wantStats := source.Stats{
		LastSuccess: a.clock.Now(), Version: 1, Pairs: 1,
		Failures: map[source.Failure]uint64{}, Dropped: map[exposition.Reason]uint64{},
	}
	if diff := cmp.Diff(wantStats, a.source.Stats()); diff != "" {
		t.Errorf("stats (-want +got):\n%s", diff)
	}
}

func TestWhatIsNotAskedForContradictsNothing(t *testing.T) {
	for _, c := range []struct {
		name    string
		queries source.PrometheusQueries
		want    latency.Distribution
	}{
		{"the mean alone", source.PrometheusQueries{Mean: "0.002"},
			latency.Distribution{Mean: 2 * ms, P50: 2 * ms, P90: 2 * ms, P99: 2 * ms, Min: 2 * ms, Samples: 1000, Sent: 1000}},
		{"a median alone", source.PrometheusQueries{P50: "0.002"},
			latency.Distribution{Mean: 2 * ms, P50: 2 * ms, P90: 2 * ms, P99: 2 * ms, Min: 2 * ms, Samples: 1000, Sent: 1000}},
		{"a median and a tail", source.PrometheusQueries{P50: "0.002", P99: "0.009"},
			latency.Distribution{Mean: 2 * ms, P50: 2 * ms, P90: 2 * ms, P99: 9 * ms, Min: 2 * ms, Samples: 1000, Sent: 1000}},
		{"a mean beyond its tail", source.PrometheusQueries{Mean: "0.009", P99: "0.002"},
			latency.Distribution{Mean: 9 * ms, P50: 2 * ms, P90: 2 * ms, P99: 2 * ms, Min: 2 * ms, Samples: 1000, Sent: 1000}},
		{"a mean and a share of losses", source.PrometheusQueries{Mean: "0.002", Loss: "0.25"},
			latency.Distribution{Mean: 2 * ms, P50: 2 * ms, P90: 2 * ms, P99: 2 * ms, Min: 2 * ms, Samples: 1000, Sent: 1000, Lost: 250}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.queries.Timestamp = fresh(0)
			f := newFakePrometheus(t, started)
			for _, query := range []string{c.queries.Mean, c.queries.P50, c.queries.P90, c.queries.P99, c.queries.Samples, c.queries.Loss, c.queries.Timestamp} {
				f.answer(query, of("a", "b", query)) // each query asks for its answer
			}
			a := ask(t, f, func(o *source.PrometheusOptions) { o.Queries = c.queries })
			c.want.Newest = recordedAt
			d, _ := a.matrix().Measured("a", "b")
			if diff := cmp.Diff(c.want, d); diff != "" {
				t.Errorf("distribution (-want +got):\n%s", diff)
			}
		})
	}
}

func TestQueriesAreLimitedToTheNodesOfTargets(t *testing.T) {
	f := newFakePrometheus(t, started)
	var mu sync.Mutex
	var peers []string
	a := ask(t, f, func(o *source.PrometheusOptions) {
		o.Queries = source.PrometheusQueries{Mean: `m{peer=~"$peers"}`, Timestamp: `t{peer=~"$peers"} or t2{peer=~"$peers"}`}
		o.Peers = func() []string { mu.Lock(); defer mu.Unlock(); return peers }
	})
	eventually(t, "the first round found no target anywhere", a.clock.HasWaiters)
	f.with(func(f *fakePrometheus) {
		if len(f.asked) > 0 {
			t.Errorf("without targets the server was asked %q", f.asked)
		}
	})
	mu.Lock()
	peers = []string{"store-2", "store.1", "store-2", `odd"name`}
	mu.Unlock()
	a.clock.Step(time.Second) // and not an interval
	a.matrix()
	f.with(func(f *fakePrometheus) {
		const pattern = `odd\"name|store-2|store\\.1`
		want := []string{`m{peer=~"` + pattern + `"}`, `t{peer=~"` + pattern + `"} or t2{peer=~"` + pattern + `"}`}
		if diff := cmp.Diff(want, f.asked); diff != "" {
			t.Errorf("queries (-want +got):\n%s", diff)
		}
	})
}

// Of a rule that is evaluated in between, the median would be an old one and
// the tail a new one.
func TestAllQueriesOfARoundAreOfOneInstant(t *testing.T) {
	f := newFakePrometheus(t, started).answer("mean", of("a", "b", "0.001")).answer("time", of("a", "b", fresh(0)))
	a := ask(t, f, func(o *source.PrometheusOptions) { o.Queries.P99 = "p99" })
	a.matrix()
	a.round()
	f.with(func(f *fakePrometheus) {
		at := strconv.FormatInt(serverNow.Unix(), 10)
		if diff := cmp.Diff([]string{"", at, at, "", at, at}, f.times); diff != "" {
			t.Errorf("times of evaluation in two rounds (-want +got):\n%s", diff)
		}
	})
}

func TestAPairGrowsOlderWhileTheServerAnswers(t *testing.T) {
	f := newFakePrometheus(t, started).answer("mean", of("a", "b", "0.001")).answer("time", of("a", "b", fresh(4*time.Second)))
	a := ask(t, f, func(o *source.PrometheusOptions) {
		clock := o.Clock.(*clocktesting.FakeClock)
		f.handler = func(w http.ResponseWriter, r *http.Request) {
			clock.Step(3 * time.Second)
			f.reply(w, r)
		}
	})
	d, _ := a.matrix().Measured("a", "b")
	if age := a.clock.Now().Sub(d.Newest); age != 10*time.Second {
		t.Errorf("the pair is %v old after two answers of 3s, want 10s", age)
	}
}

func TestPairsGrowOldWhileNoTargetRunsAnywhere(t *testing.T) {
	f := newFakePrometheus(t, started).answer("m b", of("a", "b", "0.001")).answer("time", of("a", "b", fresh(0)))
	var targets atomic.Bool
	targets.Store(true)
	a := ask(t, f, func(o *source.PrometheusOptions) {
		o.Queries.Mean = "m $peers"
		o.Peers = func() []string {
			if targets.Load() {
				return []string{"b"}
			}
			return nil
		}
	})
	a.matrix()
	targets.Store(false)
	if m := a.round(); m.Pairs() != 1 {
		t.Errorf("the pair is gone at once")
	}
	if m := a.after(staleAfter); m.Pairs() != 0 {
		t.Errorf("stale pairs are in the matrix: %v", rtts(m))
	}
	f.with(func(f *fakePrometheus) {
		if len(f.asked) != 2 {
			t.Errorf("the server was asked %q, want the two queries of the first round", f.asked)
		}
	})
	targets.Store(true)
	if m := a.round(); m.Pairs() != 1 {
		t.Errorf("a target runs again, and the matrix has %d pairs", m.Pairs())
	}
}

// One bad row does not cost the others.
func TestImpossibleSeriesAreDroppedAndCounted(t *testing.T) {
	f := newFakePrometheus(t, started)
	long := strings.Repeat("n", 254)
	f.answer("mean",
		of("a", "good", "0.001"), of("a", "nan", "NaN"), of("a", "inf", "+Inf"), of("a", "negative", "-0.001"), of("a", "absurd", "1e9"), of("a", "zero", "0"),
		of("a", "a", "0.001"), of("", "b", "0.001"), of("a", "", "0.001"), of("a", long, "0.001"), of("a", "bad\xff", "0.001"),
		of("a", "twice", "0.001"), of("a", "twice", "0.002"), of("a", "untimed", "0.001"), of("a", "future", "0.001"), of("a", "ancient", "0.001"),
		of("a", "stale", "0.001"), of("a", "lossy", "0.001"),
	)
	times := []series{of("a", "unasked", fresh(0)), of("a", "future", fresh(-time.Hour)), of("a", "ancient", "0"), of("a", "stale", fresh(staleAfter+time.Second))}
	for _, peer := range []string{"good", "nan", "inf", "negative", "absurd", "zero", "twice", "lossy", "bad\ufffd"} {
		times = append(times, of("a", peer, fresh(time.Second)))
	}
	f.answer("time", times...)
	f.answer("loss", of("a", "lossy", "1.5"))
	a := ask(t, f, func(o *source.PrometheusOptions) { o.Queries.Loss = "loss" })
	// JSON mends what is not UTF-8 on its way.
	want := map[string]time.Duration{"a>good": 1 * ms, "a>twice": 1 * ms, "a>bad\ufffd": 1 * ms}
	if diff := cmp.Diff(want, rtts(a.matrix())); diff != "" {
		t.Errorf("matrix (-want +got):\n%s", diff)
	}
	wantDropped := map[exposition.Reason]uint64{
		exposition.Malformed:  3 + 4, // names; NaN, infinite, untimed, ancient
		exposition.Impossible: 4,     // negative, absurd, zero, lossy
		exposition.Self:       1, exposition.Duplicate: 1, exposition.Future: 1, exposition.Orphan: 1,
	}
	if diff := cmp.Diff(wantDropped, a.source.Stats().Dropped); diff != "" {
		t.Errorf("dropped (-want +got):\n%s", diff)
	}
}

func TestAServerThatFailsLetsPairsGrowOld(t *testing.T) {
	text := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status); fmt.Fprint(w, body) }
	}
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		want   source.Failure
	}{
		{"it refuses the query", text(400, `{"status":"error","errorType":"bad_data","error":"parse error"}`), source.FailureQuery},
		{"it cannot execute the query", text(422, `{"status":"error","errorType":"execution","error":"too many samples"}`), source.FailureQuery},
		{"it took too long", text(503, `{"status":"error","errorType":"timeout","error":"query timed out"}`), source.FailureTimeout},
		{"it is unavailable", text(503, "no upstream"), source.FailureStatus},
		{"it asks who we are", text(401, "who are you"), source.FailureStatus},
		{"it sends elsewhere", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://localhost:1/", http.StatusFound)
		}, source.FailureStatus},
		{"it answers with a page", text(200, "<html>"), source.FailureDecode},
		{"it answers with a number", text(200, `{"status":"success","data":{"resultType":"scalar","result":[1,"2"]}}`), source.FailureDecode},
		{"it answers with something new", text(200, `{"status":"success","data":{"resultType":"tensor","result":[]}}`), source.FailureDecode},
		{"it breaks off", text(200, `{"status":"success","data":{"resultType":"vector","result":[{`), source.FailureDecode},
		{"its connection breaks off", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "99")
			fmt.Fprint(w, "{")
		}, source.FailureConnect},
		{"it answers without end", text(200, strings.Repeat(" ", 2<<20)), source.FailureLimit},
		{"it hangs up", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, source.FailureConnect},
		{"it does not answer", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, source.FailureTimeout},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFakePrometheus(t, started).answer("mean", of("a", "b", "0.001")).answer("time", of("a", "b", fresh(0)))
			a := ask(t, f, func(o *source.PrometheusOptions) { o.Timeout = 300 * ms })
			newest, _ := a.matrix().Measured("a", "b")
			f.with(func(f *fakePrometheus) { f.handler = c.answer })
			m := a.round()
			if d, ok := m.Measured("a", "b"); !ok || !d.Newest.Equal(newest.Newest) {
				t.Errorf("the pair is of %v (%v), want it to be that of %v before", d.Newest, ok, newest.Newest)
			}
			if got := a.source.Stats().Failures; got[c.want] != 1 || len(got) != 1 {
				t.Errorf("failures %v, want one of %s", got, c.want)
			}
			if m := a.after(staleAfter); m.Pairs() != 0 {
				t.Errorf("stale pairs are in the matrix: %v", rtts(m))
			}
			f.with(func(f *fakePrometheus) { f.handler = nil })
			if m := a.round(); m.Pairs() != 1 {
				t.Errorf("the server answers again, and the matrix has %d pairs", m.Pairs())
			}
		})
	}
}

func TestAPairThatTheServerForgetsGoes(t *testing.T) {
	f := newFakePrometheus(t, started).answer("mean", of("a", "b", "0.001"), of("a", "c", "0.001")).answer("time", of("a", "b", fresh(0)), of("a", "c", fresh(0)))
	a := ask(t, f)
	a.matrix()
	f.answer("mean", of("a", "b", "0.001"))
	f.with(func(f *fakePrometheus) { f.warnings = []string{"a store did not answer"} })
	if m := a.round(); m.Pairs() != 2 {
		t.Errorf("an answer that may lack something took %v", rtts(m))
	}
	f.with(func(f *fakePrometheus) { f.warnings = nil })
	if diff := cmp.Diff(map[string]time.Duration{"a>b": 1 * ms}, rtts(a.round())); diff != "" {
		t.Errorf("after a whole answer without the pair (-want +got):\n%s", diff)
	}
}

func TestATokenIsReadAtEachRequest(t *testing.T) {
	f := newFakePrometheus(t, started)
	token := filepath.Join(t.TempDir(), "token")
	a := ask(t, f, func(o *source.PrometheusOptions) {
		o.BearerTokenFile = token
		o.Headers = map[string]string{"X-Scope-OrgID": "search"}
	})
	a.matrix()
	if got := a.source.Stats().Failures; got[source.FailureConnect] != 1 {
		t.Errorf("without its token the source asked: failures %v", got)
	}
	for _, text := range []string{"one", "two"} {
		if err := os.WriteFile(token, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		a.round()
	}
	f.with(func(f *fakePrometheus) {
		var got []string
		for _, r := range f.requests {
			got = append(got, r.Method+" "+r.URL.Path+" "+r.Header.Get("Authorization")+" "+r.Header.Get("X-Scope-OrgID"))
		}
		want := []string{"POST /api/v1/query Bearer one search", "POST /api/v1/query Bearer two search"}
		if diff := cmp.Diff(want, slices.Compact(got)); diff != "" {
			t.Errorf("requests (-want +got):\n%s", diff)
		}
	})
}

func TestAServerIsVerified(t *testing.T) {
	f := newFakePrometheus(t, func(s *httptest.Server) {
		s.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
		s.StartTLS()
	}).answer("mean", of("a", "b", "0.001")).answer("time", of("a", "b", fresh(0)))
	authority := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(authority, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		tls   source.TLSOptions
		pairs int
	}{
		{"by the system's authorities", source.TLSOptions{}, 0},
		{"by one that is given", source.TLSOptions{CAFile: authority}, 1},
		{"by a name that is given", source.TLSOptions{CAFile: authority, ServerName: "example.com"}, 1},
		{"by a name that it does not have", source.TLSOptions{CAFile: authority, ServerName: "example.org"}, 0},
		{"not at all", source.TLSOptions{InsecureSkipVerify: true}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := ask(t, f, func(o *source.PrometheusOptions) { o.TLS = c.tls }).matrix()
			if m.Pairs() != c.pairs {
				t.Errorf("%d pairs, want %d", m.Pairs(), c.pairs)
			}
		})
	}
}

func TestOptionsOfPrometheusAreChecked(t *testing.T) {
	_, err := source.NewPrometheus(source.PrometheusOptions{Queries: source.PrometheusQueries{P90: "$peers"}, Scale: math.Inf(1)})
	for _, want := range []string{
		"Address is not set", "NodeLabel is not set", "PeerLabel is not set", "Publish is not set", "Queries.Mean or Queries.P50 is not set", "Queries.Timestamp is not set",
		"Peers, for a query with $peers, is not set", "Interval is 0s", "Timeout is 0s", "StaleAfter is 0s", "MaxBytes is 0", "Scale is +Inf",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got error %v, want one with %s", err, want)
		}
	}
}

// Whatever a server answers, what is published is possible.
func FuzzPrometheusAnswer(f *testing.F) {
	vector := func(results string) []byte {
		return []byte(`{"status":"success","data":{"resultType":"vector","result":[` + results + `]}}`)
	}
	f.Add(vector(`{"metric":{"node":"a","peer":"b"},"value":[1,"0.5"]}`))
	f.Add(vector(`{"metric":{"node":"a","peer":"b"},"value":[1e300,"-0"]},{"metric":{"node":"a","peer":"b"},"value":[-1,"NaN"]}`))
	f.Add(vector(`{"metric":{"node":"a","peer":"b"},"histogram":[1,{"count":"1","sum":"1","buckets":[[0,"1","2","1"]]}]}`))
	f.Add(vector(`{"metric":null,"value":null},{}`))
	f.Add([]byte(`{"status":"success","data":{"resultType":"matrix","result":[]},"warnings":["x"]}`))
	f.Add([]byte(`{"status":"error","errorType":"bad_data"}`))
	f.Add([]byte("null"))
	f.Fuzz(func(t *testing.T, body []byte) {
		server := newFakePrometheus(t, started)
		server.handler = func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) }
		a := ask(t, server, func(o *source.PrometheusOptions) {
			o.Queries.P99, o.Queries.Samples, o.Queries.Loss = "p99", "samples", "loss"
		})
		for pair, d := range a.matrix().All() {
			if err := d.Validate(); err != nil || pair.Node == "" || pair.Peer == "" || pair.Node == pair.Peer {
				t.Errorf("%v is published as %+v: %v", pair, d, err)
			}
			if age := recordedAt.Sub(d.Newest); age < 0 || age > staleAfter {
				t.Errorf("%v is published at an age of %v", pair, age)
			}
		}
	})
}
