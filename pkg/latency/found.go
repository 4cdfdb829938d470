package latency

import (
	"cmp"
	"math"
	"slices"
	"time"
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

const (
	// keptFor is how long groups are kept, at most: new ones may be better
	// where a network changed in a way that does not make the old ones worse.
	keptFor = 5 * time.Minute
	// keptLoss is by how much worse than at first kept groups may foresee the
	// pairs held back. keptGrowth is how many times as many pairs there may be.
	keptLoss   = 0.1
	keptGrowth = 1.25
)

// found is groups of nodes without labels, of several searches.
type found struct {
	at        time.Time
	labelled  []level // which they began with
	groupings [][]level
	missed    []float64 // heldError of each
	pairs     int       // that they were found from
}

// find searches for groups below those of levels.
func (d *drawn) find(levels []level, hash []uint64, now time.Time) (*found, []*blocks) {
	f := &found{at: now, labelled: levels, pairs: len(d.known)}
	s := newSearch(d.known, d.held, hash)
	fitted := make([]*blocks, foundGroupings)
	for at := range fitted {
		grouping, b := s.find(levels, uint64(at))
		f.groupings, f.missed, fitted[at] = append(f.groupings, grouping), append(f.missed, b.heldError(d.held)), b
	}
	return f, fitted
}

// holdFor values the blocks of groups that were found before, of the same
// nodes, for other pairs. ok is false if new ones must be found; f may be nil.
func (f *found) holdFor(d *drawn, levels []level, now time.Time) (fitted []*blocks, ok bool) {
	if f == nil || now.Sub(f.at) >= keptFor || float64(len(d.known)) > keptGrowth*float64(f.pairs) || !slices.EqualFunc(f.labelled, levels, level.equal) {
		return nil, false
	}
	for at, grouping := range f.groupings {
		b := fitBlocks(d.known, grouping, false)
		if b.heldError(d.held) > (1+keptLoss)*f.missed[at] {
			return nil, false
		}
		fitted = append(fitted, b)
	}
	return fitted, true
}

// search finds groups in what was measured.
type search struct {
	known []pair    // what groups are found from
	links adjacency // the same by node, with the logarithms of latencies
	held  []pair    // what tells whether groups help; it has no part in finding
	hash  []uint64
	// Scratch space: by node, by node, by link.
	u, v, residual []float64
	movable        []bool // by node: it has no labels
}

func newSearch(known, held []pair, hash []uint64) *search {
	links := rowsOf(known, len(hash), func(at int) (float64, float32) { return known[at].latency, 0 })
	return &search{
		known: known, links: links, held: held, hash: hash,
		u: make([]float64, len(hash)), v: make([]float64, len(hash)), residual: make([]float64, len(links.links)), movable: make([]bool, len(hash)),
	}
}

// find divides pool, which is in the last of levels, and what comes of it, in
// two over and over, and returns levels with the new ones and the blocks of the
// last. It stops when the groups foresee the pairs that were held back no
// better. Labelled groups are not divided: labels know best.
func (s *search) find(levels []level, seed uint64) ([]level, *blocks) {
	levels = slices.Clone(levels)
	b := fitBlocks(s.known, levels, false)
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
	best, kept, fitted := b.heldError(s.held), len(levels), b
	for {
		next, ok := s.divide(b, seed)
		if !ok || next.count > maxGroups {
			break
		}
		next, b = s.settle(b, next, nearGroups)
		levels = append(levels, next)
		missed := b.heldError(s.held)
		if missed > best*(1-leastGain) {
			break
		}
		best, kept, fitted = missed, len(levels), b
	}
	return levels[:kept], fitted
}

// heldError is the mean error, as a logarithm, on pairs that were held back. A
// factor of e is as bad as it gets: beyond it, it matters no more how wrong.
func (b *blocks) heldError(held []pair) float64 {
	var sum float64
	for k := range held {
		sum += math.Min(1, math.Abs(b.residual(&held[k])))
	}
	return sum / float64(len(held))
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
	clip := b.clip(s.known, &b.level)
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
		for at := s.links.start[i]; at < s.links.start[i+1]; at++ {
			k := &s.links.links[at]
			if v := b.at(i, k.peer); !math.IsNaN(v) {
				s.residual[at] = clamp(k.value-v, clip)
			} else {
				s.residual[at] = 0
			}
		}
	}
	for range iterations {
		for _, i := range nodes {
			for _, k := range s.links.row(i) {
				s.v[k.peer] = 0
			}
		}
		for _, i := range nodes {
			residual := s.residual[s.links.start[i]:]
			for at, k := range s.links.row(i) {
				s.v[k.peer] += residual[at] * s.u[i]
			}
		}
		var norm float64
		for _, i := range nodes {
			residual := s.residual[s.links.start[i]:]
			var sum float64
			for at, k := range s.links.row(i) {
				sum += residual[at] * s.v[k.peer]
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
	clip := before.clip(s.known, &next)
	b := before.refined(s.known, next, clip, false)
	near := b.near(nearest)
	for range iterations {
		moved := false
		of := slices.Clone(next.of)
		for i, own := range of {
			if !s.movable[i] || size[own] == 1 {
				continue
			}
			best, least := own, s.unexplained(b, of, int32(i), own, clip, math.Inf(1))
			for _, group := range near[own] {
				if sum := s.unexplained(b, of, int32(i), group, clip, least); sum < least {
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
		b = before.refined(s.known, next, before.clip(s.known, &next), false)
	}
	return next, b
}

// unexplained is by how much the links of node i differ from the blocks if
// the node were in group. It stops adding at enough.
func (s *search) unexplained(b *blocks, of []int32, i, group int32, clip, enough float64) float64 {
	row := b.value[int(group)*b.count : (int(group)+1)*b.count]
	var sum float64
	for _, k := range s.links.row(i) {
		missed := math.Abs(k.value - row[of[k.peer]])
		if missed > clip {
			missed = clip
		}
		if sum += missed; sum >= enough {
			break
		}
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
