package ui

import (
	"fmt"
	"testing"
	"time"

	"github.com/netlatency/netlatency/test/ui/browser"
)

// From the navigation to the first full picture, on a server that has not
// served the matrix before and in a browser that has nothing of the page.
func BenchmarkDraw(b *testing.B) {
	for _, n := range []int{12, 500} {
		b.Run(fmt.Sprintf("%dnodes", n), func(b *testing.B) {
			now := time.Now()
			s := largeCluster(n, now).snapshot(now)
			browser.Start(b)
			var sum float64
			rounds := 0
			for b.Loop() {
				// Another port, so that the browser's cache is another one too.
				p := open(b, served(b, s), width, height, false)
				p.Drawn()
				sum += browser.Value[float64](p, `performance.getEntriesByName("netlatency-drawn")[0].startTime`)
				rounds++
				p.Quiet()
				p.Close() // too many take memory, and time
			}
			b.ReportMetric(sum/float64(rounds), "drawn-ms")
		})
	}
}
