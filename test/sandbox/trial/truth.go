package trial

import (
	"slices"
	"time"

	"github.com/netlatency/netlatency/test/sandbox/wan"
)

// Truth is what the WAN's log says of the packets that passed. It tells apart
// the network's delay, which ends when a packet is due to leave the WAN, and
// how long the packet was really held, until it left: on a busy machine the
// process that carries the packets waits for a processor now and then. What is
// said of a placement counts the former, what is said of an agent's sample the
// latter. Owned by one goroutine.
type Truth struct {
	names  []string // node names by index, as in the log's records
	trips  map[tripID]*trip
	delays map[direction]*mean
	late   []time.Duration // by which packets left after they were due
}

// tripID is the tag of one round trip's packets.
type tripID struct {
	kind    uint8
	session uint64
	seq     uint32
}

// trip is what is known of one round trip's packets in each direction.
type trip struct {
	way            direction // of the request
	request, reply passage
}

// passage is when the first copy of a packet entered the network, and when the
// first copy that was not dropped was due to leave it and left it. Zero is
// unknown.
type passage struct{ received, due, released int64 }

func (p passage) complete() bool       { return p.received != 0 && p.released != 0 }
func (p passage) delay() time.Duration { return time.Duration(p.due - p.received) }
func (p passage) held() time.Duration  { return time.Duration(p.released - p.received) }

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
		if !r.Dropped {
			t.late = append(t.late, time.Duration(r.Released-r.Due))
		}
		if r.Kind == wan.KindProbe && !r.Dropped {
			key := direction{r.From, r.To}
			m := t.delays[key]
			if m == nil {
				m = &mean{}
				t.delays[key] = m
			}
			m.add(time.Duration(r.Due - r.Received))
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
		} else {
			at.way = direction{r.From, r.To}
		}
		// A retransmission counts from when the lost copy entered.
		if p.received == 0 {
			p.received = r.Received
		}
		if p.released == 0 && !r.Dropped {
			p.due, p.released = r.Due, r.Released
		}
	}
}

// Probe is how long the packets of one probe were held, both ways together;
// false when the log does not have all of it.
func (t *Truth) Probe(session uint64, seq uint32) (time.Duration, bool) {
	at, ok := t.complete(tripID{wan.KindProbe, session, seq})
	if !ok {
		return 0, false
	}
	return at.request.held() + at.reply.held(), true
}

// Trip is the network's delay of one round trip of an application, with what
// lost copies cost; false when the log does not have all of it.
func (t *Truth) Trip(session uint64, seq uint32) (time.Duration, bool) {
	at, ok := t.complete(tripID{wan.KindApplication, session, seq})
	if !ok {
		return 0, false
	}
	return at.request.delay() + at.reply.delay(), true
}

func (t *Truth) complete(id tripID) (*trip, bool) {
	at := t.trips[id]
	return at, at != nil && at.request.complete() && at.reply.complete()
}

// Mean is the network's mean round-trip delay from node to peer over all probe
// packets of either end; 0 from a node to itself, and false when the network carried
// none in one of the directions.
func (t *Truth) Mean(node, peer string) (time.Duration, bool) {
	if node == peer {
		return 0, true
	}
	there, ok := t.delays[t.direction(node, peer)].value()
	if !ok {
		return 0, false
	}
	back, ok := t.delays[t.direction(peer, node)].value()
	return there + back, ok
}

// Held returns the mean of how long the packets of a probe from node to peer
// were held, both ways together, over all that node sent from since to until:
// what node's agent can know of the pair. It is 0 from a node to itself, and
// false when there was none.
func (t *Truth) Held(since, until time.Time) func(node, peer string) (time.Duration, bool) {
	means := make(map[direction]*mean)
	for id := range t.trips {
		at, ok := t.complete(id)
		if sent := time.Unix(0, at.request.received); !ok || id.kind != wan.KindProbe || sent.Before(since) || sent.After(until) {
			continue
		}
		if means[at.way] == nil {
			means[at.way] = &mean{}
		}
		means[at.way].add(at.request.held() + at.reply.held())
	}
	return func(node, peer string) (time.Duration, bool) {
		if node == peer {
			return 0, true
		}
		return means[t.direction(node, peer)].value()
	}
}

// direction is that of a packet between two nodes, which must be known.
func (t *Truth) direction(from, to string) direction {
	return direction{uint16(slices.Index(t.names, from)), uint16(slices.Index(t.names, to))}
}

func (m *mean) add(d time.Duration) {
	m.sum += d
	m.count++
}

// value is false when nothing was added, also for nil.
func (m *mean) value() (time.Duration, bool) {
	if m == nil || m.count == 0 {
		return 0, false
	}
	return m.sum / time.Duration(m.count), true
}
