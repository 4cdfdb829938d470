package exposition

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
)

func TestTextFormOfAWindow(t *testing.T) {
	w := windowOf(
		rowTo("node-c", func(r *Row) { r.Sent, r.Lost = 720, 3 }),
		rowTo("node-b", func(r *Row) { r.Sent, r.Lost = 720, 0 }),
	)
	want := `# HELP netlatency_window_info Unix time of the agent when it took this window.
# TYPE netlatency_window_info gauge
netlatency_window_info{node="node-a",version="v1.2.3"} 1.7900000001234567e+09
# HELP netlatency_window_lost Probes to the peer without an answer, over the loss window.
# TYPE netlatency_window_lost gauge
netlatency_window_lost{method="udp",peer="node-c"} 3
# HELP netlatency_window_rtt_seconds Round trips to the peer over the window; quantile 0 is the minimum.
# TYPE netlatency_window_rtt_seconds summary
netlatency_window_rtt_seconds{method="udp",peer="node-b",quantile="0"} 0.0005 1789999996123
netlatency_window_rtt_seconds{method="udp",peer="node-b",quantile="0.5"} 0.00062 1789999996123
netlatency_window_rtt_seconds{method="udp",peer="node-b",quantile="0.9"} 0.0009 1789999996123
netlatency_window_rtt_seconds{method="udp",peer="node-b",quantile="0.99"} 0.002 1789999996123
netlatency_window_rtt_seconds_sum{method="udp",peer="node-b"} 0.078 1789999996123
netlatency_window_rtt_seconds_count{method="udp",peer="node-b"} 120 1789999996123
netlatency_window_rtt_seconds{method="udp",peer="node-c",quantile="0"} 0.0005 1789999996123
netlatency_window_rtt_seconds{method="udp",peer="node-c",quantile="0.5"} 0.00062 1789999996123
netlatency_window_rtt_seconds{method="udp",peer="node-c",quantile="0.9"} 0.0009 1789999996123
netlatency_window_rtt_seconds{method="udp",peer="node-c",quantile="0.99"} 0.002 1789999996123
netlatency_window_rtt_seconds_sum{method="udp",peer="node-c"} 0.078 1789999996123
netlatency_window_rtt_seconds_count{method="udp",peer="node-c"} 120 1789999996123
# HELP netlatency_window_sent Probes to the peer over the loss window, of pairs that lost some.
# TYPE netlatency_window_sent gauge
netlatency_window_sent{method="udp",peer="node-c"} 720
`
	got := string(encode(t, formats["text"], Families(w)))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("text of the window (-want +got):\n%s", diff)
	}
	if w.Rows[0].Peer != "node-c" {
		t.Error("Families reordered the rows of its argument")
	}
}

// What cannot be true must not reach a scrape: Prometheus refuses all of it
// for one duplicate.
func TestFamiliesLeaveOutWhatDecodeWouldRefuse(t *testing.T) {
	good := rowTo("node-b")
	for name, bad := range map[string]Row{
		"a second row for a peer":         rowTo("node-b", func(r *Row) { r.Method = "icmp" }),
		"the node itself":                 rowTo("node-a"),
		"no name":                         rowTo(""),
		"a name that is not UTF-8":        rowTo("node-\xff"),
		"no samples":                      rowTo("node-c", func(r *Row) { r.Samples = 0 }),
		"a negative latency":              rowTo("node-c", func(r *Row) { r.Min = -1 }),
		"quantiles that fall":             rowTo("node-c", func(r *Row) { r.P99 = r.P50 - 1 }),
		"a sample after the window":       rowTo("node-c", func(r *Row) { r.Newest = agentNow.Add(time.Second) }),
		"a sample without a time":         rowTo("node-c", func(r *Row) { r.Newest = time.Time{} }),
		"more probes lost than sent":      rowTo("node-c", func(r *Row) { r.Sent, r.Lost = 1, 2 }),
		"a latency that counts as a loss": rowTo("node-c", func(r *Row) { r.P99 = time.Minute }),
	} {
		t.Run(name, func(t *testing.T) {
			want, got := Families(windowOf(good)), Families(windowOf(good, bad))
			if diff := cmp.Diff(texts(want), texts(got)); diff != "" {
				t.Errorf("families (-without +with):\n%s", diff)
			}
		})
	}
}

func texts(families []*dto.MetricFamily) []string {
	var all []string
	for _, f := range families {
		all = append(all, f.String())
	}
	return all
}

func TestFamiliesPassTheGathererAndTheLinter(t *testing.T) {
	families := Families(randomWindow(rand.New(rand.NewPCG(1, 2)), 100))
	gatherer := prometheus.Gatherers{prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) { return families, nil })}
	gathered, err := gatherer.Gather()
	if err != nil {
		t.Fatalf("gather: %v", err)
	}
	if diff := cmp.Diff(texts(families), texts(gathered)); diff != "" {
		t.Errorf("gathering changed the order (-families +gathered):\n%s", diff)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}
