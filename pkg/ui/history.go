package ui

import (
	"math"
	"sync"
	"time"

	"github.com/netlatency/netlatency/pkg/latency"
)

// Bounds of what is remembered.
const (
	// maxPoints is one every ten seconds for an hour.
	maxPoints = 360
	// minPoints are kept of however many nodes: less is no course.
	minPoints = 8
	// maxHistoryBytes is for the values of all points together: 360 points of
	// 150 nodes, 32 of 500.
	maxHistoryBytes = 64 << 20
)

// history remembers some quantities of every pair, from the first snapshot on.
// When it is full every second point is forgotten and from then on only every
// second snapshot is kept: it always reaches back to the start, and grows
// coarser. It is safe for concurrent use.
type history struct {
	mu     sync.Mutex
	began  time.Time
	every  int // how many snapshots a kept point stands for
	passed int // snapshots since the last kept point
	points []point
}

// point is the pairs at one moment, by the place of the nodes among nodes.
type point struct {
	at    time.Time
	nodes map[string]int // shared by points of the same nodes
	cells []remembered
}

// remembered is a pair in eight bytes; zeros are for what was not known.
type remembered struct {
	latency, p50, p99 uint16 // codes
	loss              uint16 // code, of what was measured
}

// Codes of latencies are logarithms, 65,000 from a microsecond to MaxRTT: each
// is 0.025 % more than the one before it. 0 is no value.
const codes = math.MaxUint16 - 1

var codeScale = codes / math.Log(float64(latency.MaxRTT/time.Microsecond))

func code(d time.Duration) uint16 {
	us := math.Max(1, float64(d)/float64(time.Microsecond))
	return 1 + uint16(math.Round(math.Min(codes, codeScale*math.Log(us))))
}

// decoded is in microseconds; nil for none.
func decoded(c uint16) *float64 {
	if c == 0 {
		return nil
	}
	return new(math.Round(10*math.Exp(float64(c-1)/codeScale)) / 10)
}

func newHistory() *history { return &history{every: 1} }

// since is when the memory begins; the zero time before.
func (h *history) since() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.began
}

// add remembers a snapshot.
func (h *history) add(v *view) {
	n := len(v.nodes)
	if n > maxNodes {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.began.IsZero() {
		h.began = v.Taken
	}
	h.passed++
	if len(h.points) > 0 && h.passed < h.every {
		return
	}
	h.passed = 0
	p := point{at: v.Taken, nodes: v.index, cells: v.pairs.remembered}
	if last := len(h.points) - 1; last >= 0 && sameNodes(h.points[last].nodes, v.index) {
		p.nodes = h.points[last].nodes
	}
	h.points = append(h.points, p)
	for len(h.points) > max(minPoints, min(maxPoints, maxHistoryBytes/max(1, 8*n*n))) {
		h.thin()
	}
}

// thin forgets every second point.
func (h *history) thin() {
	kept := h.points[:0]
	for i := 0; i < len(h.points); i += 2 {
		kept = append(kept, h.points[i])
	}
	clear(h.points[len(kept):])
	h.points = kept
	h.every *= 2
}

func sameNodes(a, b map[string]int) bool {
	if len(a) != len(b) {
		return false
	}
	for name, at := range a {
		if other, ok := b[name]; !ok || other != at {
			return false
		}
	}
	return true
}

func (p *point) place(from, to string) int { return p.nodes[from]*len(p.nodes) + p.nodes[to] }

// course is how a pair did over time: lists of the same length.
type course struct {
	Since   Time       `json:"since"`
	At      []Time     `json:"at"`
	Latency []*float64 `json:"latency"` // µs, like the next two
	P50     []*float64 `json:"p50"`
	P99     []*float64 `json:"p99"`
	Loss    []*float64 `json:"loss"` // ratio
}

func (h *history) of(from, to string) *course {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := &course{Since: Time{h.began}, At: []Time{}, Latency: []*float64{}, P50: []*float64{}, P99: []*float64{}, Loss: []*float64{}}
	for i := range h.points {
		p := &h.points[i]
		var r remembered
		_, knowsFrom := p.nodes[from]
		_, knowsTo := p.nodes[to]
		if knowsFrom && knowsTo {
			r = p.cells[p.place(from, to)]
		}
		c.At = append(c.At, Time{p.at})
		c.Latency, c.P50, c.P99 = append(c.Latency, decoded(r.latency)), append(c.P50, decoded(r.p50)), append(c.P99, decoded(r.p99))
		var loss *float64
		if r.loss > 0 {
			loss = new(float64(r.loss-1) / codes)
		}
		c.Loss = append(c.Loss, loss)
	}
	return c
}
