package trial

import (
	"time"

	"github.com/netlatency/netlatency/test/sandbox/wan"
)

// Truth is what the WAN's log says of the packets that passed: for each,
// how long the network really had it, from the kernel's receive stamp to its
// release. Owned by one goroutine.
type Truth struct {
	names  []string // node names by index, as in the log's records
	trips  map[tripID]*trip
	delays map[direction]*mean
}

// tripID is the tag of one round trip's packets.
type tripID struct {
	kind    uint8
	session uint64
	seq     uint32
}

// trip is what is known of one round trip: in each direction, when the first
// copy of the packet entered the network and when the first copy that was not
// dropped left it.
type trip struct{ request, reply passage }

type passage struct{ received, released int64 }

func (p passage) complete() bool       { return p.received != 0 && p.released != 0 }
func (p passage) delay() time.Duration { return time.Duration(p.released - p.received) }

type direction struct{ from, to uint16 }

type mean struct {
	sum   time.Duration
	count int
}

// NewTruth begins a truth about the nodes of these names, indexed as in the
// records that will be added.
func NewTruth(names []string) *Truth {
	return &Truth{names: names, trips: make(map[tripID]*trip), delays: make(map[direction]*mean)}
}

// Add takes in records of the log, in their order.
func (t *Truth) Add(records []wan.Record) {
	for _, r := range records {
		if r.Kind == wan.KindProbe && !r.Dropped {
			key := direction{r.From, r.To}
			m := t.delays[key]
			if m == nil {
				m = &mean{}
				t.delays[key] = m
			}
			m.sum += time.Duration(r.Released - r.Received)
			m.count++
		}
		id := tripID{r.Kind, r.Session, r.Seq}
		at := t.trips[id]
		if at == nil {
			at = &trip{}
			t.trips[id] = at
		}
		p := &at.request
		if r.Reply {
			p = &at.reply
		}
		// A retransmission counts from when the lost copy entered.
		if p.received == 0 {
			p.received = r.Received
		}
		if p.released == 0 && !r.Dropped {
			p.released = r.Released
		}
	}
}

// Probe is the true round-trip time of one probe, without what its ends took;
// false when the log does not have all of it.
func (t *Truth) Probe(session uint64, seq uint32) (time.Duration, bool) {
	return t.roundTripOf(tripID{wan.KindProbe, session, seq})
}

// Trip is the network's part of one round trip of an application.
func (t *Truth) Trip(session uint64, seq uint32) (time.Duration, bool) {
	return t.roundTripOf(tripID{wan.KindApplication, session, seq})
}

func (t *Truth) roundTripOf(id tripID) (time.Duration, bool) {
	at := t.trips[id]
	if at == nil || !at.request.complete() || !at.reply.complete() {
		return 0, false
	}
	return at.request.delay() + at.reply.delay(), true
}

// Mean is the mean round-trip time from node to peer over all probe packets of
// either end; 0 from a node to itself, and false when the network carried
// none in one of the directions.
func (t *Truth) Mean(node, peer string) (time.Duration, bool) {
	if node == peer {
		return 0, true
	}
	there, ok := t.delay(node, peer)
	if !ok {
		return 0, false
	}
	back, ok := t.delay(peer, node)
	return there + back, ok
}

func (t *Truth) delay(from, to string) (time.Duration, bool) {
	var key direction
	for i, name := range t.names {
		switch name {
		case from:
			key.from = uint16(i)
		case to:
			key.to = uint16(i)
		}
	}
	m := t.delays[key]
	if m == nil {
		return 0, false
	}
	return m.sum / time.Duration(m.count), true
}
