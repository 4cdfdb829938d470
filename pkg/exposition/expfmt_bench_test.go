package exposition

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// BenchmarkDecodeByExpfmt is what BenchmarkDecode is measured against: the same
// answers, decoded by expfmt into families. No Window is made of them yet, so
// it has less to do.
func BenchmarkDecodeByExpfmt(b *testing.B) {
	for name, format := range formats {
		for _, peers := range []int{100, 1000} {
			b.Run(fmt.Sprintf("%s/%d", name, peers), func(b *testing.B) {
				body := encode(b, format, Families(metroWindow(peers)))
				b.ReportAllocs()
				for b.Loop() {
					d := expfmt.NewDecoder(bytes.NewReader(body), format)
					series := 0
					for {
						var family dto.MetricFamily
						err := d.Decode(&family)
						if errors.Is(err, io.EOF) {
							break
						}
						if err != nil {
							b.Fatal(err)
						}
						series += len(family.GetMetric())
					}
					if series < peers {
						b.Fatalf("%d series of %d peers", series, peers)
					}
				}
			})
		}
	}
}
