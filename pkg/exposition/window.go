package exposition

import (
	"cmp"
	"math"
	"slices"
	"time"
	"unicode/utf8"

	dto "github.com/prometheus/client_model/go"

	"github.com/netlatency/netlatency/pkg/latency"
)

// Row is what an agent measured to one peer over its window. Newest is on the
// clock of whoever holds the Row: the agent's before Families, the reader's
// after Decode.
type Row struct {
	// Peer is the name of the peer's node.
	Peer string
	latency.Distribution
}

// Window is all that one agent knows at the time Now.
type Window struct {
	// Node is the name of the agent's node, Version that of the agent's build.
	Node, Version string
	// Now is when the window was taken, on the agent's clock. Ages of rows are
	// taken against it, so the clocks of agent and reader need not agree.
	Now  time.Time
	Rows []Row
}

// maxNameBytes is the longest name that Kubernetes gives a node (a DNS
// subdomain, RFC 1123 section 2.1).
const maxNameBytes = 253

// maxMethodBytes is far more than any method's name.
const maxMethodBytes = 63

// Families gives w in the form that expfmt encodes and a prometheus.Gatherer
// returns: families sorted by name, series by method and peer. A row that Decode would
// refuse (for instance impossible by Distribution.Validate, about the node
// itself, for the peer of an earlier row, newer than Now) is left out, so that
// the result is valid whatever the rows hold. w is not changed.
//
// An age is Now.Sub(Newest): if both times come from time.Now, a step of the
// agent's wall clock does not change it.
func Families(w Window) []*dto.MetricFamily {
	rows := make([]Row, 0, len(w.Rows))
	seen := make(map[string]bool, len(w.Rows))
	for _, row := range w.Rows {
		age := w.Now.Sub(row.Newest)
		if age < 0 || age > maxAge || refusal(row, w.Node) != "" || seen[row.Peer] {
			continue
		}
		seen[row.Peer] = true
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(a, b Row) int {
		return cmp.Or(cmp.Compare(a.Method, b.Method), cmp.Compare(a.Peer, b.Peer))
	})

	info := family(WindowInfo, dto.MetricType_GAUGE, "Unix time of the agent when it took this window.")
	info.Metric = []*dto.Metric{{
		Label: []*dto.LabelPair{label(LabelNode, w.Node), label(LabelVersion, w.Version)},
		Gauge: &dto.Gauge{Value: new(float64(w.Now.UnixNano()) / 1e9)},
	}}
	lost := family(WindowLost, dto.MetricType_GAUGE, "Probes to the peer without an answer, over the loss window.")
	rtt := family(WindowRTTSeconds, dto.MetricType_SUMMARY, "Round trips to the peer over the window; quantile 0 is the minimum.")
	sent := family(WindowSent, dto.MetricType_GAUGE, "Probes to the peer over the loss window, of pairs that lost some.")
	for _, row := range rows {
		labels := []*dto.LabelPair{label(LabelMethod, row.Method), label(LabelPeer, row.Peer)}
		rtt.Metric = append(rtt.Metric, &dto.Metric{
			Label: labels,
			Summary: &dto.Summary{
				SampleCount: new(uint64(row.Samples)),
				SampleSum:   new(row.Mean.Seconds() * float64(row.Samples)),
				Quantile: []*dto.Quantile{
					quantile(0, row.Min), quantile(0.5, row.P50), quantile(0.9, row.P90), quantile(0.99, row.P99),
				},
			},
			TimestampMs: new(newestMillis(w.Now, row.Newest)),
		})
		if row.Lost > 0 {
			sent.Metric = append(sent.Metric, gauge(labels, row.Sent))
			lost.Metric = append(lost.Metric, gauge(labels, row.Lost))
		}
	}

	families := []*dto.MetricFamily{info, lost, rtt, sent}
	return slices.DeleteFunc(families, func(f *dto.MetricFamily) bool { return len(f.Metric) == 0 })
}

// newestMillis is the timestamp whose distance to now, in WindowInfo, is the
// age of the newest sample, rounded up so that it is never newer than now.
func newestMillis(now, newest time.Time) int64 {
	age := now.Sub(newest)
	return now.UnixMilli() - int64(math.Ceil(age.Seconds()*1e3))
}

// refusal says why a row of node is not to be believed, "" when it is.
func refusal(row Row, node string) Reason {
	switch {
	case row.Peer == "" || len(row.Peer) > maxNameBytes || !utf8.ValidString(row.Peer),
		len(row.Method) > maxMethodBytes || !utf8.ValidString(row.Method):
		return Malformed
	case row.Peer == node:
		return Self
	case row.Validate() != nil:
		return Impossible
	}
	return ""
}

func family(name string, of dto.MetricType, help string) *dto.MetricFamily {
	return &dto.MetricFamily{Name: new(name), Help: new(help), Type: of.Enum()}
}

func label(name, value string) *dto.LabelPair {
	return &dto.LabelPair{Name: new(name), Value: new(value)}
}

func gauge(labels []*dto.LabelPair, value int) *dto.Metric {
	return &dto.Metric{Label: labels, Gauge: &dto.Gauge{Value: new(float64(value))}}
}

func quantile(q float64, value time.Duration) *dto.Quantile {
	return &dto.Quantile{Quantile: new(q), Value: new(value.Seconds())}
}
