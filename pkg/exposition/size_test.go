package exposition

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"

	"github.com/netlatency/netlatency/pkg/latency"
)

// Budgets of one answer for a thousand peers in protobuf: with them, a
// thousand agents that all probe each other cost a scheduler 60 MB a round.
const (
	budgetPeers = 1000
	budgetRaw   = 200_000
	budgetGzip  = 60_000
)

// metroWindow is the window of an agent whose peers have names of 28
// characters and latencies from three ranges, as in a metro area, with samples
// of nanosecond resolution. One peer in twenty lost something.
func metroWindow(peers int) Window {
	r := rand.New(rand.NewPCG(1, 1))
	w := Window{Node: "worker-gthost-ams-01-a7f3b9c0", Version: "v1.2.3", Now: agentNow}
	for i := range peers {
		provider := []string{"hetzner-fsn", "gthost-ams1", "neural-fra1"}[i%3]
		base := []time.Duration{200, 600, 2500}[i%3] * time.Microsecond
		above := func(d time.Duration, share float64) time.Duration {
			return d + time.Duration(r.ExpFloat64()*share*float64(base))
		}
		d := latency.Distribution{Min: above(base, 0.1), Samples: 110 + r.IntN(11), Method: "udp",
			Newest: agentNow.Add(-time.Duration(r.Int64N(int64(10 * time.Second))))}
		d.P50 = above(d.Min, 0.1)
		d.P90 = above(d.P50, 0.2)
		d.P99 = above(d.P90, 0.5)
		d.Mean = above(d.P50, 0.05)
		if i%20 == 0 {
			d.Sent, d.Lost = 720, 1+r.IntN(9)
		}
		w.Rows = append(w.Rows, Row{Peer: fmt.Sprintf("worker-%s-%09x", provider, r.Uint64()>>28), Distribution: d})
	}
	return w
}

func gzipped(tb testing.TB, b []byte) []byte {
	tb.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(b); err != nil {
		tb.Fatal(err)
	}
	if err := z.Close(); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

func TestAThousandPeersFitTheBudget(t *testing.T) {
	w := metroWindow(budgetPeers)
	if n := len(w.Rows[0].Peer); n != 28 {
		t.Fatalf("names have %d characters", n)
	}
	body := encode(t, formats["protobuf"], Families(w))
	if len(body) > budgetRaw {
		t.Errorf("%d peers take %d bytes, more than %d", budgetPeers, len(body), budgetRaw)
	}
	if n := len(gzipped(t, body)); n > budgetGzip {
		t.Errorf("%d peers take %d bytes compressed, more than %d", budgetPeers, n, budgetGzip)
	}
}

func BenchmarkEncode(b *testing.B) {
	for name, format := range formats {
		for _, peers := range []int{100, 1000} {
			b.Run(fmt.Sprintf("%s/%d", name, peers), func(b *testing.B) {
				w := metroWindow(peers)
				b.ReportAllocs()
				var body []byte
				for b.Loop() {
					var out bytes.Buffer
					e := expfmt.NewEncoder(&out, format)
					for _, f := range Families(w) {
						if err := e.Encode(f); err != nil {
							b.Fatal(err)
						}
					}
					body = out.Bytes()
				}
				b.ReportMetric(float64(len(body)), "wire-B")
				b.ReportMetric(float64(len(gzipped(b, body))), "gzip-B")
			})
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	for name, format := range formats {
		for _, peers := range []int{100, 1000} {
			b.Run(fmt.Sprintf("%s/%d", name, peers), func(b *testing.B) {
				body := encode(b, format, Families(metroWindow(peers)))
				b.ReportAllocs()
				for b.Loop() {
					if _, _, err := decode(b, format, body); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
