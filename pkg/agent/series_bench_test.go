package agent

import (
	"bytes"
	"fmt"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"github.com/netlatency/netlatency/pkg/exposition"
	"github.com/netlatency/netlatency/pkg/probe"
)

// largeCluster is the size of the largest cluster that Kubernetes supports.
const largeCluster = 5000

// BenchmarkSeries is how many series about pairs a Prometheus has of the
// agents of a cluster of 5000 nodes, counted on a page of /metrics as the agent
// encodes it and multiplied; a native histogram is one series. All of an
// agent's peers answer. Once it is with the defaults, and once without
// --max-series. A pair that lost something has one series more, and is not
// counted. The time is that of one page.
func BenchmarkSeries(b *testing.B) {
	o := DefaultOptions()
	for name, maxSeries := range map[string]int{"default": o.MaxSeries, "unlimited": maxMaxSeries} {
		b.Run(name, func(b *testing.B) {
			m := newMetrics("node-0", "v1.2.3")
			peers := make([]peer, o.MaxPeers)
			for i := range peers {
				peers[i].Node = fmt.Sprintf("node-%d", i+1)
			}
			m.Show(peers, share(maxSeries, largeCluster), func(string) {})
			for _, p := range peers {
				pair := m.Series(p.Node, []probe.Method{probe.MethodUDP})
				pair[0].Sent(false)
				pair[0].Answered(ms)
			}
			var page bytes.Buffer
			for b.Loop() {
				families, err := m.registry.Gather()
				if err != nil {
					b.Fatal(err)
				}
				page.Reset()
				encoder := expfmt.NewEncoder(&page, expfmt.NewFormat(expfmt.TypeProtoDelim))
				for _, family := range families {
					if err := encoder.Encode(family); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(largeCluster*seriesAboutPeers(b, &page)), "series")
		})
	}
}

// seriesAboutPeers counts the series of a page that have a peer.
func seriesAboutPeers(b *testing.B, page *bytes.Buffer) int {
	b.Helper()
	decoder := expfmt.NewDecoder(page, expfmt.NewFormat(expfmt.TypeProtoDelim))
	n := 0
	for page.Len() > 0 {
		var family dto.MetricFamily
		if err := decoder.Decode(&family); err != nil {
			b.Fatal(err)
		}
		for _, metric := range family.GetMetric() {
			for _, label := range metric.GetLabel() {
				if label.GetName() == exposition.LabelPeer {
					n++
				}
			}
		}
	}
	return n
}
