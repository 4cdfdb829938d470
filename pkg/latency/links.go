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
}

// adjacency is a sparse matrix: row i is start[i] to start[i+1] of links, in
// the order of their peers.
type adjacency struct {
	start []int32
	links []link
}

// link is what is known between the node of a row and a peer.
type link struct {
	peer  int32
	error float32 // of the value, where it is a latency that was measured
	value float64
}

func (a *adjacency) row(i int32) []link { return a.links[a.start[i]:a.start[i+1]] }

// find is the link to peer in the row of node, nil if there is none.
func (a *adjacency) find(node, peer int32) *link {
	row := a.row(node)
	at, ok := slices.BinarySearchFunc(row, peer, func(k link, peer int32) int { return int(k.peer) - int(peer) })
	if !ok {
		return nil
	}
	return &row[at]
}

// mostLatency is more than any statistic makes of round trips of MaxRTT, and
// little enough for the sum over all replicas of all targets.
const mostLatency = 10 * MaxRTT

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
	l.out = adjacency{start: make([]int32, len(l.names)+1), links: make([]link, 0, matrix.Pairs())}
	var at []int32 // by place in the matrix: the number here
	if matrix != nil {
		at = make([]int32, len(matrix.names))
		for place, name := range matrix.names {
			at[place] = l.index[name]
		}
	}
	for i, name := range l.names {
		if row, ok := matrix.place(name); ok { // rows of the matrix are in the order of names
			for k := range matrix.rows[row] {
				c := &matrix.rows[row][k]
				if !fresh(&c.Distribution) {
					continue
				}
				// Sources drop what is impossible. Should one not, it is as good as
				// not measured: a negative latency would be the nearest of all.
				if value := statistic.Latency(c.Distribution); value >= 0 && value <= mostLatency {
					l.out.links = append(l.out.links, link{at[c.peer], float32(c.meanError()), float64(value)})
				}
			}
		}
		l.out.start[i+1] = int32(len(l.out.links))
	}
	l.in = l.out.transposed()
	return l
}

func (a *adjacency) transposed() adjacency {
	nodes := len(a.start) - 1
	t := adjacency{start: make([]int32, nodes+1), links: make([]link, len(a.links))}
	for k := range a.links {
		t.start[a.links[k].peer+1]++
	}
	for i := range nodes {
		t.start[i+1] += t.start[i]
	}
	next := slices.Clone(t.start)
	for i := range int32(nodes) {
		for _, k := range a.row(i) {
			t.links[next[k.peer]] = link{i, k.error, k.value}
			next[k.peer]++
		}
	}
	return t
}

// pair is two nodes of which one at least measured the other. The latency
// between them is the geometric mean of the directions, and it is kept as a
// logarithm of nanoseconds: latencies are compared by their ratio.
type pair struct {
	i, j    int32 // i < j
	latency float64
}

// all calls yield with the pairs of nodes, in order, and with what was measured
// in each direction, 0 for nothing. A latency of 0, below the clock's
// resolution, comes as a nanosecond: 0 has no logarithm.
func (l *links) all(yield func(i, j int32, there, back float64)) {
	after := func(row []link, i int32) []link {
		at, _ := slices.BinarySearchFunc(row, i, func(k link, i int32) int { return int(k.peer) - int(i) })
		return row[at:]
	}
	for i := range int32(len(l.names)) {
		out, in := after(l.out.row(i), i), after(l.in.row(i), i)
		for len(out) > 0 || len(in) > 0 {
			switch {
			case len(in) == 0 || len(out) > 0 && out[0].peer < in[0].peer:
				yield(i, out[0].peer, max(out[0].value, 1), 0)
				out = out[1:]
			case len(out) == 0 || in[0].peer < out[0].peer:
				yield(i, in[0].peer, 0, max(in[0].value, 1))
				in = in[1:]
			default:
				yield(i, out[0].peer, max(out[0].value, 1), max(in[0].value, 1))
				out, in = out[1:], in[1:]
			}
		}
	}
}

// meanLogarithm is the logarithm of the mean of what was measured in the two
// directions, at least one of which is not 0.
func meanLogarithm(there, back float64) float64 {
	switch {
	case back == 0:
		return math.Log(there)
	case there == 0:
		return math.Log(back)
	}
	return math.Log(there*back) / 2
}

// degrees is with how many others each node is in a pair.
func (l *links) degrees() []int32 {
	degree := make([]int32, len(l.names))
	l.all(func(i, j int32, _, _ float64) {
		degree[i]++
		degree[j]++
	})
	return degree
}

// rowsOf has each of pairs, which are in order, in the rows of both its nodes.
// The values are those of it by the place in pairs.
func rowsOf(pairs []pair, nodes int, of func(at int) (value float64, deviation float32)) adjacency {
	a := adjacency{start: make([]int32, nodes+1), links: make([]link, 2*len(pairs))}
	for _, p := range pairs {
		a.start[p.i+1]++
		a.start[p.j+1]++
	}
	for i := range nodes {
		a.start[i+1] += a.start[i]
	}
	// What a node has with lower ones comes before what it has with higher ones
	// in pairs, as it must in its row.
	next := slices.Clone(a.start)
	for at, p := range pairs {
		value, deviation := of(at)
		a.links[next[p.i]] = link{p.j, deviation, value}
		a.links[next[p.j]] = link{p.i, deviation, value}
		next[p.i]++
		next[p.j]++
	}
	return a
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
