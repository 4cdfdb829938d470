package probe

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"sync"
	"time"

	"k8s.io/klog/v2"
)

// UDPOptions configures a UDP.
type UDPOptions struct {
	// Timeout is when a packet without an answer is lost; it must be positive.
	Timeout time.Duration
	// Hold is how long a sample waits for the reflector's transmit stamp,
	// which the next reply of the same peer brings; then it is delivered with
	// the reflector's user clock. More than the time between two packets to a
	// peer makes nearly every sample a Kernel one. 0 does not wait.
	Hold time.Duration
	// Outcome receives what became of each packet, one call at a time and
	// from the goroutine of Run: while it runs nothing is received, so it
	// should be short. It may call Send, Forget and Counters. nil is for a
	// UDP that only reflects.
	Outcome func(Outcome)
	// Reflector answers the requests of others. nil answers nobody.
	Reflector *Reflector
}

// UDP probes peers and answers them, on one port. Make it with ListenUDP.
type UDP struct {
	// Stamps is Kernel if the kernel stamps the packets of this socket, and
	// User if it refused to, so that each sample will be a User one.
	Stamps StampSource

	options UDPOptions
	tick    time.Duration
	socket  *socket // guarded by mu, but for receive, which is Run's

	mu        sync.Mutex
	state     runState
	prober    *prober
	transmits [4096]transmit
	out       [MaxSize]byte // zero after the header, always

	delivering []Outcome // of Run's goroutine
}

// batch is how many packets or stamps one look at the socket brings.
const batch = 32

type runState uint8

const (
	opened runState = iota
	running
	stopping
	closed
)

// transmit says whose transmit stamp has the given number. Stamps follow
// within microseconds, or after ARP has an answer (seconds at worst), so a few
// thousand of the newest numbers are enough.
type transmit struct {
	id     uint32
	packet *packet     // set for a request
	record *reflection // set for a reply
	ticket uint64
}

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

// ListenUDP opens the socket at addr, whose family is the only one that can be
// probed. Port 0 takes a free one. ctx carries the logger and is not kept. The
// UDP must be ended, by the context of Run or by Close.
func ListenUDP(ctx context.Context, addr netip.AddrPort, options UDPOptions) (*UDP, error) {
	if options.Timeout <= 0 || options.Hold < 0 {
		return nil, fmt.Errorf("probe from %v: timeout is %v and hold is %v: want a positive timeout and no negative hold", addr, options.Timeout, options.Hold)
	}
	addr = key(addr)
	s, err := listen(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("open UDP socket for probes at %v: %w", addr, err)
	}
	u := &UDP{
		Stamps:  Kernel,
		options: options,
		// Timeout and Hold are met this much later at most. Four times a
		// second costs nothing, and needs no timer per packet.
		tick:   min(max(options.Timeout/8, time.Millisecond), 250*time.Millisecond),
		socket: s,
		prober: newProber(options.Timeout, options.Hold),
	}
	if s.unstamped != nil {
		u.Stamps = User
		klog.FromContext(ctx).Info("The kernel does not stamp packets here, round trips include what the host adds", "address", s.local, "reason", s.unstamped)
	}
	return u, nil
}

// LocalAddr is the address that the socket is bound to, with its port.
func (u *UDP) LocalAddr() netip.AddrPort { return u.socket.local }

// Send sends one packet now and does not block. When it returns nil the packet
// ends in exactly one Outcome, otherwise in none. The first packet to a peer
// starts a session.
func (u *UDP) Send(p Probe) error {
	if p.Size < MinSize || p.Size > MaxSize {
		return fmt.Errorf("probe %v: size is %d: want %d to %d octets", p.Peer, p.Size, MinSize, MaxSize)
	}
	peer := key(p.Peer)
	if !peer.IsValid() || peer.Port() == 0 || peer.Addr().Is4() != u.socket.local.Addr().Is4() {
		return fmt.Errorf("probe %v from %v: want an address of the same family and a port", p.Peer, u.socket.local)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.state >= stopping {
		return fmt.Errorf("probe %v: %w", p.Peer, net.ErrClosed)
	}
	k := u.prober.begin(p)
	Header{Kind: Request, Session: k.session.id, Seq: k.seq}.Encode(u.out[:])
	k.sent = read()
	if err := u.emit(u.out[:p.Size], peer, netip.Addr{}, transmit{packet: k, ticket: k.ticket}); err != nil {
		u.prober.abort(k)
		u.prober.counters.SendFailed++
		return fmt.Errorf("probe %v: send: %w", p.Peer, err)
	}
	u.prober.counters.Sent++
	return nil
}

// emit sends one packet and remembers whose transmit stamp will come.
func (u *UDP) emit(b []byte, to netip.AddrPort, from netip.Addr, t transmit) error {
	var err error
	if t.id, err = u.socket.send(b, to, from); err != nil {
		u.collect() // as long as numbers mean what they meant
		u.socket.recount()
		return err
	}
	u.transmits[t.id%uint32(len(u.transmits))] = t
	return nil
}

// Forget drops what is known of a peer that is gone. Samples that are held
// are delivered, packets under way are Discarded, both by Run and soon. A
// packet that is sent to the peer after this starts a new session.
func (u *UDP) Forget(peer netip.AddrPort) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.prober.forget(peer)
}

// Counters returns what was counted so far.
func (u *UDP) Counters() Counters {
	u.mu.Lock()
	defer u.mu.Unlock()
	c := u.prober.counters
	c.Ignored, c.Missing = maps.Clone(c.Ignored), maps.Clone(c.Missing)
	return c
}

// Run receives until ctx is done, answers, and delivers Outcomes. Before it
// returns it ends every packet and closes the socket. It can be called once,
// and returns nil unless the socket fails.
func (u *UDP) Run(ctx context.Context) error {
	u.mu.Lock()
	if u.state != opened {
		u.mu.Unlock()
		return fmt.Errorf("run probes at %v: already run or closed: %w", u.socket.local, net.ErrClosed)
	}
	u.state = running
	u.mu.Unlock()
	defer u.finish()
	defer context.AfterFunc(ctx, func() { u.Close() })()

	next := time.Now().Add(u.tick)
	for {
		if err := u.socket.receive(time.Until(next), u.handle); err != nil {
			return fmt.Errorf("receive probes at %v: %w", u.socket.local, err)
		}
		u.mu.Lock()
		if u.state == stopping {
			u.mu.Unlock()
			return nil
		}
		// After receiving, so that what waits in the socket is not lost when
		// the whole agent was stopped for longer than the timeout.
		if now := time.Now(); !now.Before(next) {
			u.prober.expire(now)
			next = now.Add(u.tick)
		}
		u.mu.Unlock()
		u.deliver()
	}
}

// Close makes Run return, or closes the socket if Run was never called.
func (u *UDP) Close() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch u.state {
	case opened:
		u.state = closed
		return u.socket.close()
	case running:
		u.state = stopping
		u.socket.wake()
	}
	return nil
}

func (u *UDP) finish() {
	u.mu.Lock()
	u.state = closed
	u.prober.end()
	u.socket.close()
	u.mu.Unlock()
	u.deliver()
}

// handle takes the packets that one look at the socket brought. All of them
// were there when now was read.
func (u *UDP) handle(datagrams []datagram, now reading) {
	u.mu.Lock()
	// After the packets were read: what was transmitted before a reply
	// arrived has its stamp on the error queue by now.
	u.collect()
	for i := range datagrams {
		if u.received(&datagrams[i], now) {
			// Packets of a burst come together when this process had to wait
			// for the CPU; the stamp of a reply goes with the next one still.
			u.collect()
		}
	}
	u.mu.Unlock()
	u.deliver()
}

// collect reads all transmit stamps that are there.
func (u *UDP) collect() {
	for {
		stamps := u.socket.transmitted()
		for _, s := range stamps {
			u.stamped(u.socket.number(s.id), s.stamp)
		}
		if len(stamps) < batch {
			return
		}
	}
}

func (u *UDP) stamped(id uint32, stamp int64) {
	t := u.transmits[id%uint32(len(u.transmits))]
	switch {
	case t.id != id:
	case t.packet != nil:
		t.packet.transmitted(t.ticket, stamp)
	case t.record != nil:
		u.options.Reflector.transmitted(t.record, t.ticket, stamp)
	}
}

// received says whether it sent a reply.
func (u *UDP) received(d *datagram, now reading) bool {
	h, err := Decode(d.payload)
	if err != nil || d.truncated {
		u.prober.counters.Ignored[Malformed]++
		return false
	}
	switch {
	case h.Kind == Reply:
		u.prober.reply(d.from, h, len(d.payload), d.stamp, now)
		return false
	case u.options.Reflector == nil:
		u.prober.counters.Ignored[Unwanted]++
		return false
	}
	return u.reflect(d, h, now)
}

func (u *UDP) reflect(d *datagram, request Header, now reading) bool {
	r := u.options.Reflector
	t2 := d.stamp
	if t2 == 0 {
		t2 = now.unix
	}
	reply, record, ticket, ok := r.answer(d.from, request, t2, d.stamp != 0, now.at)
	if !ok {
		return false
	}
	reply.T3 = time.Now().UnixNano()
	reply.Encode(d.payload)
	err := u.emit(d.payload, d.from, d.to, transmit{record: record, ticket: ticket})
	r.replied(err)
	return err == nil
}

// deliver calls Outcome for all that is ready.
func (u *UDP) deliver() {
	u.mu.Lock()
	u.delivering, u.prober.ready = u.prober.ready, u.delivering[:0]
	u.mu.Unlock()
	if u.options.Outcome == nil {
		return
	}
	for _, o := range u.delivering {
		u.options.Outcome(o)
	}
}
