package exposition

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"github.com/netlatency/netlatency/pkg/latency"
)

// formats are the two that an agent offers, as the Content-Type names them.
var formats = map[string]expfmt.Format{
	"protobuf": expfmt.NewFormat(expfmt.TypeProtoDelim),
	"text":     expfmt.NewFormat(expfmt.TypeTextPlain),
}

var (
	// The agent's clock is two hours behind the reader's.
	agentNow  = time.Unix(1_790_000_000, 123_456_789)
	readerNow = agentNow.Add(2 * time.Hour)
)

// measured is a believable distribution, newest 4 s before the window.
func measured() latency.Distribution {
	return latency.Distribution{
		Min: 500 * time.Microsecond, P50: 620 * time.Microsecond, P90: 900 * time.Microsecond, P99: 2 * time.Millisecond,
		Mean: 650 * time.Microsecond, Samples: 120, Newest: agentNow.Add(-4 * time.Second), Method: "udp",
	}
}

// rowTo is a believable row to peer, changed by edits.
func rowTo(peer string, edits ...func(*Row)) Row {
	row := Row{Peer: peer, Distribution: measured()}
	for _, edit := range edits {
		edit(&row)
	}
	return row
}

func windowOf(rows ...Row) Window {
	return Window{Node: "node-a", Version: "v1.2.3", Now: agentNow, Rows: rows}
}

func encode(tb testing.TB, format expfmt.Format, families []*dto.MetricFamily) []byte {
	tb.Helper()
	var b bytes.Buffer
	e := expfmt.NewEncoder(&b, format)
	for _, f := range families {
		if err := e.Encode(f); err != nil {
			tb.Fatalf("encode %s as %s: %v", f.GetName(), format, err)
		}
	}
	return b.Bytes()
}

func decode(tb testing.TB, format expfmt.Format, body []byte) (Window, Dropped, error) {
	tb.Helper()
	return Decode(bytes.NewReader(body), string(format), Limits{}, readerNow)
}

// randomRow is any row that an agent could have measured.
func randomRow(r *rand.Rand, peer string) Row {
	ascending := func(from time.Duration) time.Duration {
		return from + time.Duration(r.Int64N(int64(latency.MaxRTT-from)+1))>>r.UintN(24)
	}
	var d latency.Distribution
	d.Min = ascending(0)
	d.P50 = ascending(d.Min)
	d.P90 = ascending(d.P50)
	d.P99 = ascending(d.P90)
	d.Mean = ascending(d.Min)
	d.Samples = 1 + r.IntN(10_000)
	if r.IntN(3) == 0 {
		d.Lost = 1 + r.IntN(100)
		d.Sent = d.Lost + r.IntN(10_000)
	}
	d.Newest = agentNow.Add(-time.Duration(r.Int64N(int64(10 * time.Minute))))
	d.Method = []string{"udp", "icmp", "tcp"}[r.IntN(3)]
	return Row{Peer: peer, Distribution: d}
}

func randomWindow(r *rand.Rand, rows int) Window {
	w := windowOf()
	for i := range rows {
		w.Rows = append(w.Rows, randomRow(r, fmt.Sprintf("node-%05d", i)))
	}
	return w
}
