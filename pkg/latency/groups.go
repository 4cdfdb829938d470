package latency

import (
	"cmp"
	"math"
	"slices"
)

// level divides the nodes into groups, finer than the level before it does.
type level struct {
	of     []int32 // by node: its group, -1 where it is in none
	parent []int32 // by group: its group in the level before; nil in the first
	count  int     // of groups
	// found tells for each group whether it was found from what was measured;
	// nil where labels made all groups.
	found []bool
}

// equal reports whether v and w, both made by labels, are the same division.
func (v level) equal(w level) bool {
	return slices.Equal(v.of, w.of) && slices.Equal(v.parent, w.parent)
}

// isFound reports whether node i is in a group that was found.
func (v *level) isFound(i int32) bool { return v.found != nil && v.of[i] >= 0 && v.found[v.of[i]] }

// maxGroups bounds the blocks, which are the square of it. Labels that tell
// more groups apart are made use of only as far down as they stay below it;
// providers that are so many are names of nodes, and tell nothing.
const maxGroups = 1024

// pool is the group of the nodes without labels, before groups are found for
// them. It is the first one, where it is there.
const pool int32 = 0

// labelled divides the nodes by their labels: by provider, by region within
// it, by zone within that. The nodes without any are in pool, hasPool tells
// whether there are some; but one that has no link either is in no group,
// because nothing tells where it is.
func labelled(names []string, degree []int32, groups map[string]NodeGroup) (levels []level, hasPool bool) {
	for i, name := range names {
		hasPool = hasPool || degree[i] > 0 && groups[name] == NodeGroup{}
	}
	for depth := 1; depth <= 3; depth++ {
		next := level{of: make([]int32, len(names))}
		// add opens a group within parent of the level before.
		add := func(parent int32) int32 {
			if len(levels) > 0 {
				next.parent = append(next.parent, parent)
			}
			next.count++
			return int32(next.count - 1)
		}
		before := func(i int) int32 {
			if len(levels) == 0 {
				return -1
			}
			return levels[len(levels)-1].of[i]
		}
		if hasPool {
			add(pool)
		}
		known := make(map[NodeGroup]int32)
		for i, name := range names {
			if groups[name] == (NodeGroup{}) {
				next.of[i] = pool
				if degree[i] == 0 {
					next.of[i] = -1
				}
				continue
			}
			key := groups[name].upTo(depth)
			group, ok := known[key]
			if !ok {
				group = add(before(i))
				known[key] = group
			}
			next.of[i] = group
		}
		if len(levels) > 0 && next.count == levels[len(levels)-1].count {
			continue // it tells no more nodes apart
		}
		if next.count > maxGroups {
			if len(levels) == 0 {
				return labelled(names, degree, nil)
			}
			break
		}
		levels = append(levels, next)
	}
	return levels, hasPool
}

// dissolvePool leaves the nodes of pool in no group.
func (v level) dissolvePool() {
	for i, own := range v.of {
		if own == pool {
			v.of[i] = -1
		}
	}
}

// ofPool is how many of pairs have a node of pool.
func (v level) ofPool(pairs []pair) int {
	n := 0
	for _, p := range pairs {
		if v.of[p.i] == pool || v.of[p.j] == pool {
			n++
		}
	}
	return n
}

// upTo is g without its parts below depth: 1 leaves the provider, 2 the
// region, 3 all.
func (g NodeGroup) upTo(depth int) NodeGroup {
	if depth < 3 {
		g.Zone = ""
	}
	if depth < 2 {
		g.Region = ""
	}
	return g
}

// blocks has a value for each pair of groups: the logarithm of the latency
// between a node of one and a node of the other. It is symmetric.
type blocks struct {
	level
	value []float64 // count x count; NaN where nothing is known
}

func (b *blocks) at(i, j int32) float64 {
	a, c := b.of[i], b.of[j]
	if a < 0 || c < 0 {
		return math.NaN()
	}
	return b.value[int(a)*b.count+int(c)]
}

// residual is by how much the latency of a pair differs from its block; 0 where
// the block is not known.
func (b *blocks) residual(p *pair) float64 {
	if v := b.at(p.i, p.j); !math.IsNaN(v) {
		return p.latency - v
	}
	return 0
}

// fitBlocks values the blocks of the last of levels. A block is what its
// parent is plus the median by which its pairs differ from that, and as a
// median of few is little to go by, it counts n/(n+1) for n pairs. A block
// without pairs is what its parent is; in the first level, which has no
// parent, it is not known. Where the groups were found, medians take long, and
// are had only if finally is true, and of the last level.
func fitBlocks(pairs []pair, levels []level, finally bool) *blocks {
	b := &blocks{}
	for depth, next := range levels {
		b = b.refined(pairs, next, b.clip(pairs, &next), next.found == nil || finally && depth == len(levels)-1)
	}
	return b
}

// refined values the blocks of next by those of b, by medians or, which is
// nearly the same and less work, by means of clipped residuals.
func (b *blocks) refined(pairs []pair, next level, clip float64, medians bool) *blocks {
	var (
		count = next.count
		value = make([]float64, count*count)
		prior = make([]float64, count*count)
		sizes = make([]int32, count*count) // in pairs
		first = next.parent == nil
	)
	// A block has no prior in the first level, nor where only nodes that have
	// changed their group since make it known.
	fresh := func(p int) bool { return first || math.IsNaN(prior[p]) }
	if !first {
		for a, pa := range next.parent {
			for c, pc := range next.parent {
				prior[a*count+c] = b.value[int(pa)*b.count+int(pc)]
			}
		}
	}
	// The half of the blocks above the diagonal stands for both.
	place := func(p *pair) int {
		a, c := int(next.of[p.i]), int(next.of[p.j])
		return min(a, c)*count + max(a, c)
	}
	for k := range pairs {
		p := place(&pairs[k])
		if fresh(p) {
			value[p] += pairs[k].latency
		} else {
			value[p] += clamp(pairs[k].latency-prior[p], clip)
		}
		sizes[p]++
	}
	for p, n := range sizes {
		if n > 0 {
			value[p] /= float64(n)
		}
	}
	if medians {
		sorted := make([]float64, len(pairs))
		end := make([]int32, len(value)) // of what each block has in sorted
		for p := range len(value) - 1 {
			end[p+1] = end[p] + sizes[p]
		}
		for k := range pairs {
			p := place(&pairs[k])
			sorted[end[p]] = pairs[k].latency
			if !fresh(p) {
				sorted[end[p]] -= prior[p]
			}
			end[p]++
		}
		for p, n := range sizes {
			if n > 0 {
				value[p] = median(sorted[end[p]-n : end[p]])
			}
		}
	}
	for a := range count {
		for c := a; c < count; c++ {
			p := a*count + c
			n := float64(sizes[p])
			switch {
			case fresh(p) && n == 0:
				value[p] = math.NaN()
			case !fresh(p):
				value[p] = prior[p] + value[p]*n/(n+1)
			}
			value[c*count+a] = value[p]
		}
	}
	return &blocks{level: next, value: value}
}

// clip is beyond what a residual, of a pair with a node in a group that was
// found, says no more than that it is large: three times the median, which is
// about two standard deviations.
func (b *blocks) clip(pairs []pair, next *level) float64 {
	if next.found == nil {
		return math.Inf(1)
	}
	const enough = 10_000 // to tell a median
	var sizes []float64
	for k := 0; k < len(pairs); k += 1 + len(pairs)/enough {
		if p := &pairs[k]; next.isFound(p.i) || next.isFound(p.j) {
			sizes = append(sizes, math.Abs(b.residual(p)))
		}
	}
	if len(sizes) == 0 {
		return math.Inf(1)
	}
	return 3 * median(sizes)
}

// clamp is v, or limit with the sign of v if v is farther from 0.
func clamp(v, limit float64) float64 {
	if v > limit {
		return limit
	}
	if v < -limit {
		return -limit
	}
	return v
}

// median is the lower median of values, which it reorders, in linear time on
// average (Hoare, "Algorithm 65: Find", CACM 4, 1961). values has no NaN and
// at least one element.
func median(values []float64) float64 { return nth(values, (len(values)-1)/2) }

// nth is the value that sorting would bring to place n.
func nth(values []float64, n int) float64 {
	low, high := 0, len(values)-1
	for high-low > 16 {
		pivot := max(min(values[low], values[high]), min(max(values[low], values[high]), values[(low+high)/2]))
		i, j := low, high
		for i <= j {
			for values[i] < pivot {
				i++
			}
			for values[j] > pivot {
				j--
			}
			if i <= j {
				values[i], values[j] = values[j], values[i]
				i, j = i+1, j-1
			}
		}
		switch {
		case n <= j:
			high = j
		case n >= i:
			low = i
		default:
			return values[n]
		}
	}
	slices.SortFunc(values[low:high+1], cmp.Compare[float64])
	return values[n]
}
