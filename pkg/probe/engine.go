package probe

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"k8s.io/klog/v2"
)

const (
	// batch is how many packets or stamps one system call sends or brings.
	batch = 32

	// rest is how long an engine leaves packets in the socket after it has
	// read some, where the kernel stamps them. What it costs to wake is shared
	// by all that come meanwhile. The reflector's part in a round trip is
	// longer by as much, and subtracted: between clocks that differ by 100 ppm
	// 10 ms are 1 µs. An engine of 1000 peers wakes 100 times a second for
	// 2000 packets; more often was most of what it cost.
	rest = 10 * time.Millisecond
)

// engine is what the methods over datagrams have in common: the sockets, whose
// transmit stamp has which number, and the prober. What differs is in its
// protocol.
type engine struct {
	lifecycle
	// Stamps is Kernel if the kernel stamps the packets of this engine, and
	// User if it refused to, so that each sample will be a User one.
	Stamps StampSource

	protocol  protocol
	reflector *Reflector // nil if it answers nobody
	limit     int        // requests in one system call
	local     netip.AddrPort

	// Of Run, but for what is of a port.
	sockets *sockets
	take    func(*socket, []datagram, reading) // handle, once, since it is allocated
	tired   bool                               // it has read some and is to rest

	// Guarded by mu.
	prober *prober
	ports  []*port
}

// protocol is what a method adds to an engine. All of it is called with the
// engine's lock held, but for check.
type protocol interface {
	// check says whether a probe can be sent.
	check(Probe) error
	// request writes the packet that leaves, into b where it is not the same
	// for all packets.
	request(b *[packetRoom]byte, k *packet) []byte
	// received takes a packet that arrived.
	received(*port, *datagram, reading)
	// flush is called when all packets of one look at a socket were taken.
	flush(*port)
}

// transport is what packets of an engine are carried in.
type transport int

const (
	overUDP transport = iota
	overICMP
)

// packetRoom holds a packet of either method: 8 octets of an ICMP header and
// MaxSize.
const packetRoom = 8 + MaxSize

// port is a socket, and what was sent from it.
type port struct {
	*socket
	transmits [2048]transmit
	unread    int        // packets sent since their stamps were collected
	queue     []transmit // packets that flush will send, in the order of socket.put
	requests  [batch][packetRoom]byte
}

// transmit says whose transmit stamp has the given number. Stamps follow
// within microseconds, or after ARP has an answer (seconds at worst), so some
// thousands of the newest numbers are enough.
type transmit struct {
	id     uint32
	index  int         // in the caller's batch, until it was sent
	packet *packet     // set for a request
	record *reflection // set for a reply, unless it is not to be recorded
	ticket uint64
}

// mostUnread is how many packets leave from a port before their stamps are
// collected although nothing arrived. A socket with the kernel's default buffer
// has room for twice as many.
const mostUnread = 4 * batch

// datagram is a packet that was received. It is valid until the next receive.
type datagram struct {
	payload   []byte
	from      netip.AddrPort
	to        netip.Addr // the local address, if the socket is bound to none
	stamp     int64      // the kernel's, unix nanoseconds; 0 if there is none
	truncated bool
}

// transmitStamp is a kernel's stamp of a packet that was sent.
type transmitStamp struct {
	id    uint32 // as the kernel counts; see socket.number
	stamp int64  // unix nanoseconds
}

// newEngine takes the sockets over. The first is the one whose address the
// engine is known by.
func newEngine(ctx context.Context, s *sockets, p *prober, protocol protocol, outcome func(Outcome)) *engine {
	local := s.all[0].local
	e := &engine{
		lifecycle: lifecycle{name: fmt.Sprintf("at %v", local), outcome: outcome, tick: tickOf(p.timeout), results: &p.results},
		Stamps:    Kernel,
		limit:     batch,
		protocol:  protocol,
		sockets:   s,
		local:     local,
		prober:    p,
	}
	e.runner, e.take = e, e.handle
	for _, socket := range s.all {
		e.ports = append(e.ports, &port{socket: socket, queue: make([]transmit, 0, batch)})
	}
	if reason := s.all[0].unstamped; reason != nil {
		e.Stamps = User
		// The user's clock is read once before a system call: each packet
		// needs its own.
		e.limit = 1
		klog.FromContext(ctx).Info("The kernel does not stamp packets here, round trips include what the host adds", "address", e.local, "reason", reason)
	}
	return e
}

// LocalAddr is the address that the engine is bound to, with its port; for
// ICMP that is the identifier of its echo requests.
func (e *engine) LocalAddr() netip.AddrPort { return e.local }

// Send sends one packet now and does not block. When it returns nil the packet
// ends in exactly one Outcome, otherwise in none. The first packet to a peer
// starts a session.
func (e *engine) Send(p Probe) error {
	if failures := e.send([]Probe{p}); len(failures) > 0 {
		return failures[0].err
	}
	return nil
}

// SendBatch sends packets now, in few system calls, and does not block. It
// calls failed with the index of each that was not sent, and why; as with Send
// those have no Outcome, and all others exactly one. One that fails does not
// keep those after it.
func (e *engine) SendBatch(probes []Probe, failed func(i int, err error)) {
	for _, f := range e.send(probes) {
		failed(f.index, f.err)
	}
}

// failure is a packet that was not sent.
type failure struct {
	index int
	err   error
}

func (e *engine) send(probes []Probe) (failures []failure) {
	// In parts, so that replies to others need not wait for all of them.
	for first := 0; first < len(probes); first += batch {
		failures = e.sendPart(probes, first, min(first+batch, len(probes)), failures)
	}
	return failures
}

// sendPart sends probes first to end-1, and appends those that failed.
func (e *engine) sendPart(probes []Probe, first, end int, failures []failure) []failure {
	e.mu.Lock()
	defer e.mu.Unlock()
	failed := func(i int, err error) {
		failures = append(failures, failure{i, fmt.Errorf("probe %v: %w", probes[i].Peer, err)})
	}
	flush := func(p *port) {
		e.flush(p, func(t transmit, err error) {
			e.prober.abort(t.packet)
			e.prober.counters.SendFailed++
			failed(t.index, fmt.Errorf("send: %w", err))
		})
	}
	for i := first; i < end; i++ {
		probe := probes[i]
		if err := e.protocol.check(probe); err != nil {
			failed(i, err)
			continue
		}
		if e.state >= stopping {
			failed(i, net.ErrClosed)
			continue
		}
		// Packets with one tag share a path where paths are chosen by the
		// hash of addresses and ports (ECMP); those of others see other paths.
		p := e.ports[probe.Tag%uint64(len(e.ports))]
		k := e.prober.begin(probe)
		p.put(len(p.queue), e.protocol.request(&p.requests[len(p.queue)], k), e.prober.key(probe.Peer), netip.Addr{})
		p.queue = append(p.queue, transmit{index: i, packet: k, ticket: k.ticket})
		if len(p.queue) >= e.limit {
			flush(p)
		}
	}
	for _, p := range e.ports {
		flush(p)
	}
	return failures
}

// flush sends what is queued, remembers whose transmit stamps will come, and
// calls failed for each packet that the kernel did not take.
func (e *engine) flush(p *port, failed func(transmit, error)) {
	if len(p.queue) == 0 {
		return
	}
	if p.unread >= mostUnread {
		e.collect(p)
	}
	now := read()
	for i := range p.queue {
		if k := p.queue[i].packet; k != nil {
			k.sent = now
		}
	}
	for first := 0; first < len(p.queue); {
		sent, id, err := p.send(first, len(p.queue))
		for i := range sent {
			t := p.queue[first+i]
			t.id = id + uint32(i)
			p.transmits[t.id%uint32(len(p.transmits))] = t
			if t.packet != nil {
				e.prober.counters.Sent++
			}
		}
		first += sent
		p.unread += sent
		if err != nil {
			e.collect(p) // as long as numbers mean what they meant
			p.recount()
			failed(p.queue[first], err)
			first++
		}
	}
	p.queue = p.queue[:0]
}

// Forget drops what is known of a peer that is gone. Samples that are held
// are delivered, packets under way are Discarded, both by Run and soon. A
// packet that is sent to the peer after this starts a new session.
func (e *engine) Forget(peer netip.AddrPort) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.prober.forget(peer)
}

// wait receives, and hands over what there is.
func (e *engine) wait(deadline time.Time) error {
	if e.tired {
		time.Sleep(rest)
	}
	packets, err := e.sockets.receive(deadline, e.take)
	e.tired = packets > 0 && e.Stamps == Kernel
	return err
}

// settle has only what waits for too long to do: handle has done the rest.
func (e *engine) settle(now time.Time, due bool) {
	if due {
		e.prober.expire(now)
	}
}

func (e *engine) wake() { e.sockets.wake() }

func (e *engine) end() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.prober.end()
	return e.sockets.close()
}

// handle takes the packets that one look at a socket brought. All of them
// were there when now was read.
func (e *engine) handle(s *socket, datagrams []datagram, now reading) {
	e.mu.Lock()
	p := e.ports[slices.IndexFunc(e.ports, func(p *port) bool { return p.socket == s })]
	// After the packets were read: what was transmitted before a reply
	// arrived has its stamp on the error queue by now.
	e.collect(p)
	for i := range datagrams {
		e.protocol.received(p, &datagrams[i], now)
	}
	e.protocol.flush(p)
	e.mu.Unlock()
	e.deliver()
}

// collect reads all transmit stamps that are there.
func (e *engine) collect(p *port) {
	p.unread = 0
	for {
		stamps, more := p.transmitted()
		for _, s := range stamps {
			id := p.number(s.id)
			t := &p.transmits[id%uint32(len(p.transmits))]
			switch {
			case t.id != id:
			case t.packet != nil:
				t.packet.transmitted(t.ticket, s.stamp)
			case t.record != nil:
				e.reflector.transmitted(t.record, t.ticket, s.stamp)
			}
		}
		if !more {
			return
		}
	}
}
