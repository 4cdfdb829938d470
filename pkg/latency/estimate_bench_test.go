package latency_test

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/netlatency/netlatency/pkg/latency"
)

// cluster is nodes of which each measures peers of the others, drawn at
// random, in providers with zones; bare leaves out the labels.
func cluster(nodes, peers int, bare bool) (*latency.Matrix, map[string]latency.NodeGroup, []string) {
	r := rand.New(rand.NewPCG(1, 1))
	names := make([]string, nodes)
	groups := make(map[string]latency.NodeGroup)
	for i := range names {
		names[i] = fmt.Sprintf("node-%04d.example.internal", i)
		if !bare {
			groups[names[i]] = latency.NodeGroup{Provider: fmt.Sprint("p", i%3), Zone: fmt.Sprint("z", i%30)}
		}
	}
	now := time.Unix(1000, 0)
	observed := make(map[latency.Pair]latency.Distribution)
	for i, name := range names {
		for range peers {
			j := r.IntN(nodes)
			rtt := 100 * time.Microsecond
			if i%30 != j%30 {
				rtt = 200 * time.Microsecond
			}
			if i%3 != j%3 {
				rtt = time.Duration(1+(i%3+j%3)) * time.Millisecond / 2
			}
			d := steady(time.Duration(float64(rtt)*(0.9+0.2*r.Float64())), 100)
			d.Newest = now
			observed[latency.Pair{Node: name, Peer: names[j]}] = d
		}
	}
	return latency.NewMatrix(now, observed), groups, names
}

// BenchmarkNewEstimator is what the first matrix costs.
func BenchmarkNewEstimator(b *testing.B) { benchmarkEstimator(b, false) }

// BenchmarkNextEstimator is what each further matrix costs.
func BenchmarkNextEstimator(b *testing.B) { benchmarkEstimator(b, true) }

func benchmarkEstimator(b *testing.B, next bool) {
	b.Helper()
	for _, bare := range []bool{false, true} {
		for _, nodes := range []int{600, 5000} {
			m, groups, names := cluster(nodes, 150, bare)
			unmeasured := names[1:]
			for _, measured := m.Measured(names[0], unmeasured[0]); measured; _, measured = m.Measured(names[0], unmeasured[0]) {
				unmeasured = unmeasured[1:]
			}
			b.Run(fmt.Sprintf("%dnodes/labels=%t", nodes, !bare), func(b *testing.B) {
				b.ReportAllocs()
				var e *latency.Estimator
				if next {
					e = latency.NewEstimator(m, latency.DefaultStatistic(), 0, groups, time.Unix(1000, 0))
				}
				before := processorTime(b)
				for b.Loop() {
					e.Next(m, latency.DefaultStatistic(), 0, groups, time.Unix(1000, 0)).Estimate(names[0], unmeasured[0])
				}
				b.ReportMetric((processorTime(b)-before).Seconds()/float64(b.N), "cpu-s/op")
			})
		}
	}
}

// processorTime is what this process has taken so far, the garbage collector
// included.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
