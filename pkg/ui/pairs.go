package ui

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/netlatency/netlatency/pkg/latency"
)

// pairs is what the heatmap may show of every pair of nodes, node by node: what
// is looked up by name takes far longer, and is done once for each snapshot. Of
// more than maxNodes there are the methods alone.
type pairs struct {
	values  [len(quantities)][]int32
	method  []int32 // place in methods
	methods []string
	basis   []latency.Basis
	// The latency, p50, p99 and loss as history remembers them.
	remembered []remembered
}

func readPairs(v *view) *pairs {
	p := &pairs{}
	known := make(map[string]bool)
	for _, d := range v.Matrix.All() {
		known[d.Method] = true
	}
	p.methods = slices.Sorted(maps.Keys(known))
	n := len(v.nodes)
	if n > maxNodes {
		return p
	}
	for k := range p.values {
		p.values[k] = slices.Repeat([]int32{none}, n*n)
	}
	p.method = slices.Repeat([]int32{none}, n*n)
	p.basis = make([]latency.Basis, n*n)
	p.remembered = make([]remembered, n*n)

	names := make([]string, 0, n)
	for i := range v.nodes {
		names = append(names, v.nodes[i].Name)
	}
	places := v.Estimates.Places(names)
	var column []latency.Estimate
	for j, peer := range names {
		column = v.Estimates.To(peer, places, column[:0])
		for i, e := range column {
			p.basis[i*n+j] = e.Basis
			if e.Basis != latency.Unknown {
				p.values[0][i*n+j] = micros(e.Latency)
				p.remembered[i*n+j].latency = code(e.Latency)
			}
		}
	}
	for pair, d := range v.Matrix.All() {
		i, ok := v.index[pair.Node]
		j, knows := v.index[pair.Peer]
		if !ok || !knows {
			continue
		}
		at := i*n + j
		for k := range quantities {
			if quantities[k].of != nil {
				p.values[k][at] = quantities[k].of(v.Snapshot, &d)
			}
		}
		p.method[at] = p.methodAt(d.Method)
		r := &p.remembered[at]
		r.p50, r.p99, r.loss = code(d.P50), code(d.P99), 1+uint16(codes*d.Loss())
	}
	return p
}

func (p *pairs) isMeasured(at int) bool { return p.method[at] != none }

func (p *pairs) methodAt(method string) int32 {
	at, _ := slices.BinarySearchFunc(p.methods, method, cmp.Compare[string])
	return int32(at)
}

// age of the newest sample. Clocks of who measured and who read may differ.
func age(s *Snapshot, d *latency.Distribution) time.Duration {
	return max(0, s.Matrix.Taken().Sub(d.Newest))
}
