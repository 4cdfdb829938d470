package networks

import (
	"fmt"
	"math/rand/v2"

	"github.com/netlatency/netlatency/pkg/latency"
)

const microsecond = 1e-6

// The shape of Metro: three providers in one metropolitan area.
const (
	zonesPerProvider = 10
	// withinZone is about one rack.
	withinZone = 40 * microsecond
	// Zones of one provider are from nearProvider to farProvider apart.
	nearProvider, farProvider = 120 * microsecond, 200 * microsecond
	// pathSpread is by how much, up or down, a pair's path is longer than that
	// of the next pair of the same zones, as ECMP makes it. It is the pair's
	// own: nothing but a probe of that pair can tell it.
	pathSpread = 0.08
	// Of noise has a measured mean 2 %, and in one window of a hundred a spike.
	noise, spikes = 0.02, 0.01
)

// betweenProviders violates the triangle inequality: from the second to the
// third by way of the first takes 1.1 ms instead of 1.8. That is what a bad
// peering does.
var betweenProviders = [3][3]float64{
	{0, 500 * microsecond, 600 * microsecond},
	{500 * microsecond, 0, 1800 * microsecond},
	{600 * microsecond, 1800 * microsecond, 0},
}

// access is the mean delay between a node and its zone, by provider.
var access = [3]float64{10 * microsecond, 15 * microsecond, 25 * microsecond}

// Metro generates a cluster of n nodes in three providers of one metropolitan
// area, all labelled. The distances are of real ones; see docs/decisions.md.
func Metro(n int, seed uint64) *Network {
	r := rand.New(rand.NewPCG(seed, 2))
	m := &Network{Names: names(n), RTT: square(n), Groups: make(map[string]latency.NodeGroup, n)}
	provider, zone, delay := make([]int, n), make([]int, n), make([]float64, n)
	for i, name := range m.Names {
		provider[i] = i % 3
		zone[i] = r.IntN(zonesPerProvider)
		delay[i] = r.ExpFloat64() * access[provider[i]]
		m.Groups[name] = latency.NodeGroup{
			Provider: fmt.Sprintf("provider-%d", provider[i]),
			Region:   "metro",
			Zone:     fmt.Sprintf("zone-%d", zone[i]), // the same names at each provider
		}
	}
	zones := square(3 * zonesPerProvider)
	for a := range zones {
		for b := range a {
			base := betweenProviders[a/zonesPerProvider][b/zonesPerProvider]
			if base == 0 {
				base = nearProvider + r.Float64()*(farProvider-nearProvider)
			}
			zones[a][b], zones[b][a] = base, base
		}
		zones[a][a] = withinZone
	}
	for i := range n {
		for j := range i {
			base := zones[provider[i]*zonesPerProvider+zone[i]][provider[j]*zonesPerProvider+zone[j]]
			rtt := base*(1+pathSpread*(2*r.Float64()-1)) + delay[i] + delay[j]
			m.RTT[i][j], m.RTT[j][i] = rtt, rtt
		}
	}
	m.Noise = func(r *rand.Rand, rtt float64) float64 {
		rtt *= 1 + noise*max(-3, min(3, r.NormFloat64()))
		if r.Float64() < spikes {
			rtt *= 1 + 5*r.ExpFloat64()
		}
		return rtt
	}
	return m
}

// Unlabelled is n without the labels of the share of its nodes, at random.
func (n *Network) Unlabelled(share float64, seed uint64) *Network {
	r := rand.New(rand.NewPCG(seed, 3))
	bare := *n
	bare.Groups = make(map[string]latency.NodeGroup)
	for _, name := range n.Names {
		if r.Float64() >= share {
			bare.Groups[name] = n.Groups[name]
		}
	}
	return &bare
}
