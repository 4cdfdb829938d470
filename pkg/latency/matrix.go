package latency

import (
	"cmp"
	"iter"
	"maps"
	"math"
	"slices"
	"time"
)

// Pair is an ordered pair of node names: where a probe starts and where it
// goes.
type Pair struct{ Node, Peer string }

// Matrix is an immutable snapshot of what is measured: a Distribution for
// each ordered pair of nodes that has one. Readers share it without locks. A
// nil *Matrix is a valid empty one.
type Matrix struct {
	version uint64
	taken   time.Time
	newest  time.Time        // of all pairs
	index   map[string]int32 // node name to position in rows
	names   []string         // sorted
	rows    [][]cell         // by node, each sorted by peer
	pairs   int
}

type cell struct {
	peer int32
	Distribution
}

// NewMatrix builds the first matrix, version 1, out of what was observed at
// the time taken. Pairs of a node with itself are left out: that round trip
// is 0 by definition.
func NewMatrix(taken time.Time, observed map[Pair]Distribution) *Matrix {
	return (*Matrix)(nil).Next(taken, observed, Hysteresis{})
}

// Hysteresis keeps a pair's picture still while what is observed moves only
// by noise. The zero value takes every observation as it is.
type Hysteresis struct {
	// Ratio is the relative change, for instance 0.15, and Floor the absolute
	// one that a pair's latency must exceed, both of them, before the new
	// distribution replaces the one that is held.
	Ratio float64
	Floor time.Duration
	// Statistic gives the latency that is compared.
	Statistic Statistic
}

// chanceBars is how many error bars of the mean, of both observations together,
// a change may be chance. A bar is 1.6 deviations, but the deviation of few
// samples of a heavy tail is itself underestimated.
const chanceBars = 4

// chanceSamples is how many samples one of the observations must have for that.
const chanceSamples = 100

// holds reports whether held goes on to stand for the pair although now was
// observed.
func (h Hysteresis) holds(held, now Distribution) bool {
	// A held value that came from a part-filled window is not defended
	// against a better-founded one.
	if now.Samples >= 2*held.Samples || held.Method != now.Method {
		return false
	}
	before, after := h.Statistic.Latency(held), h.Statistic.Latency(now)
	moved := (after - before).Abs()
	if float64(moved) <= h.Ratio*float64(before) || moved <= h.Floor {
		return true
	}
	// The bars of few samples are wider than the band within which nodes are
	// equally near, and would hold two equal ones apart.
	return max(held.Samples, now.Samples) >= chanceSamples &&
		float64(moved) <= chanceBars*math.Hypot(held.meanError(), now.meanError())
}

// Next builds the matrix that follows m out of what was observed at the time
// taken. A pair whose latency moved no more than h keeps the values that m
// has for it, with the age of the new observation. A pair that is not
// observed is not in the new matrix: whoever observes decides how long an old
// observation is repeated. m may be nil.
func (m *Matrix) Next(taken time.Time, observed map[Pair]Distribution, h Hysteresis) *Matrix {
	return m.NextSeq(taken, maps.All(observed), h)
}

// NextSeq is Next for observations that are in no map: one of a whole large
// cluster takes as much memory as the matrix. No pair may be in observed
// twice.
func (m *Matrix) NextSeq(taken time.Time, observed iter.Seq2[Pair, Distribution], h Hysteresis) *Matrix {
	next := &Matrix{version: m.Version() + 1, taken: taken, index: make(map[string]int32)}
	position := func(name string) int32 {
		i, ok := next.index[name]
		if !ok {
			i = int32(len(next.names))
			next.index[name] = i
			next.names = append(next.names, name)
			next.rows = append(next.rows, nil)
		}
		return i
	}
	for pair, now := range observed {
		if pair.Node == pair.Peer {
			continue
		}
		if held, ok := m.Measured(pair.Node, pair.Peer); ok && h.holds(held, now) {
			held.Newest = now.Newest
			now = held
		}
		if now.Newest.After(next.newest) {
			next.newest = now.Newest
		}
		node, peer := position(pair.Node), position(pair.Peer)
		next.rows[node] = append(next.rows[node], cell{peer, now})
		next.pairs++
	}
	next.sort()
	return next
}

// Later builds the matrix that follows m where nothing has changed but the
// time: each pair is as old at taken as it was when m was taken. m may be nil.
func (m *Matrix) Later(taken time.Time) *Matrix {
	if m == nil {
		return m.Next(taken, nil, Hysteresis{})
	}
	later := *m
	later.version++
	later.taken = taken
	later.rows = make([][]cell, len(m.rows))
	passed := taken.Sub(m.taken)
	if m.pairs > 0 {
		later.newest = m.newest.Add(passed)
	}
	for i, row := range m.rows {
		later.rows[i] = slices.Clone(row)
		for at := range row {
			later.rows[i][at].Newest = row[at].Newest.Add(passed)
		}
	}
	return &later
}

// sort brings the nodes into the order of their names, whatever the order in
// which they were observed, and the rows into that of their peers.
func (m *Matrix) sort() {
	rows, place := m.rows, m.index
	m.names = slices.Sorted(maps.Keys(place))
	m.rows = make([][]cell, len(rows))
	sorted := make([]int32, len(rows)) // by place before
	for i, name := range m.names {
		m.rows[i] = rows[place[name]]
		sorted[place[name]] = int32(i)
		place[name] = int32(i)
	}
	for _, row := range m.rows {
		for at := range row {
			row[at].peer = sorted[row[at].peer]
		}
		slices.SortFunc(row, func(a, b cell) int { return cmp.Compare(a.peer, b.peer) })
	}
}

// Version numbers matrices that follow each other: 0 for nil, 1 for the
// first.
func (m *Matrix) Version() uint64 {
	if m == nil {
		return 0
	}
	return m.version
}

// Taken is when the matrix was built, the zero time for nil.
func (m *Matrix) Taken() time.Time {
	if m == nil {
		return time.Time{}
	}
	return m.taken
}

// Newest is when the newest of all samples was taken, the zero time if there
// are none.
func (m *Matrix) Newest() time.Time {
	if m == nil {
		return time.Time{}
	}
	return m.newest
}

// Pairs is the number of ordered pairs that have a distribution.
func (m *Matrix) Pairs() int {
	if m == nil {
		return 0
	}
	return m.pairs
}

// place is the node's place in rows, if anything was measured from or to it.
func (m *Matrix) place(node string) (int32, bool) {
	if m == nil {
		return 0, false
	}
	i, ok := m.index[node]
	return i, ok
}

// Measured returns the distribution from node to peer, if there is one.
func (m *Matrix) Measured(node, peer string) (Distribution, bool) {
	i, ok := m.place(node)
	if !ok {
		return Distribution{}, false
	}
	j, ok := m.place(peer)
	if !ok {
		return Distribution{}, false
	}
	row := m.rows[i]
	at, ok := slices.BinarySearchFunc(row, j, func(c cell, peer int32) int { return cmp.Compare(c.peer, peer) })
	if !ok {
		return Distribution{}, false
	}
	return row[at].Distribution, true
}

// All ranges over the measured pairs, in no particular order.
func (m *Matrix) All() iter.Seq2[Pair, Distribution] {
	return func(yield func(Pair, Distribution) bool) {
		if m == nil {
			return
		}
		for i, row := range m.rows {
			for _, c := range row {
				if !yield(Pair{m.names[i], m.names[c.peer]}, c.Distribution) {
					return
				}
			}
		}
	}
}
