package wan

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/netlatency/netlatency/test/sandbox/namespace"
)

func init() {
	namespace.Role("busy", func() int {
		for busy := 0; ; busy++ {
			_ = busy
		}
	})
}

// BenchmarkAccuracy holds the round trips that a prober with kernel stamps
// measures between 12 nodes, 0.2 to 8 ms apart, against what the log says of the
// same packets (error), and the log against the delays asked for (late), on an
// idle machine and with two busy processes for each core. The sandbox needs an
// error of at most 30 µs at p50 and 100 µs at p99.
func BenchmarkAccuracy(b *testing.B) {
	for name, busy := range map[string]int{"idle": 0, "busy": 2 * runtime.NumCPU()} {
		b.Run(name, func(b *testing.B) {
			for range busy {
				cmd := namespace.Command("busy")
				if err := cmd.Start(); err != nil {
					b.Fatal(err)
				}
				b.Cleanup(func() {
					_ = cmd.Process.Kill()
					_ = cmd.Wait()
				})
			}
			nodes := newNodes(b, 12)
			var links []Link
			for i, from := range nodes {
				for j, to := range nodes {
					if i != j {
						links = append(links, Link{From: from.Name, To: to.Name, Delay: Delay{Base: oneWay(i, j)}})
					}
				}
			}
			log := filepath.Join(b.TempDir(), "wan.log")
			w := startWAN(b, Options{Nodes: nodes, Links: links, LogPath: log})
			p := newTestProber(b, nodes)
			b.ResetTimer()
			for i := range b.N {
				from := i % len(nodes)
				to := (from + 1 + rand.IntN(len(nodes)-1)) % len(nodes)
				if err := p.ask(from, to, uint32(i)); err != nil {
					b.Fatal(err)
				}
				time.Sleep(2 * time.Millisecond) // 1000 packets a second, both ways together
			}
			b.StopTimer()
			time.Sleep(100 * time.Millisecond) // for the last answers; those that take longer are left out

			truth := map[exchange]time.Duration{}
			var late []time.Duration
			for _, r := range closeAndRead(b, w, log) {
				held := time.Duration(r.Released - r.Received)
				truth[exchange{r.Session, r.Seq}] += held
				late = append(late, time.Duration(r.Released-r.Due))
			}
			var errors []time.Duration
			for e, trip := range p.measured() {
				errors = append(errors, trip-truth[e])
			}
			report(b, errors, "error")
			report(b, late, "late")
		})
	}
}

func report(b *testing.B, durations []time.Duration, name string) {
	b.Helper()
	slices.Sort(durations)
	for _, q := range []struct {
		name     string
		quantile float64
	}{{"p50", .5}, {"p99", .99}, {"p99.9", .999}} {
		d := durations[int(q.quantile*float64(len(durations)-1))]
		b.ReportMetric(float64(d)/float64(time.Microsecond), fmt.Sprintf("%s-%s-µs", name, q.name))
	}
}

// oneWay is the delay between nodes of a metro area: three providers of four nodes.
func oneWay(i, j int) time.Duration {
	switch a, b := i/4, j/4; {
	case a == b:
		return 100 * time.Microsecond
	case a+b == 1:
		return 250 * time.Microsecond
	case a+b == 2:
		return 1250 * time.Microsecond
	default:
		return 4 * time.Millisecond
	}
}
