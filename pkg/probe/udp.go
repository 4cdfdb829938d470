package probe

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"time"
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
	// Ports is the number of source ports that probes leave from, chosen by
	// their Tag: networks of many equal paths choose one by the hash of
	// addresses and ports, so that with one port only one path would be seen.
	// The first is the port of the UDP's address, the others are the kernel's
	// choice. 0 is the default, 4; other systems than Linux have 1.
	Ports int
	// Outcome receives what became of each packet, one call at a time and
	// from the goroutine of Run: while it runs nothing is received, so it
	// should be short. It may call Send, Forget and Counters. nil is for a
	// UDP that only reflects.
	Outcome func(Outcome)
	// Reflector answers the requests of others. nil answers nobody.
	Reflector *Reflector
}

const (
	defaultPorts = 4
	maxPorts     = 16
)

// UDP probes peers and answers them, on one port. Make it with ListenUDP.
type UDP struct {
	*engine
	replies []reply // that flush will send
}

// reply is what a Reflector answers.
type reply struct {
	Header
	request *datagram // whose payload becomes the reply's
	record  *reflection
	ticket  uint64
}

// replyBatch is how many replies leave in one system call. The user's clock is
// read once for all of them and some 10 µs pass for each, which is the error of
// a sample whose kernel stamp t3 does not come.
const replyBatch = 4

// ListenUDP opens the sockets at addr, whose family is the only one that can be
// probed. Port 0 takes a free one. ctx carries the logger and is not kept. The
// UDP must be ended, by the context of Run or by Close.
func ListenUDP(ctx context.Context, addr netip.AddrPort, options UDPOptions) (*UDP, error) {
	if options.Timeout <= 0 || options.Hold < 0 {
		return nil, fmt.Errorf("probe from %v: timeout is %v and hold is %v: want a positive timeout and no negative hold", addr, options.Timeout, options.Hold)
	}
	if options.Ports < 0 || options.Ports > maxPorts {
		return nil, fmt.Errorf("probe from %v: %d source ports: want 1 to %d, or 0 for %d", addr, options.Ports, maxPorts, defaultPorts)
	}
	ports := options.Ports
	switch {
	case options.Outcome == nil:
		ports = 1 // it sends no probes
	case ports == 0:
		ports = defaultPorts
	}
	addr = key(addr)
	s, err := listen(ctx, overUDP, addr, ports)
	if err != nil {
		return nil, fmt.Errorf("open UDP socket for probes at %v: %w", addr, err)
	}
	u := &UDP{replies: make([]reply, 0, replyBatch)}
	u.engine = newEngine(ctx, s, newProber(options.Timeout, options.Hold, false), u, options.Outcome)
	u.reflector = options.Reflector
	return u, nil
}

func (u *UDP) check(p Probe) error {
	return cmp.Or(p.checkSize(), p.checkPort(u.local.Addr()))
}

// request leaves what is after the header as it is: zeros, always.
func (u *UDP) request(b *[packetRoom]byte, k *packet) []byte {
	Header{Kind: Request, Session: k.session.id, Seq: k.seq}.Encode(b[:])
	return b[:k.Size]
}

func (u *UDP) received(p *port, d *datagram, now reading) {
	h, err := Decode(d.payload)
	switch {
	case err != nil || d.truncated:
		u.prober.counters.Ignored[Malformed]++
	case h.Kind == Reply:
		u.prober.reply(d.from, h, len(d.payload), d.stamp, now)
	case u.reflector == nil:
		u.prober.counters.Ignored[Unwanted]++
	default:
		u.reflect(p, d, h, now)
	}
}

// reflect prepares the reply to a request.
func (u *UDP) reflect(p *port, d *datagram, request Header, now reading) {
	// Packets of a burst come together when this process had to wait for the
	// CPU or rested; the stamp of a reply goes with the next one still, and so
	// it has to leave before.
	for i := range u.replies {
		if u.replies[i].Session == request.Session {
			u.flush(p)
			u.collect(p)
			break
		}
	}
	t2 := d.stamp
	if t2 == 0 {
		t2 = now.unix
	}
	h, record, ticket, ok := u.reflector.answer(d.from, request, t2, d.stamp != 0, now.at)
	if !ok {
		return
	}
	u.replies = append(u.replies, reply{h, d, record, ticket})
	if len(u.replies) == cap(u.replies) || u.Stamps == User {
		u.flush(p)
	}
}

// flush sends the replies that are prepared. Their stamps are read before the
// next packets are.
func (u *UDP) flush(p *port) {
	if len(u.replies) == 0 {
		return
	}
	t3 := time.Now().UnixNano()
	for i := range u.replies {
		r := &u.replies[i]
		r.T3 = t3
		r.Encode(r.request.payload)
		p.put(i, r.request.payload, r.request.from, r.request.to)
		p.queue = append(p.queue, transmit{record: r.record, ticket: r.ticket})
	}
	failures := 0
	u.engine.flush(p, func(transmit, error) { failures++ })
	u.reflector.replied(len(u.replies)-failures, failures)
	u.replies = u.replies[:0]
}
