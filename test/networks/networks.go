// Package networks has whole networks of which every round trip is known, to
// judge estimates by that were made from a part of them: generated ones, and
// measured ones that are read from a file.
package networks

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/netlatency/netlatency/pkg/latency"
)

// Network is the round trips between nodes.
type Network struct {
	Names []string
	// RTT is by node and peer, in seconds; 0 is not known.
	RTT [][]float64
	// Groups is the labels of the nodes, by name; empty where there are none.
	Groups map[string]latency.NodeGroup
	// Noise makes of a true round trip what one window measures of it; nil is
	// the truth itself.
	Noise func(*rand.Rand, float64) float64
}

// Sample is what a network looks like from the probes of its nodes.
type Sample struct {
	*Network
	// Probes is who measured whom, in order of nodes.
	Probes [][2]int
	// RTT is what was measured, by node and peer, in seconds; 0 is not measured.
	Measured [][]float64
}

// Sample lets every node measure probes peers drawn at random, or all that
// there are.
func (n *Network) Sample(probes int, seed uint64) *Sample {
	r := rand.New(rand.NewPCG(seed, 1))
	s := &Sample{Network: n, Measured: make([][]float64, len(n.Names))}
	for i := range n.Names {
		s.Measured[i] = make([]float64, len(n.Names))
		left := probes
		for _, j := range r.Perm(len(n.Names)) {
			if left == 0 {
				break
			}
			if i == j || n.RTT[i][j] == 0 {
				continue
			}
			rtt := n.RTT[i][j]
			if n.Noise != nil {
				rtt = n.Noise(r, rtt)
			}
			s.Measured[i][j] = rtt
			s.Probes = append(s.Probes, [2]int{i, j})
			left--
		}
	}
	return s
}

// Known reports whether a round trip between the nodes was measured, from
// either side.
func (s *Sample) Known(i, j int) bool { return s.Measured[i][j] > 0 || s.Measured[j][i] > 0 }

// Matrix is the sample as the scheduler would have it, taken at the time now.
func (s *Sample) Matrix(now time.Time) *latency.Matrix {
	observed := make(map[latency.Pair]latency.Distribution, len(s.Probes))
	for _, probe := range s.Probes {
		rtt := time.Duration(s.Measured[probe[0]][probe[1]] * float64(time.Second))
		observed[latency.Pair{Node: s.Names[probe[0]], Peer: s.Names[probe[1]]}] = latency.Distribution{
			Mean: rtt, P50: rtt, P90: rtt, P99: rtt, Min: rtt, Samples: 100, Sent: 100, Newest: now,
		}
	}
	return latency.NewMatrix(now, observed)
}

// names numbers nodes so that their order by name is their order.
func names(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("node-%05d", i)
	}
	return names
}

// square has room for n x n round trips.
func square(n int) [][]float64 {
	rows := make([][]float64, n)
	for i := range rows {
		rows[i] = make([]float64, n)
	}
	return rows
}
