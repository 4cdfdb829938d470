package latency

import (
	"hash/fnv"
	"math"
	"slices"
)

// links is a matrix as the estimates see it: the latency of every pair that is
// measured and fresh, in terms of one statistic, with the nodes numbered in
// the order of their names, so that nothing depends on the order of a map.
type links struct {
	index map[string]int32
	names []string
	// out is what each node measured, in what its peers measured of it.
	out, in adjacency
	// both has each measured pair in the rows of both its nodes. Its latency
	// is the geometric mean of the directions, and it is kept as a logarithm
	// of nanoseconds: latencies are compared by their ratio.
	both adjacency
}

// adjacency is a sparse matrix: row i is start[i] to start[i+1] of the other
// slices, in the order of peer.
type adjacency struct {
	start []int32
	peer  []int32
	value []float64
	error []float64 // of the value; nil in links.both
}

func (a *adjacency) row(i int32) (from, to int32) { return a.start[i], a.start[i+1] }

// find is the place of peer in the row of node, -1 if it is not there.
func (a *adjacency) find(node, peer int32) int32 {
	from, to := a.row(node)
	at, ok := slices.BinarySearch(a.peer[from:to], peer)
	if !ok {
		return -1
	}
	return from + int32(at)
}

// newLinks reads matrix. The nodes are those of the matrix and of groups.
func newLinks(matrix *Matrix, statistic Statistic, groups map[string]NodeGroup, fresh func(*Distribution) bool) *links {
	l := &links{index: make(map[string]int32)}
	if matrix != nil {
		l.names = slices.Clone(matrix.names)
	}
	for name := range groups {
		if _, ok := matrix.place(name); !ok {
			l.names = append(l.names, name)
		}
	}
	slices.Sort(l.names)
	for i, name := range l.names {
		l.index[name] = int32(i)
	}
	l.out = adjacency{start: make([]int32, len(l.names)+1)}
	for i, name := range l.names {
		if row, ok := matrix.place(name); ok {
			for at := range matrix.rows[row] {
				c := &matrix.rows[row][at]
				if !fresh(&c.Distribution) {
					continue
				}
				l.out.peer = append(l.out.peer, l.index[matrix.names[c.peer]])
				l.out.value = append(l.out.value, float64(statistic.Latency(c.Distribution)))
				l.out.error = append(l.out.error, c.meanError())
			}
		}
		l.out.start[i+1] = int32(len(l.out.peer))
	}
	// Turning a sparse matrix over orders its rows.
	l.in = l.out.transposed()
	l.out = l.in.transposed()
	l.both = undirected(&l.out, &l.in)
	return l
}

func (a *adjacency) transposed() adjacency {
	nodes := len(a.start) - 1
	t := adjacency{
		start: make([]int32, nodes+1),
		peer:  make([]int32, len(a.peer)),
		value: make([]float64, len(a.peer)),
		error: make([]float64, len(a.peer)),
	}
	for _, peer := range a.peer {
		t.start[peer+1]++
	}
	for i := range nodes {
		t.start[i+1] += t.start[i]
	}
	next := slices.Clone(t.start)
	for i := range int32(nodes) {
		from, to := a.row(i)
		for at := from; at < to; at++ {
			place := next[a.peer[at]]
			next[a.peer[at]]++
			t.peer[place], t.value[place], t.error[place] = i, a.value[at], a.error[at]
		}
	}
	return t
}

// undirected merges the rows of out and in. A latency of 0, below the clock's
// resolution, counts as a nanosecond: it has no logarithm.
func undirected(out, in *adjacency) adjacency {
	nodes := int32(len(out.start) - 1)
	both := adjacency{
		start: make([]int32, nodes+1),
		peer:  make([]int32, 0, 2*len(out.peer)),
		value: make([]float64, 0, 2*len(out.peer)),
	}
	logarithm := func(v float64) float64 { return math.Log(math.Max(v, 1)) }
	for i := range nodes {
		a, endA := out.row(i)
		b, endB := in.row(i)
		for a < endA || b < endB {
			switch {
			case b == endB || a < endA && out.peer[a] < in.peer[b]:
				both.peer, both.value = append(both.peer, out.peer[a]), append(both.value, logarithm(out.value[a]))
				a++
			case a == endA || in.peer[b] < out.peer[a]:
				both.peer, both.value = append(both.peer, in.peer[b]), append(both.value, logarithm(in.value[b]))
				b++
			default:
				both.peer, both.value = append(both.peer, out.peer[a]), append(both.value, (logarithm(out.value[a])+logarithm(in.value[b]))/2)
				a, b = a+1, b+1
			}
		}
		both.start[i+1] = int32(len(both.peer))
	}
	return both
}

// filtered keeps the links of a that keep wants, in both their rows if keep
// is symmetric.
func (a *adjacency) filtered(keep func(node, peer int32) bool) adjacency {
	f := adjacency{start: make([]int32, len(a.start)), peer: make([]int32, 0, len(a.peer)), value: make([]float64, 0, len(a.peer))}
	for i := range int32(len(a.start) - 1) {
		from, to := a.row(i)
		for at := from; at < to; at++ {
			if keep(i, a.peer[at]) {
				f.peer, f.value = append(f.peer, a.peer[at]), append(f.value, a.value[at])
			}
		}
		f.start[i+1] = int32(len(f.peer))
	}
	return f
}

// hashes has a number for each name that looks random and never changes.
// Choices that must not depend on the data are made by it: a node that comes
// or goes does not change those of the others.
func hashes(names []string) []uint64 {
	hs := make([]uint64, len(names))
	for i, name := range names {
		h := fnv.New64a()
		h.Write([]byte(name)) // never fails
		hs[i] = mix(h.Sum64())
	}
	return hs
}

// mix is the finalizer of SplitMix64 (Steele, Lea, Flood, "Fast splittable
// pseudorandom number generators", OOPSLA 2014).
func mix(h uint64) uint64 {
	h = (h ^ h>>30) * 0xBF58476D1CE4E5B9
	h = (h ^ h>>27) * 0x94D049BB133111EB
	return h ^ h>>31
}

// unit makes of a hash a number from 0 up to 1.
func unit(h uint64) float64 { return float64(h>>11) / (1 << 53) }
