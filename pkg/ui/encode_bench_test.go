package ui

import (
	"fmt"
	"testing"
	"time"

	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/test/networks"
)

// metro is a cluster of n nodes of which each has measured probes others.
func metro(n, probes int) *Snapshot {
	now := time.Now()
	network := networks.Metro(n, 1)
	m := network.Sample(probes, 1).Matrix(now)
	s := &Snapshot{
		Taken: now, Interval: 10 * time.Second, Matrix: m, Statistic: latency.DefaultStatistic(), StaleAfter: time.Minute,
		Estimates: latency.NewEstimator(m, latency.DefaultStatistic(), time.Minute, network.Groups, now),
	}
	for _, name := range network.Names {
		s.Nodes = append(s.Nodes, Node{Name: name, Group: network.Groups[name], Agent: Agent{State: AgentAnswered, Answered: now}})
	}
	return s
}

// What the server does for the first page that sees a new matrix, and for what
// it remembers of each.
func BenchmarkServing(b *testing.B) {
	for _, probes := range []int{499, 128} {
		s := metro(500, probes)
		b.Run(fmt.Sprintf("matrix/500nodes/%dpeers", probes), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				v := newView(s, "1", newHistory())
				b.StartTimer()
				b.ReportMetric(float64(len(v.matrices["latency"]())), "gzip-B")
			}
		})
		b.Run(fmt.Sprintf("publish/500nodes/%dpeers", probes), func(b *testing.B) {
			for b.Loop() {
				newHistory().add(newView(s, "1", newHistory()))
			}
		})
	}
}
