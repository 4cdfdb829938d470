package wan

import (
	"hash/fnv"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

const (
	// spin is how long before a deadline the hub stops sleeping. Waking up from
	// an idle core was measured at 10 to 60 µs; under SCHED_FIFO, nothing else
	// runs on that core meanwhile, so it has to be short.
	spin = int64(80 * time.Microsecond)
	// capacity bounds the packets on their way: 4096 are 8 MiB of buffers and
	// half a second of 8000 packets a second.
	capacity = 4096
	// batch is how many packets are received before deadlines are looked at again.
	batch = 16
	// oldest is the greatest age of a receive stamp that is believed. A greater
	// one, or one from the future, means that the clock was set.
	oldest = int64(time.Second)
)

// Counters are what the WAN did since its start, in packets.
type Counters struct {
	Forwarded  uint64
	Lost       uint64 // by a link's Loss
	Duplicated uint64 // by a link's Duplicate; the copies are not logged
	Down       uint64 // on a link that is down or blocks the protocol, or that no Link names
	Unknown    uint64 // for an address that is no node's, or no plain IPv4 of the usual size
	Overflowed uint64 // because too many were on their way
	Overrun    uint64 // because the hub did not read fast enough
	Refused    uint64 // by the kernel, on sending
	Unstamped  uint64 // logged with a clock reading in place of a kernel stamp
	Unlogged   uint64 // missing from the log because it was not written fast enough
	// Latest is the greatest time by which a packet left after its deadline.
	// The log is true all the same: it says when it left.
	Latest time.Duration
	// Realtime says that SCHED_FIFO was permitted.
	Realtime bool
}

// hub is the state of the thread that carries the packets. It owns all of it
// but the links, which the control connection swaps under it, the counters,
// which are read meanwhile, and the journal's reading end.
type hub struct {
	receiver, sender *socket
	nodes            []station
	byDevice         map[int32]int32
	byAddress        map[[4]byte]int32
	links            []atomic.Pointer[Delay] // by from*len(nodes)+to
	directions       []direction             // likewise
	queue            queue
	buffers          []byte
	free             []int32 // slots of buffers
	journal          *journal
	base             time.Time // zero of the monotonic clock
	counters         struct {
		forwarded, lost, duplicated, down, unknown, overflowed, overrun, refused, unstamped atomic.Uint64
		latest                                                                              atomic.Int64
	}
}

// station is a node as the hub sees it.
type station struct {
	name    string
	index   uint16
	device  int32
	address [4]byte
}

// direction is what the hub keeps of a link besides its Delay.
type direction struct {
	luck *rand.PCG
	last int64 // deadline of the latest packet, which the next one may not undercut
}

func newHub(receiver, sender *socket, nodes []station, seed uint64) *hub {
	h := &hub{
		receiver:   receiver,
		sender:     sender,
		nodes:      nodes,
		byDevice:   map[int32]int32{},
		byAddress:  map[[4]byte]int32{},
		links:      make([]atomic.Pointer[Delay], len(nodes)*len(nodes)),
		directions: make([]direction, len(nodes)*len(nodes)),
		queue:      newQueue(capacity),
		buffers:    make([]byte, capacity*slotSize),
		journal:    newJournal(),
		base:       time.Now(),
	}
	for i := range h.buffers {
		h.buffers[i] = 1 // has the kernel give us the memory now, not at the first packet
	}
	for slot := range int32(capacity) {
		h.free = append(h.free, slot)
	}
	for i, n := range nodes {
		h.byDevice[n.device] = int32(i)
		h.byAddress[n.address] = int32(i)
		for j, m := range nodes {
			h.directions[i*len(nodes)+j].luck = luck(seed, n.name, m.name)
		}
	}
	return h
}

// luck is the random source of one direction. It depends on the names, not on
// how many nodes there are or in which order.
func luck(seed uint64, from, to string) *rand.PCG {
	name := fnv.New64a()
	name.Write([]byte(from + "\x00" + to))
	return rand.NewPCG(seed, name.Sum64())
}

// run carries packets for ever.
func (h *hub) run() {
	for {
		h.receive()
		wait := h.release()
		switch {
		case wait < 0:
			h.receiver.wait(-1)
		case wait > spin:
			h.receiver.wait(wait - spin)
		default:
			for due := h.queue.first().due; h.now() < due; {
			}
		}
	}
}

func (h *hub) now() int64 { return int64(time.Since(h.base)) }

// receive takes in at most a batch of packets.
func (h *hub) receive() {
	for range batch {
		if len(h.free) == 0 {
			h.discard()
			return
		}
		slot := h.free[len(h.free)-1]
		buffer := h.buffer(slot)
		length, device, stamp, errno := h.receiver.receive(buffer)
		if errno != 0 {
			return
		}
		if length > len(buffer) || length < virtioHeader {
			h.counters.unknown.Add(1)
			continue
		}
		if h.admit(parcel{slot: slot, length: int32(length), received: stamp}, device) {
			h.free = h.free[:len(h.free)-1]
		}
	}
}

// discard takes a packet in for which there is no room.
func (h *hub) discard() {
	var none [virtioHeader]byte
	if _, _, _, errno := h.receiver.receive(none[:]); errno == 0 {
		h.counters.overflowed.Add(1)
	}
}

// admit decides on a packet's fate: it queues it, or reports false.
func (h *hub) admit(p parcel, device int32) bool {
	frame := h.buffer(p.slot)[virtioHeader:p.length]
	address, size, ok := destination(frame)
	from, knownFrom := h.byDevice[device]
	to, knownTo := h.byAddress[address]
	if !ok || !knownFrom || !knownTo || from == to {
		h.counters.unknown.Add(1)
		return false
	}
	p.from, p.to, p.size = from, to, size
	p.identity, p.logged = identify(frame)

	clock := time.Now()
	now := int64(clock.Sub(h.base))
	age := clock.UnixNano() - p.received
	if p.received == 0 || age < 0 || age > oldest {
		age = 0
		p.received = clock.UnixNano()
	}

	pair := int(from)*len(h.nodes) + int(to)
	direction := &h.directions[pair]
	loss, jitter := uniform(direction.luck), uniform(direction.luck)
	link := h.links[pair].Load()
	switch {
	case link == nil || link.Down || link.Blocked.has(frame[ethernetHeader+9]):
		h.counters.down.Add(1)
		h.record(&p, 0)
		return false
	case loss < link.Loss:
		h.counters.lost.Add(1)
		h.record(&p, 0)
		return false
	}
	p.due = now - age + int64(link.draw(jitter))
	if !link.Reorder {
		p.due = max(p.due, direction.last)
	}
	p.held = p.due - (now - age)
	direction.last = max(p.due, direction.last)
	h.queue.push(p)
	// Not by one more draw, which would change the luck of all packets after
	// this one: by the digits of the draw that hardly matter to it.
	if _, digits := math.Modf(jitter * (1 << 20)); digits < link.Duplicate && len(h.free) > 1 {
		h.duplicate(p)
	}
	return true
}

// duplicate queues a copy of a packet right after it. The caller has yet to
// take the packet's own slot, the last of those that are free.
func (h *hub) duplicate(p parcel) {
	original, at := p.slot, len(h.free)-2
	p.slot, p.logged = h.free[at], false
	copy(h.buffer(p.slot), h.buffer(original)[:p.length])
	h.free = append(h.free[:at], original)
	h.counters.duplicated.Add(1)
	h.queue.push(p)
}

// uniform is a random number in (0, 1).
func uniform(source *rand.PCG) float64 {
	return (float64(source.Uint64()>>11) + 0.5) / (1 << 53)
}

// release sends what is due and returns the time until the next deadline, or -1
// if nothing waits.
func (h *hub) release() int64 {
	for {
		first := h.queue.first()
		if first == nil {
			return -1
		}
		now := h.now()
		if first.due > now {
			return first.due - now
		}
		p := h.queue.pop()
		if late := now - p.due; late > h.counters.latest.Load() {
			h.counters.latest.Store(late)
		}
		h.send(&p)
		h.free = append(h.free, p.slot)
	}
}

func (h *hub) send(p *parcel) {
	clock := time.Now().UnixNano()
	stamp, errno := h.sender.send(h.buffer(p.slot)[:p.length], h.nodes[p.to].device, p.logged)
	if errno != 0 {
		h.counters.refused.Add(1)
		h.record(p, 0)
		return
	}
	h.counters.forwarded.Add(1)
	if p.logged && stamp == 0 {
		h.counters.unstamped.Add(1)
		stamp = clock
	}
	h.record(p, stamp)
}

// record logs a packet; released is 0 for one that is dropped.
func (h *hub) record(p *parcel, released int64) {
	if !p.logged {
		return
	}
	due := p.received + p.held
	if released == 0 {
		due = 0
	}
	h.journal.add(Record{
		Kind: p.identity.kind, Reply: p.identity.reply, Session: p.identity.session, Seq: p.identity.seq,
		From: h.nodes[p.from].index, To: h.nodes[p.to].index, Size: p.size,
		Received: p.received, Due: due, Released: released, Dropped: released == 0,
	})
}

func (h *hub) buffer(slot int32) []byte {
	return h.buffers[int(slot)*slotSize : int(slot+1)*slotSize]
}

func (h *hub) read() Counters {
	c := &h.counters
	c.overrun.Add(h.receiver.overruns())
	return Counters{
		Forwarded: c.forwarded.Load(), Lost: c.lost.Load(), Duplicated: c.duplicated.Load(), Down: c.down.Load(), Unknown: c.unknown.Load(),
		Overflowed: c.overflowed.Load(), Overrun: c.overrun.Load(), Refused: c.refused.Load(),
		Unstamped: c.unstamped.Load(), Unlogged: h.journal.dropped.Load(), Latest: time.Duration(c.latest.Load()),
	}
}
