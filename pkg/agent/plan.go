package agent

import (
	"container/heap"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// plan says which peer is probed next, and when. Time comes in as an argument;
// the run loop owns it.
//
// Each peer is probed in bursts, one a round. A peer's rounds start at a phase
// that is hashed from the names of both nodes, so that the probes of a whole
// cluster whose agents start together do not arrive together, and each burst
// is moved by some jitter, so that two agents never stay in step.
type plan struct {
	node     string
	interval time.Duration
	burst    int
	spacing  time.Duration
	fullSize bool // every fullSizeRounds'th burst has a packet of full size
	// bucket is the hard cap on packets.
	bucket *rate.Limiter
	random func() float64 // uniform in [0, 1)

	turns map[string]*turn
	queue queue
	// bursts numbers the bursts, over all peers.
	bursts uint64
	// heldUntil is when the packet that the cap holds back may leave; the zero
	// time when none is held.
	heldUntil time.Time
	// capped counts packets that the cap has held back; read by metrics.
	capped atomic.Uint64
}

// turn is a peer's place in the plan.
type turn struct {
	peer string
	due  time.Time // of its next packet
	slot time.Time // its round, before jitter
	// number of the burst that is under way, and how many of its packets are
	// still to be sent; 0 between bursts.
	number uint64
	left   int
	// rounds counts the bursts of this peer.
	rounds uint64
	index  int // in the queue
}

// packet is one probe that is to be sent now.
type packet struct {
	peer  string
	burst uint64
	full  bool // of full size, and no part of what the burst measures
}

const (
	// roundJitter is the share of the interval by which a burst is moved
	// either way at random.
	roundJitter = 0.1
	// fullSizeRounds is how often a burst is followed by a packet of full size:
	// one round in this many. A fault of the MTU shows within a minute, for a
	// packet more in sixteen.
	fullSizeRounds = 4
	// fullRatePeers is the number of peers up to which each is probed every
	// interval. Beyond it the interval grows with the logarithm of their
	// number, as Cilium's health probes do (ClusterSizeDependantInterval), so
	// that a larger cluster is seen less often but never stops being seen.
	fullRatePeers = 100
)

func newPlan(o Options) *plan {
	return &plan{
		node:     o.NodeName,
		interval: o.Interval,
		burst:    o.Burst,
		spacing:  o.Spacing,
		fullSize: o.FullSize > 0,
		// The bucket holds a tenth of a second, so that bursts that coincide
		// do not count as reaching the cap.
		bucket: rate.NewLimiter(rate.Limit(o.PacketsPerSecond), max(1, o.PacketsPerSecond/10)),
		random: rand.Float64,
		turns:  make(map[string]*turn),
	}
}

// Join adds a peer. Its first burst is due within one interval.
func (p *plan) Join(peer string, now time.Time) {
	if p.turns[peer] != nil {
		return
	}
	// Not the grown interval: a new node is to be measured soon, however many
	// there are.
	first := now.Add(time.Duration(fraction("phase", p.node, peer) * float64(p.interval)))
	t := &turn{peer: peer, due: first, slot: first}
	p.turns[peer] = t
	heap.Push(&p.queue, t)
}

// Leave removes a peer. The rest of a burst that is under way is not sent.
func (p *plan) Leave(peer string) {
	if t := p.turns[peer]; t != nil {
		heap.Remove(&p.queue, t.index)
		delete(p.turns, peer)
	}
}

// Interval is the time from one round of a peer to its next.
func (p *plan) Interval() time.Duration {
	n := float64(len(p.turns))
	return time.Duration(float64(p.interval) * max(1, math.Log(1+n)/math.Log(1+fullRatePeers)))
}

// Next returns the packet that is to be sent at now. When there is none it
// returns false and the time to ask again, which is zero when there are no
// peers.
func (p *plan) Next(now time.Time) (packet, time.Time, bool) {
	if len(p.queue) == 0 {
		return packet{}, time.Time{}, false
	}
	t := p.queue[0]
	if t.due.After(now) {
		return packet{}, t.due, false
	}
	if p.heldUntil.IsZero() {
		p.heldUntil = now
		if wait := p.bucket.ReserveN(now, 1).DelayFrom(now); wait > 0 {
			p.heldUntil = now.Add(wait)
			p.capped.Add(1)
		}
	}
	if p.heldUntil.After(now) {
		return packet{}, p.heldUntil, false
	}
	p.heldUntil = time.Time{}
	return p.take(t, now), time.Time{}, true
}

// take takes the next packet of t and plans the one after it.
func (p *plan) take(t *turn, now time.Time) packet {
	if t.left == 0 {
		p.bursts++
		t.number, t.left = p.bursts, p.burst
		t.rounds++
		if p.withFull(t) {
			t.left++ // the last
		}
	}
	t.left--
	full := t.left == 0 && p.withFull(t)
	if t.left > 0 {
		t.due = now.Add(p.spacing)
	} else {
		interval := p.Interval()
		// Rounds that the cap has made late are skipped, not made up for.
		for t.slot = t.slot.Add(interval); t.slot.Before(now); {
			t.slot = t.slot.Add(interval)
		}
		jitter := (2*p.random() - 1) * roundJitter
		t.due = t.slot.Add(time.Duration(jitter * float64(interval)))
	}
	heap.Fix(&p.queue, t.index)
	return packet{peer: t.peer, burst: t.number, full: full}
}

// withFull says that the burst of t is followed by a packet of full size.
func (p *plan) withFull(t *turn) bool { return p.fullSize && t.rounds%fullSizeRounds == 0 }

// fraction is a number in [0, 1) that is always the same for an ordered pair
// of nodes, whatever else is in the cluster, evenly spread over pairs, and
// independent between purposes.
func fraction(purpose, node, peer string) float64 {
	// NUL is in no node name, so that no two pairs are spelled alike.
	sum := sha256.Sum256([]byte(purpose + "\x00" + node + "\x00" + peer))
	return float64(binary.BigEndian.Uint64(sum[:])>>11) / (1 << 53)
}

// queue is a heap of turns by due time.
type queue []*turn

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

// Push implements heap.Interface.
func (q *queue) Push(x any) {
	t := x.(*turn)
	t.index = len(*q)
	*q = append(*q, t)
}

// Pop implements heap.Interface.
func (q *queue) Pop() any {
	old := *q
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return t
}
