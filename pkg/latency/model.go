package latency

import (
	"math"
	"slices"
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
}

// grouping is a division of the nodes, with what follows from it for a pair.
type grouping struct {
	of    []int32
	count int
	block []block // count x count
}

type block struct {
	latency float64 // NaN where nothing is known
	spread  float64 // standard deviation of a pair from latency, as a share of it
}

const (
	// enoughLinks is about how many links of a node are made use of, drawn at
	// random where there are more, and searchLinks how many in the whole
	// cluster are to find groups from. They bound the time for large clusters.
	enoughLinks = 128
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

// newModel fits a model to l; it is nil if nothing was measured.
func newModel(l *links, groups map[string]NodeGroup) *model {
	if len(l.both.peer) == 0 {
		return nil
	}
	hash := hashes(l.names)
	draw := func(i, j int32) uint64 { return mix(hash[i] ^ hash[j]) } // the same both ways
	isHeld := func(i, j int32) bool { return draw(i, j)%heldShare == 0 }
	degree := func(i int32) float64 { from, to := l.both.row(i); return float64(to - from) }
	upTo := func(links float64) func(i, j int32) bool {
		return func(i, j int32) bool { return unit(mix(draw(i, j)))*min(degree(i), degree(j)) < links }
	}
	all := l.both.filtered(upTo(enoughLinks))
	held := all.filtered(isHeld)

	levels, hasPool := labelled(l, groups)
	if hasPool && levels[0].ofPool(&held) < leastHeld {
		for _, level := range levels {
			level.dissolvePool()
		}
		hasPool = false
		grouped := func(i, j int32) bool { return levels[0].of[i] >= 0 && levels[0].of[j] >= 0 }
		all, held = all.filtered(grouped), held.filtered(grouped)
		if len(all.peer) == 0 {
			return nil
		}
	}
	known := all.filtered(func(i, j int32) bool { return !isHeld(i, j) })
	var groupings [][]level
	var fitted []*blocks
	if hasPool {
		known = known.filtered(upTo(searchLinks / float64(len(l.names))))
		s := newSearch(&known, &held, hash)
		for seed := range uint64(foundGroupings) {
			found, b := s.find(levels, seed)
			groupings, fitted = append(groupings, found), append(fitted, b)
		}
	} else {
		groupings, fitted = append(groupings, levels), append(fitted, fitBlocks(&known, levels))
	}

	bar := fitModel(&known, fitted).errorBar(&held)
	for at, levels := range groupings {
		fitted[at] = fitBlocks(&all, levels)
	}
	m := fitModel(&all, fitted)
	m.bar = bar
	return m
}

// foresee is the latency between two nodes by their groups alone, NaN where
// it is not known, and its spread, as a share.
func (m *model) foresee(i, j int32) (latency, spread float64) {
	for at := range m.groupings {
		g := &m.groupings[at]
		a, c := g.of[i], g.of[j]
		if a < 0 || c < 0 {
			return math.NaN(), 0
		}
		b := &g.block[int(a)*g.count+int(c)]
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
func (m *model) errorBar(held *adjacency) float64 {
	var missed []float64
	for i := range int32(len(held.start) - 1) {
		from, to := held.row(i)
		for at := from; at < to; at++ {
			j := held.peer[at]
			if latency, deviation, ok := m.estimate(i, j); ok && i < j && deviation > 0 {
				missed = append(missed, math.Abs(math.Exp(held.value[at])-latency)/deviation)
			}
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
func fitModel(l *adjacency, groupings []*blocks) *model {
	m := &model{least: math.Inf(1)}
	for _, b := range groupings {
		g := grouping{of: b.of, count: b.count, block: make([]block, len(b.value))}
		for place, v := range b.value {
			g.block[place].latency = math.Exp(v)
		}
		m.groupings = append(m.groupings, g)
	}
	f := fit{model: m, links: l, measured: make([]float64, len(l.value)), foreseen: make([]float64, len(l.value))}
	nodes := len(l.start) - 1
	m.offset, m.variance = make([]float64, nodes), make([]float64, nodes)
	for i := range int32(nodes) {
		from, to := l.row(i)
		for at := from; at < to; at++ {
			f.measured[at] = math.Exp(l.value[at])
			f.foreseen[at], _ = m.foresee(i, l.peer[at])
			m.least = math.Min(m.least, f.measured[at])
		}
	}
	f.spreads()
	f.offsets()
	f.spreads()
	return m
}

// fit is a model that is being fitted. measured and foreseen are by place in
// links, in nanoseconds.
type fit struct {
	*model
	links              *adjacency
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
	size := make([]float64, len(f.measured)) // of residuals
	for i := range int32(len(f.offset)) {
		from, to := f.links.row(i)
		for at := from; at < to; at++ {
			foreseen := f.foreseen[at] + f.offset[i] + f.offset[f.links.peer[at]]
			size[at] = math.Abs(f.measured[at]-foreseen) / f.foreseen[at]
		}
	}
	all := priorOfPrior
	if n := float64(len(size)) / 2; n > 0 {
		all = (n*median(slices.Clone(size)) + prior*priorOfPrior) / (n + prior)
	}
	// A mean absolute deviation is √(2/π) standard deviations of a normal
	// distribution. What is beyond three medians counts as that much.
	toDeviation := math.Sqrt(math.Pi / 2)
	for at := range f.groupings {
		g := &f.groupings[at]
		sum, n := make([]float64, len(g.block)), make([]int32, len(g.block))
		for i, group := range g.of {
			from, to := f.links.row(int32(i))
			for at := from; at < to; at++ {
				place := int(group)*g.count + int(g.of[f.links.peer[at]])
				sum[place] += min(size[at], 3*all)
				n[place]++
			}
		}
		for place := range g.block {
			g.block[place].spread = toDeviation * (sum[place] + prior*all) / (float64(n[place]) + prior)
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
	weight, three := make([]float64, len(f.measured)), make([]float64, len(f.measured))
	for i := range int32(len(f.offset)) {
		from, to := f.links.row(i)
		for at := from; at < to; at++ {
			_, spread := f.foresee(i, f.links.peer[at])
			deviation := max(spread*f.foreseen[at], 1)
			weight[at], three[at] = 1/(deviation*deviation), 3*deviation
		}
	}
	among := math.Inf(1) // variance among nodes; at first nothing is held against an offset
	for range iterations {
		var sum, n float64
		for i := range int32(len(f.offset)) {
			from, to := f.links.row(i)
			if from == to {
				continue
			}
			own := f.offset[i]
			var weights, residuals float64
			for at := from; at < to; at++ {
				residual := f.measured[at] - f.foreseen[at] - f.offset[f.links.peer[at]]
				residuals += weight[at] * (own + clamp(residual-own, three[at]))
				weights += weight[at]
			}
			f.variance[i] = 1 / (weights + 1/among)
			f.offset[i] = residuals * f.variance[i]
			sum += f.offset[i]*f.offset[i] + f.variance[i]
			n++
		}
		among = sum / n
	}
	// A node without links may have any of the offsets.
	for i := range int32(len(f.offset)) {
		if from, to := f.links.row(i); from == to {
			f.variance[i] = among
		}
	}
}
