package latency

import (
	"cmp"
	"math"
	"slices"
)

const (
	// foundGroupings is how many times groups are found, each time from
	// another start; estimates are the mean over them. Where the network has
	// no sharp groups, or too little was measured to see them, the borders
	// between groups are accidents, and a mean over several accidents is
	// nearer to the truth (Breiman, "Bagging predictors", Machine Learning 24,
	// 1996). It pays little beyond four.
	foundGroupings = 4
	// leastGain is the share of its error on the pairs held back by which a
	// further division must be better, or it is not worth its time.
	leastGain = 0.01
	// smallestSplit is the smallest group that is divided further.
	smallestSplit = 4
	// nearGroups is to how many of the groups nearest to its own a node may
	// move. Farther ones are never better.
	nearGroups = 8
)

// search finds groups in what was measured.
type search struct {
	links *adjacency // what groups are found from
	held  *adjacency // what tells whether they help; it has no part in finding
	hash  []uint64
	// Scratch space: by node, by node, by link.
	u, v, residual []float64
	movable        []bool // by node: it has no labels
}

func newSearch(links, held *adjacency, hash []uint64) *search {
	return &search{
		links: links, held: held, hash: hash,
		u: make([]float64, len(hash)), v: make([]float64, len(hash)), residual: make([]float64, len(links.value)), movable: make([]bool, len(hash)),
	}
}

// find divides pool, which is in the last of levels, and what comes of it, in
// two over and over, and returns levels with the new ones and the blocks of the
// last. It stops when the groups foresee the pairs that were held back no
// better. Labelled groups are not divided: labels know best.
func (s *search) find(levels []level, seed uint64) ([]level, *blocks) {
	levels = slices.Clone(levels)
	b := fitBlocks(s.links, levels)
	b.found = make([]bool, b.count)
	b.found[pool] = true
	for i, group := range b.of {
		s.movable[i] = group == pool
	}
	if b.count > 1 {
		// Nodes without labels may be in places that labels of others name.
		same := b.level
		same.parent = make([]int32, b.count)
		for group := range same.parent {
			same.parent[group] = int32(group)
		}
		same, b = s.settle(b, same, b.count)
		levels = append(levels, same)
	}
	best, kept, fitted := s.heldError(b), len(levels), b
	for {
		next, ok := s.divide(b, seed)
		if !ok || next.count > maxGroups {
			break
		}
		next, b = s.settle(b, next, nearGroups)
		levels = append(levels, next)
		missed := s.heldError(b)
		if missed > best*(1-leastGain) {
			break
		}
		best, kept, fitted = missed, len(levels), b
	}
	return levels[:kept], fitted
}

// heldError is the sum of errors, as logarithms, on what was held back. A factor
// of e is as bad as it gets: beyond it, it matters no more how wrong.
func (s *search) heldError(b *blocks) float64 {
	var sum float64
	for i := range b.of {
		from, to := s.held.row(int32(i))
		for at := from; at < to; at++ {
			sum += math.Min(1, math.Abs(b.residual(int32(i), s.held.peer[at], s.held.value[at])))
		}
	}
	return sum
}

// divide splits each found group in two, by the sign of its nodes in the
// leading singular vector of what the blocks leave unexplained (Boley,
// "Principal direction divisive partitioning", Data Mining and Knowledge
// Discovery 2, 1998). ok is false if there was nothing to split.
func (s *search) divide(b *blocks, seed uint64) (next level, ok bool) {
	next.of = slices.Repeat([]int32{-1}, len(b.of))
	members := make([][]int32, b.count)
	for i, group := range b.of {
		if group >= 0 {
			members[group] = append(members[group], int32(i))
		}
	}
	add := func(parent int, nodes []int32) {
		for _, i := range nodes {
			next.of[i] = int32(next.count)
		}
		next.parent = append(next.parent, int32(parent))
		next.found = append(next.found, b.found[parent])
		next.count++
	}
	clip := b.clip(s.links, &b.level)
	for group, nodes := range members {
		if b.found[group] && len(nodes) >= smallestSplit {
			s.principal(b, nodes, clip, seed)
			low, high := []int32(nil), []int32(nil)
			for _, i := range nodes {
				if s.u[i] < 0 {
					low = append(low, i)
				} else {
					high = append(high, i)
				}
			}
			if len(low) > 0 && len(high) > 0 {
				add(group, low)
				add(group, high)
				ok = true
				continue
			}
		}
		add(group, nodes)
	}
	return next, ok
}

// principal brings s.u near the leading left singular vector of the residuals
// of nodes, by power iteration. Near is enough: nodes settle afterwards.
func (s *search) principal(b *blocks, nodes []int32, clip float64, seed uint64) {
	const iterations = 6
	for _, i := range nodes {
		s.u[i] = 2*unit(mix(s.hash[i]+seed)) - 1
		from, to := s.links.row(i)
		for at := from; at < to; at++ {
			s.residual[at] = clamp(b.residual(i, s.links.peer[at], s.links.value[at]), clip)
		}
	}
	for range iterations {
		for _, i := range nodes {
			from, to := s.links.row(i)
			for _, j := range s.links.peer[from:to] {
				s.v[j] = 0
			}
		}
		for _, i := range nodes {
			from, to := s.links.row(i)
			for at := from; at < to; at++ {
				s.v[s.links.peer[at]] += s.residual[at] * s.u[i]
			}
		}
		var norm float64
		for _, i := range nodes {
			from, to := s.links.row(i)
			var sum float64
			for at := from; at < to; at++ {
				sum += s.residual[at] * s.v[s.links.peer[at]]
			}
			s.u[i] = sum
			norm += sum * sum
		}
		if norm == 0 {
			return // nothing is left unexplained
		}
		for _, i := range nodes {
			s.u[i] /= math.Sqrt(norm)
		}
	}
}

// settle moves each node without labels to the group, of the nearest to its
// own, that explains its links best, and values the blocks anew, until nothing
// moves: Lloyd's iteration with medians instead of means.
func (s *search) settle(before *blocks, next level, nearest int) (level, *blocks) {
	const iterations = 6
	size := make([]int32, next.count)
	for _, group := range next.of {
		if group >= 0 {
			size[group]++
		}
	}
	clip := before.clip(s.links, &next)
	b := before.refined(s.links, next, false)
	near := b.near(nearest)
	for range iterations {
		moved := false
		of := slices.Clone(next.of)
		for i, own := range of {
			if !s.movable[i] || size[own] == 1 {
				continue
			}
			best, least := own, s.unexplained(b, of, int32(i), own, clip)
			for _, group := range near[own] {
				if sum := s.unexplained(b, of, int32(i), group, clip); sum < least {
					best, least = group, sum
				}
			}
			if best != own {
				size[own]--
				size[best]++
				of[i] = best
				moved = true
			}
		}
		if !moved {
			break
		}
		next.of = of
		b = before.refined(s.links, next, false)
	}
	return next, b
}

// unexplained is by how much the links of node i differ from the blocks if
// the node were in group.
func (s *search) unexplained(b *blocks, of []int32, i, group int32, clip float64) float64 {
	row := b.value[int(group)*b.count : (int(group)+1)*b.count]
	from, to := s.links.row(i)
	var sum float64
	for at := from; at < to; at++ {
		sum += math.Abs(clamp(s.links.value[at]-row[of[s.links.peer[at]]], clip))
	}
	return sum
}

// near lists, for each group, as many others that are nearest to it, and those
// it was split from.
func (b *blocks) near(nearest int) [][]int32 {
	near := make([][]int32, b.count)
	for group := range near {
		row := b.value[group*b.count : (group+1)*b.count]
		var kept, siblings []int32
		for other := range int32(b.count) {
			switch {
			case int(other) == group || math.IsNaN(row[other]):
			case b.parent[other] == b.parent[group]:
				siblings = append(siblings, other)
			default:
				place, _ := slices.BinarySearchFunc(kept, row[other], func(k int32, v float64) int { return cmp.Compare(row[k], v) })
				if place < nearest {
					kept = slices.Insert(kept[:min(len(kept), nearest-1)], place, other)
				}
			}
		}
		near[group] = append(kept, siblings...)
	}
	return near
}
