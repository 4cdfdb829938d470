package latency

import (
	"math"
	"slices"
	"time"
)

// model foresees the latency of pairs that were not measured:
//
//	latency(i, j) = block(group of i, group of j) + offset of i + offset of j
//
// in nanoseconds, where the block is the mean over several groupings if groups
// were found.
type model struct {
	groupings []grouping
	offset    []float64 // by node
	variance  []float64 // by node: of its offset
	least     float64   // of all latencies measured
	bar       float64   // standard deviations that hold nine errors of ten
	found     *found    // groups of nodes without labels; nil if there are none
}

// grouping is a division of the nodes, with what follows from it for a pair.
type grouping struct {
	of    []int32
	count int
	block []block // count x count
}

// place is that of the block of two nodes.
func (g *grouping) place(i, j int32) int {
	a, c := g.of[i], g.of[j]
	return int(min(a, c))*g.count + int(max(a, c))
}

type block struct {
	latency float64 // NaN where nothing is known
	spread  float64 // standard deviation of a pair from latency, as a share of it
}

const (
	// enoughLinks is about how many links of a node are made use of, drawn at
	// random where there are more, fitLinks how many in the whole cluster, and
	// searchLinks how many of these to find groups and error bars from. They
	// bound the time for large clusters.
	enoughLinks = 128
	fitLinks    = 320_000
	searchLinks = 150_000
	// heldShare: one pair in eight is held back from finding groups, and from
	// the first fit, whose errors on these pairs are what error bars rest on.
	heldShare = 8
	// leastHeld is how many pairs of nodes without labels must have been held
	// back before groups are found for these: with fewer it cannot be told
	// whether a group is one. Where there are so few pairs, a cluster is small
	// enough for its nodes to measure each other all.
	leastHeld = 32
	// normalBar is the error bar where too few pairs were held back to tell:
	// nine of ten values of a normal distribution are this close to its mean.
	normalBar = 1.645
)

// newModel fits a model to l; it is nil if nothing was measured. Groups that
// were found before are kept while they hold; before may be nil.
func newModel(l *links, groups map[string]NodeGroup, before *found, now time.Time) *model {
	hash := hashes(l.names)
	degree := l.degrees()
	levels, hasPool := labelled(l.names, degree, groups)
	d := l.draw(hash, degree)
	if hasPool && levels[0].ofPool(d.held) < leastHeld {
		for _, level := range levels {
			level.dissolvePool()
		}
		hasPool = false
		d = d.within(&levels[0])
	}
	if len(d.all) == 0 {
		return nil
	}
	var groupings [][]level
	var fitted []*blocks
	var kept *found
	if hasPool {
		var holds bool
		kept = before
		if fitted, holds = kept.holdFor(d, levels, now); !holds {
			kept, fitted = d.find(levels, hash, now)
		}
		groupings = kept.groupings
	} else {
		groupings, fitted = [][]level{levels}, []*blocks{fitBlocks(d.known, levels, true)}
	}

	nodes := len(l.names)
	bar := fitModel(d.known, nodes, fitted).errorBar(d.held)
	for at, levels := range groupings {
		fitted[at] = fitBlocks(d.all, levels, true)
	}
	m := fitModel(d.all, nodes, fitted)
	m.bar, m.found = bar, kept
	return m
}

// drawn is the pairs that a model is made of: all of them, those that groups
// and error bars are found from, and those that were held back from that.
type drawn struct{ all, known, held []pair }

// draw chooses pairs at random, but the same ones of the same nodes always.
func (l *links) draw(hash []uint64, degree []int32) *drawn {
	nodes := float64(len(l.names))
	enough, few := min(enoughLinks, fitLinks/nodes), min(enoughLinks, searchLinks/nodes)
	expected := 0
	for _, links := range degree {
		expected += min(int(links), int(enough))
	}
	d := &drawn{all: make([]pair, 0, expected*5/8)} // half, and then some
	l.all(func(i, j int32, there, back float64) {
		h := mix(hash[i] ^ hash[j])
		// A pair is one of the first n links of its nodes where this is below n.
		rank := unit(mix(h)) * float64(min(degree[i], degree[j]))
		if rank >= enough {
			return
		}
		p := pair{i, j, meanLogarithm(there, back)}
		d.all = append(d.all, p)
		switch {
		case h%heldShare == 0:
			d.held = append(d.held, p)
		case rank < few:
			d.known = append(d.known, p)
		}
	})
	return d
}

// within leaves the pairs both of whose nodes are in a group.
func (d *drawn) within(v *level) *drawn {
	outside := func(p pair) bool { return v.of[p.i] < 0 || v.of[p.j] < 0 }
	return &drawn{slices.DeleteFunc(d.all, outside), slices.DeleteFunc(d.known, outside), slices.DeleteFunc(d.held, outside)}
}

// foresee is the latency between two nodes by their groups alone, NaN where
// it is not known, and its spread, as a share.
func (m *model) foresee(i, j int32) (latency, spread float64) {
	for at := range m.groupings {
		g := &m.groupings[at]
		if g.of[i] < 0 || g.of[j] < 0 {
			return math.NaN(), 0
		}
		b := &g.block[g.place(i, j)]
		latency += b.latency
		spread += b.spread
	}
	n := float64(len(m.groupings))
	return latency / n, spread / n
}

// estimate is what the model says of a pair that was not measured: its latency
// and the standard deviation of it, both in nanoseconds.
func (m *model) estimate(i, j int32) (latency, deviation float64, ok bool) {
	base, spread := m.foresee(i, j)
	if math.IsNaN(base) {
		return 0, 0, false
	}
	deviation = math.Sqrt(spread*spread*base*base + m.variance[i] + m.variance[j])
	// Two nodes with small offsets may come out below anything that there is.
	return math.Max(base+m.offset[i]+m.offset[j], m.least), deviation, true
}

// errorBar is by how many standard deviations nine in ten of the pairs in held
// are missed at most: split conformal prediction (Lei, G'Sell, Rinaldo,
// Tibshirani, Wasserman, "Distribution-free predictive inference for
// regression", JASA 113, 2018), which holds whatever errors are like.
func (m *model) errorBar(held []pair) float64 {
	var missed []float64
	for _, p := range held {
		if latency, deviation, ok := m.estimate(p.i, p.j); ok && deviation > 0 {
			missed = append(missed, math.Abs(math.Exp(p.latency)-latency)/deviation)
		}
	}
	rank := int(math.Ceil(0.9 * float64(len(missed)+1)))
	if rank > len(missed) {
		return normalBar
	}
	return nth(missed, rank-1)
}

// fitModel adds to the blocks of each grouping their spreads, and the offsets
// of the nodes.
func fitModel(pairs []pair, nodes int, groupings []*blocks) *model {
	m := &model{least: math.Inf(1), offset: make([]float64, nodes), variance: make([]float64, nodes)}
	for _, b := range groupings {
		g := grouping{of: b.of, count: b.count, block: make([]block, len(b.value))}
		for place, v := range b.value {
			g.block[place].latency = math.Exp(v)
		}
		m.groupings = append(m.groupings, g)
	}
	f := fit{model: m, pairs: pairs, measured: make([]float64, len(pairs)), foreseen: make([]float64, len(pairs))}
	for at, p := range pairs {
		f.measured[at] = math.Exp(p.latency)
		f.foreseen[at], _ = m.foresee(p.i, p.j)
		m.least = math.Min(m.least, f.measured[at])
	}
	f.spreads()
	f.offsets()
	f.spreads()
	return m
}

// fit is a model that is being fitted. measured and foreseen are of pairs, in
// nanoseconds.
type fit struct {
	*model
	pairs              []pair
	measured, foreseen []float64
}

// spreads sets how far pairs are from their blocks, offsets taken off. A
// spread of few pairs is hardly known: it is drawn toward that of all pairs as
// if four more pairs had that, and that of all toward a half.
func (f *fit) spreads() {
	const (
		prior        = 4
		priorOfPrior = 0.5
	)
	size := make([]float64, len(f.pairs)) // of residuals
	for at, p := range f.pairs {
		foreseen := f.foreseen[at] + f.offset[p.i] + f.offset[p.j]
		size[at] = math.Abs(f.measured[at]-foreseen) / f.foreseen[at]
	}
	all := priorOfPrior
	if n := float64(len(size)); n > 0 {
		all = (n*median(slices.Clone(size)) + prior*priorOfPrior) / (n + prior)
	}
	// A mean absolute deviation is √(2/π) standard deviations of a normal
	// distribution. What is beyond three medians counts as that much.
	toDeviation := math.Sqrt(math.Pi / 2)
	for at := range f.groupings {
		g := &f.groupings[at]
		sum, n := make([]float64, len(g.block)), make([]int32, len(g.block))
		for at, p := range f.pairs {
			place := g.place(p.i, p.j)
			sum[place] += min(size[at], 3*all)
			n[place]++
		}
		for a := range g.count {
			for c := a; c < g.count; c++ {
				place, mirrored := a*g.count+c, c*g.count+a
				spread := toDeviation * (sum[place] + prior*all) / (float64(n[place]) + prior)
				g.block[place].spread, g.block[mirrored].spread = spread, spread
			}
		}
	}
}

// offsets sets by how much the nodes' own paths differ from those of their
// groups, as random effects: each pair weighs by the spread of its block, and
// an offset is drawn toward 0 as much as the offsets of all nodes suggest, so
// that a node with few pairs, or in a noisy block, gets next to none
// (Henderson, "Best linear unbiased estimation and prediction under a
// selection model", Biometrics 31, 1975; the variance is found by the EM
// algorithm). What is beyond three deviations from the offset so far counts as
// that much.
func (f *fit) offsets() {
	const iterations = 8
	residuals := rowsOf(f.pairs, len(f.offset), func(at int) (residual float64, deviation float32) {
		_, spread := f.foresee(f.pairs[at].i, f.pairs[at].j)
		return f.measured[at] - f.foreseen[at], float32(max(spread*f.foreseen[at], 1))
	})
	among := math.Inf(1) // variance among nodes; at first nothing is held against an offset
	for range iterations {
		var sum, n float64
		for i := range f.offset {
			row := residuals.row(int32(i))
			if len(row) == 0 {
				continue
			}
			own := f.offset[i]
			var weights, weighted float64
			for _, k := range row {
				deviation := float64(k.error)
				weight := 1 / (deviation * deviation)
				weighted += weight * (own + clamp(k.value-f.offset[k.peer]-own, 3*deviation))
				weights += weight
			}
			f.variance[i] = 1 / (weights + 1/among)
			f.offset[i] = weighted * f.variance[i]
			sum += f.offset[i]*f.offset[i] + f.variance[i]
			n++
		}
		among = sum / n
	}
	// A node without links may have any of the offsets.
	for i := range f.offset {
		if len(residuals.row(int32(i))) == 0 {
			f.variance[i] = among
		}
	}
}
