package ui

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/netlatency/netlatency/pkg/latency"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// triangle is three nodes of two providers: a-1 has measured both others, a-2
// has lost probes, and b-1 has measured nobody.
func triangle(now time.Time) *Snapshot {
	d := func(us int, lost int, age time.Duration) latency.Distribution {
		rtt := time.Duration(us) * time.Microsecond
		return latency.Distribution{Min: rtt - 10*time.Microsecond, P50: rtt, P90: rtt + 20*time.Microsecond, P99: rtt + 50*time.Microsecond, Mean: rtt, Samples: 100, Sent: 720, Lost: lost, Newest: now.Add(-age), Method: "udp"}
	}
	m := latency.NewMatrix(now, map[latency.Pair]latency.Distribution{
		{Node: "a-1", Peer: "a-2"}: d(200, 0, 3*time.Second), {Node: "a-1", Peer: "b-1"}: d(1500, 0, 4*time.Second),
		{Node: "a-2", Peer: "a-1"}: d(210, 18, 5*time.Second),
	})
	groups := map[string]latency.NodeGroup{"a-1": {Provider: "a"}, "a-2": {Provider: "a"}}
	statistic := latency.Statistic{}
	return &Snapshot{
		Taken: now, Interval: 10 * time.Second, Matrix: m, Statistic: statistic, StaleAfter: time.Minute,
		Estimates: latency.NewEstimator(m, statistic, time.Minute, groups, now),
		Nodes: []Node{
			{Name: "b-1", Agent: Agent{State: AgentSilent, Answered: now.Add(-time.Minute), Fault: "timeout"}},
			{Name: "a-2", Group: groups["a-2"], Agent: Agent{State: AgentAnswered, Answered: now}},
			{Name: "a-1", Group: groups["a-1"], Agent: Agent{State: AgentAnswered, Answered: now}},
		},
	}
}

func newServer(t *testing.T, snapshots ...*Snapshot) *Server {
	t.Helper()
	s, err := NewServer(true)
	if err != nil {
		t.Fatal(err)
	}
	for _, snapshot := range snapshots {
		s.Publish(snapshot)
	}
	return s
}

// ask asks for a path with headers, "Host" among them.
func ask(t *testing.T, s *Server, path string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	request := httptest.NewRequest(http.MethodGet, path, nil)
	request.Host = "127.0.0.1:8080"
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			request.Host = headers[i+1]
		}
		request.Header.Set(headers[i], headers[i+1])
	}
	recorder := httptest.NewRecorder()
	s.ServeHTTP(recorder, request)
	return recorder
}

// decode asks for a path and decodes the answer.
func decode(t *testing.T, s *Server, path string) (answer map[string]any) {
	t.Helper()
	response := ask(t, s, path)
	if response.Code != http.StatusOK {
		t.Fatalf("%s: %d %s", path, response.Code, response.Body)
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	return answer
}

func TestMatrix(t *testing.T) {
	s := newServer(t, triangle(start))
	for _, tt := range []struct {
		show string
		want map[string]any
	}{
		{"latency", map[string]any{
			"unit": "µs", "rows": list(list(0, 200, 1500), list(210, 0, nil), list(1500, nil, 0)), "basis": list("lmm", "mlu", "rul"),
			"blocks": map[string]any{"rows": list(list(210, 1500), list(1500, nil)), "basis": list("mu", "ul"), "pairs": list(list(2, 2), list(2, 0)), "measured": list(list(2, 1), list(0, 0))},
		}},
		{"p99", map[string]any{
			"unit": "µs", "rows": list(list(0, 250, 1550), list(260, 0, nil), list(nil, nil, 0)), "basis": list("lmm", "mlu", "rul"),
			"blocks": map[string]any{"rows": list(list(260, 1550), list(nil, nil)), "basis": list("mu", "ul"), "pairs": list(list(2, 2), list(2, 0)), "measured": list(list(2, 1), list(0, 0))},
		}},
		{"age", map[string]any{
			"unit": "s", "rows": list(list(0, 3, 4), list(5, 0, nil), list(nil, nil, 0)), "basis": list("lmm", "mlu", "rul"),
			"blocks": map[string]any{"rows": list(list(5, 4), list(nil, nil)), "basis": list("mu", "ul"), "pairs": list(list(2, 2), list(2, 0)), "measured": list(list(2, 1), list(0, 0))},
		}},
		{"method", map[string]any{
			"unit": "", "rows": list(list(0, 0, 0), list(0, 0, nil), list(nil, nil, 0)), "basis": list("lmm", "mlu", "rul"), "methods": list("udp"),
			"blocks": map[string]any{"rows": list(list(0, 0), list(nil, nil)), "basis": list("mu", "ul"), "pairs": list(list(2, 2), list(2, 0)), "measured": list(list(2, 1), list(0, 0))},
		}},
	} {
		t.Run(tt.show, func(t *testing.T) {
			got := decode(t, s, "/api/matrix?show="+tt.show)
			delete(got, "version")
			tt.want["show"] = tt.show
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	loss := decode(t, s, "/api/matrix?show=loss")["rows"].([]any)[1].([]any)[0].(float64)
	if want := 1e6 * (latency.Distribution{Sent: 720, Lost: 18}).Loss(); math.Abs(loss-want) > 1 {
		t.Errorf("loss is %v millionths: want %v", loss, want)
	}
}

// list is what a list of JSON decodes to.
func list(values ...any) []any {
	for i, v := range values {
		if n, ok := v.(int); ok {
			values[i] = float64(n)
		}
	}
	return values
}

func TestOverview(t *testing.T) {
	snapshot := triangle(start)
	snapshot.Problems = []string{"list events: forbidden"}
	got := decode(t, newServer(t, snapshot), "/api/overview")
	delete(got, "version")
	ms := float64(start.UnixMilli())
	want := map[string]any{
		"taken": ms, "since": ms, "interval_ms": 10000., "stale_ms": 60000., "recording": "", "tail_weight": 0., "loss_penalty_ms": 0.,
		"providers": list("a", "-"), "max_nodes": 1000., "agents": 3., "answered": 2., "measured": 3., "pairs": 6., "problems": list("list events: forbidden"),
		"nodes": list(list("a-1", 0, "", "", "answered", ms, ""), list("a-2", 0, "", "", "answered", ms, ""), list("b-1", 1, "", "", "silent", ms-60000, "timeout")),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestCell(t *testing.T) {
	s := newServer(t, triangle(start), triangle(start.Add(10*time.Second)))
	got := decode(t, s, "/api/cell?from=a-1&to=b-1")
	delete(got, "version")
	at := float64(start.UnixMilli())
	want := map[string]any{
		"from": "a-1", "to": "b-1",
		"there": map[string]any{
			"estimate": map[string]any{"basis": "measured", "latency": 1500., "error": 4.},
			"measured": map[string]any{"min": 1490., "p50": 1500., "p90": 1520., "p99": 1550., "mean": 1500., "samples": 100., "sent": 720., "lost": 0., "loss": 0., "method": "udp", "age_ms": 4000., "stale": false},
		},
		"back":    map[string]any{"estimate": map[string]any{"basis": "reverse", "latency": 1500., "error": 4.}, "measured": nil},
		"history": map[string]any{"since": at, "at": list(at, at+10000), "latency": list(1500.2, 1500.2), "p50": list(1500.2, 1500.2), "p99": list(1550.1, 1550.1), "loss": list(0, 0)},
	}
	within := cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) <= 0.0003*math.Max(math.Abs(a), math.Abs(b)) })
	if diff := cmp.Diff(want, got, within); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	recording := triangle(start)
	recording.Recording = "matrix.jsonl"
	if got := decode(t, newServer(t, recording), "/api/cell?from=a-1&to=b-1")["history"]; got != nil {
		t.Errorf("a recording has the history %v", got)
	}
}

func TestNode(t *testing.T) {
	got := decode(t, newServer(t, triangle(start)), "/api/node?name=b-1")
	want := list(list(0, list(1500, nil, nil, nil, nil, "r"), list(1500, 1500, 1550, 0, 4, "m")), list(1, list(nil, nil, nil, nil, nil, "u"), list(nil, nil, nil, nil, nil, "u")))
	if diff := cmp.Diff(want, got["peers"]); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWhatIsNotThereIsRefused(t *testing.T) {
	s := newServer(t)
	if got := ask(t, s, "/api/overview").Code; got != http.StatusServiceUnavailable {
		t.Errorf("before the first snapshot: %d", got)
	}
	if got := ask(t, s, "/healthz").Code; got != http.StatusOK {
		t.Errorf("/healthz before the first snapshot: %d", got)
	}
	s.Publish(triangle(start))
	for _, path := range []string{"/api/matrix", "/api/matrix?show=nothing", "/api/cell?from=a-1&to=c", "/api/cell", "/api/node?name=", "/nothing", "/assets/app.js", "/api/"} {
		if got := ask(t, s, path).Code; got != http.StatusNotFound {
			t.Errorf("%s: %d, want 404", path, got)
		}
	}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete} {
		recorder := httptest.NewRecorder()
		request := httptest.NewRequest(method, "/api/overview", strings.NewReader("{}"))
		request.Host = "localhost"
		s.ServeHTTP(recorder, request)
		if recorder.Code != http.StatusMethodNotAllowed {
			t.Errorf("%s: %d, want 405", method, recorder.Code)
		}
	}
}

func TestOnlyThisMachineIsAnsweredLocally(t *testing.T) {
	for host, want := range map[string]int{
		"127.0.0.1:1": 200, "localhost:1": 200, "LOCALHOST": 200, "[::1]:1": 200, "127.3.2.1": 200,
		"evil.example:1": 421, "localhost.evil.example": 421, "10.0.0.1:1": 421, "": 421,
	} {
		if got := ask(t, newServer(t, triangle(start)), "/api/overview", "Host", host).Code; got != want {
			t.Errorf("as %q: %d, want %d", host, got, want)
		}
	}
	everywhere, err := NewServer(false)
	if err != nil {
		t.Fatal(err)
	}
	if got := ask(t, everywhere, "/healthz", "Host", "netlatency-ui.netlatency.svc").Code; got != http.StatusOK {
		t.Errorf("in a cluster: %d", got)
	}
}

func TestEveryAnswerIsGuarded(t *testing.T) {
	s := newServer(t, triangle(start))
	for _, path := range []string{"/", "/app.js", "/style.css", "/favicon.svg", "/api/overview", "/nothing"} {
		header := ask(t, s, path).Header()
		for name, want := range map[string]string{
			"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'",
			"X-Content-Type-Options":  "nosniff", "Referrer-Policy": "no-referrer", "Cross-Origin-Resource-Policy": "same-origin", "Cache-Control": "no-cache",
		} {
			if got := header.Get(name); !strings.HasPrefix(got, want) {
				t.Errorf("%s: %s is %q", path, name, got)
			}
		}
	}
	for path, want := range map[string]string{"/": "text/html", "/app.js": "text/javascript", "/style.css": "text/css", "/favicon.svg": "image/svg+xml"} {
		if got := ask(t, s, path).Header().Get("Content-Type"); !strings.HasPrefix(got, want) {
			t.Errorf("%s: Content-Type is %q", path, got)
		}
	}
	page := ask(t, s, "/").Body.String()
	for _, forbidden := range []string{"<style", "style=", "onclick", "<script>", "http://", "https://"} {
		if strings.Contains(page, forbidden) {
			t.Errorf("the page has %q", forbidden)
		}
	}
}

func TestWhatHasNotChangedIsNotSentAgain(t *testing.T) {
	s := newServer(t, triangle(start))
	for _, path := range []string{"/app.js", "/api/overview", "/api/matrix?show=latency"} {
		first := ask(t, s, path, "Accept-Encoding", "gzip")
		if first.Header().Get("Content-Encoding") != "gzip" {
			t.Errorf("%s is not packed", path)
		}
		unpacked, err := gzip.NewReader(first.Body)
		if err != nil {
			t.Fatal(err)
		}
		packed, err := io.ReadAll(unpacked)
		if err != nil {
			t.Fatal(err)
		}
		if plain := ask(t, s, path).Body.String(); string(packed) != plain {
			t.Errorf("%s is another one when packed", path)
		}
		if again := ask(t, s, path, "If-None-Match", first.Header().Get("ETag")); again.Code != http.StatusNotModified {
			t.Errorf("%s: %d, want 304", path, again.Code)
		}
	}
	before := ask(t, s, "/api/overview").Header().Get("ETag")
	s.Publish(triangle(start))
	if again := ask(t, s, "/api/overview", "If-None-Match", before); again.Code != http.StatusOK {
		t.Errorf("after another snapshot: %d, want 200", again.Code)
	}
}

func TestHistoryIsBoundedAndReachesBackToTheStart(t *testing.T) {
	for _, n := range []int{3, 40, 400} {
		h := newHistory()
		s := metro(n, min(n-1, 5))
		v := newView(s, "", h)
		rounds := 1000
		for i := range rounds {
			s.Taken = start.Add(time.Duration(i) * 10 * time.Second)
			h.add(v)
			most := max(minPoints, min(maxPoints, maxHistoryBytes/(8*n*n)))
			if len(h.points) > most {
				t.Fatalf("%d nodes: %d points, want at most %d", n, len(h.points), most)
			}
		}
		c := h.of(v.nodes[0].Name, v.nodes[1].Name)
		if !c.At[0].Equal(start) || !c.Since.Equal(start) {
			t.Errorf("%d nodes: it begins at %v, want %v", n, c.At[0], start)
		}
		if last := c.At[len(c.At)-1].Time; last.Before(start.Add(time.Duration(rounds-h.every) * 10 * time.Second)) {
			t.Errorf("%d nodes: the last point is of %v", n, last)
		}
		for i := 2; i < len(c.At)-1; i++ {
			if c.At[i].Sub(c.At[i-1].Time) != c.At[1].Sub(c.At[0].Time) {
				t.Fatalf("%d nodes: point %d of %d is %v after the one before it, the first %v", n, i, len(c.At), c.At[i].Sub(c.At[i-1].Time), c.At[1].Sub(c.At[0].Time))
			}
		}
	}
}

func TestHistoryOfANodeThatComes(t *testing.T) {
	h := newHistory()
	h.add(newView(triangle(start), "", h))
	s := triangle(start.Add(time.Minute))
	s.Nodes = append(s.Nodes, Node{Name: "a-0"})
	h.add(newView(s, "", h))
	if c := h.of("a-1", "b-1"); *c.P50[0] != *c.P50[1] {
		t.Errorf("p50 is %v and then %v: another node has moved it", *c.P50[0], *c.P50[1])
	}
	if c := h.of("a-1", "a-0"); c.P50[0] != nil || c.Latency[0] != nil {
		t.Error("a node has a past before it was there")
	}
}

func TestCodesKeepLatencies(t *testing.T) {
	for _, d := range []time.Duration{time.Microsecond, 37 * time.Microsecond, time.Millisecond, 42 * time.Millisecond, latency.MaxRTT} {
		got, want := *decoded(code(d)), float64(d)/1000
		if math.Abs(got-want) > math.Max(0.05, 0.0002*want) {
			t.Errorf("%v becomes %v µs", d, got)
		}
	}
	if code(time.Hour) != code(latency.MaxRTT) || code(0) != code(time.Microsecond) {
		t.Error("what is out of range does not take the end of it")
	}
}

func TestNodesAreOrderedAsAPersonWould(t *testing.T) {
	var nodes []Node
	for _, name := range []string{"n-10", "n-9", "n-2", "n-02", "m", "n-1b", "n-1"} {
		nodes = append(nodes, Node{Name: name})
	}
	nodes = append(nodes, Node{Name: "a", Group: latency.NodeGroup{Provider: "z"}}, Node{Name: "z", Group: latency.NodeGroup{Provider: "y", Zone: "2"}}, Node{Name: "zz", Group: latency.NodeGroup{Provider: "y", Zone: "1"}})
	var got []string
	for _, n := range ordered(nodes) {
		got = append(got, n.Name)
	}
	if want := []string{"zz", "z", "a", "m", "n-1", "n-1b", "n-2", "n-02", "n-9", "n-10"}; !cmp.Equal(want, got) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestAClusterOfTooManyNodesHasItsProviders(t *testing.T) {
	s := triangle(start)
	for i := range maxNodes {
		s.Nodes = append(s.Nodes, Node{Name: fmt.Sprintf("c-%d", i), Group: latency.NodeGroup{Provider: "c"}})
	}
	server := newServer(t, s)
	for _, show := range []string{"latency", "p50", "method"} {
		got := decode(t, server, "/api/matrix?show="+show)
		measured := got["blocks"].(map[string]any)["measured"]
		if diff := cmp.Diff(list(list(2, 0, 1), list(0, 0, 0), list(0, 0, 0)), measured); got["rows"] != nil || diff != "" {
			t.Errorf("%s: rows are %v; measured (-want +got):\n%s", show, got["rows"], diff)
		}
	}
	if got := decode(t, server, "/api/cell?from=a-1&to=b-1")["history"].(map[string]any)["at"]; len(got.([]any)) != 0 {
		t.Errorf("it remembers %v", got)
	}
}
