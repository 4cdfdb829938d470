package probe

import (
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"
)

// prober matches what comes back with what was sent. It knows no socket and
// no clock: packets, stamps and readings of the clock come in, Outcomes pile
// up in ready. It is owned by an engine and guarded by its mutex.
type prober struct {
	timeout, hold time.Duration
	echo          bool // peers are addresses, and their kernels answer (ICMP)
	newSession    func() uint64

	sessions map[netip.AddrPort]*session
	results

	free    []*packet // packets that have ended, to be used again
	tickets uint64
}

// session is the prober's side of all packets to one peer.
type session struct {
	id   uint64
	next uint32 // sequence number of the next packet
	// newest is the latest packet that was answered in time, and when its
	// answer arrived by the kernel's stamp, if it has one.
	newest   uint32
	newestT4 int64
	// answered has bit i set if packet next-1-i was answered. It tells a
	// duplicate from a late reply after the packet has ended.
	answered    uint64
	outstanding []*packet // in the order they were sent
}

// packet is one probe under way: waiting for its reply, or answered and held
// for the reflector's transmit stamp.
type packet struct {
	Probe
	exchange
	session *session
	seq     uint32
	held    bool
	ticket  uint64 // never the same for two packets; 0 when the packet has ended
}

// ending is what becomes of a packet.
type ending uint8

const (
	stays ending = iota
	sampled
	lost
	abandoned
)

func newProber(timeout, hold time.Duration, echo bool) *prober {
	stamps := []string{"t1", "t2", "t3", "t4"}
	if echo {
		stamps = []string{"t1", "t4"}
	}
	return &prober{
		timeout: timeout, hold: hold, echo: echo,
		newSession: randomSession,
		sessions:   make(map[netip.AddrPort]*session),
		results: results{counters: Counters{
			Ignored: counts(Malformed, WrongSize, WrongSource, WrongSession, Unsent, Duplicate, Late, Unwanted),
			Missing: counts(stamps...),
		}},
	}
}

// randomSession makes blind spoofing of replies useless: 64 bits that an
// attacker off the path would have to guess.
func randomSession() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint64(b[:])
}

// begin takes the next packet of the peer's session. It must be sent, or
// taken back with abort before the lock is released.
func (p *prober) begin(probe Probe) *packet {
	peer := p.key(probe.Peer)
	s := p.sessions[peer]
	if s == nil {
		s = &session{id: p.newSession(), next: 1}
		p.sessions[peer] = s
	}
	var k *packet
	if last := len(p.free) - 1; last >= 0 {
		k, p.free = p.free[last], p.free[:last]
	} else {
		k = new(packet)
	}
	p.tickets++
	*k = packet{Probe: probe, exchange: exchange{echo: p.echo}, session: s, seq: s.next, ticket: p.tickets}
	s.next++
	s.answered <<= 1
	s.outstanding = append(s.outstanding, k)
	return k
}

// abort takes back a packet that was not sent. Its number is used again unless
// the session has a newer packet in the same batch.
func (p *prober) abort(k *packet) {
	s := k.session
	if k.seq == s.next-1 {
		s.next--
		s.answered >>= 1
	}
	s.outstanding = slices.DeleteFunc(s.outstanding, func(other *packet) bool { return other == k })
	p.release(k)
}

// transmitted notes the kernel's stamp t1. The first one wins: on some paths
// (bpf_redirect) the kernel gives two, and the first is nearer to the sender.
// One from before the packet was sent is another's, whose number came again.
func (k *packet) transmitted(ticket uint64, t1 int64) {
	if k.ticket == ticket && k.t1 == 0 && t1 >= k.sent.unix {
		k.t1 = t1
	}
}

// reply matches a reply of size octets that came from the given address, with
// the kernel's stamp t4 (0 if there is none) and what the user's clocks said
// after it was read.
func (p *prober) reply(from netip.AddrPort, h Header, size int, t4 int64, now reading) {
	s := p.sessions[p.key(from)]
	if s == nil {
		p.counters.Ignored[WrongSource]++
		return
	}
	if s.id != h.Session {
		p.counters.Ignored[WrongSession]++
		return
	}
	behind := s.next - 1 - h.Seq // how many packets were sent after this one
	if h.Seq == 0 || int32(behind) < 0 {
		p.counters.Ignored[Unsent]++
		return
	}
	k := s.find(h.Seq)
	switch {
	case k != nil && k.held, k == nil && behind < 64 && s.answered>>behind&1 == 1:
		p.counters.Ignored[Duplicate]++
		return
	case k == nil:
		p.counters.Ignored[Late]++
		return
	case k.Size != size:
		p.counters.Ignored[WrongSize]++
		return
	}

	// The reflector keeps one stamp per session, and each reply brings that of
	// the one before. Two that left for different ports are read in any order:
	// the stamp may come before the reply that it is of, or after a later one.
	p.sweep(s, func(other *packet) ending {
		// The kernel's stamp cannot be before the user's own, which is 0 until
		// it has come; if it is, the reflector's clock was stepped in between.
		if h.PrevSent && h.PrevSeq == other.seq && h.PrevT3 >= other.userT3 {
			other.t3 = h.PrevT3
		}
		overtook := int32(h.PrevSeq-other.seq) > 0 && s.waiting(other.seq, h.Seq)
		if !other.held || int32(h.Seq-other.seq) < 0 || overtook {
			return stays
		}
		return sampled
	})

	k.received, k.t4 = now, t4
	k.t2, k.kernelT2, k.userT3 = h.T2, h.KernelT2, h.T3
	if k.t3 < k.userT3 {
		k.t3 = 0
	}
	if k.late(p.timeout) {
		p.counters.Ignored[Late]++
		p.sweep(s, func(other *packet) ending {
			if other == k {
				return lost
			}
			return stays
		})
		return
	}
	switch {
	case s.newest == 0 || int32(h.Seq-s.newest) > 0:
		s.newest, s.newestT4 = h.Seq, t4
	case t4 == 0 || t4 >= s.newestT4: // else it only waited in another socket
		p.counters.Reordered++
	}
	k.held = true
	if behind < 64 {
		s.answered |= 1 << behind
	}
	if p.hold == 0 || k.t3 != 0 {
		p.sweep(s, func(other *packet) ending {
			if other == k {
				return sampled
			}
			return stays
		})
	}
}

// late says that the reply came after the timeout. An agent that was stopped
// for a while must not take what waited in its socket for late, so the stamps
// can say otherwise; they cannot make late what the monotonic clock saw in
// time.
func (k *packet) late(timeout time.Duration) bool {
	stamped := k.t1 != 0 && k.t4 != 0
	return k.received.at.Sub(k.sent.at) > timeout && !(stamped && time.Duration(k.t4-k.t1) <= timeout)
}

// expire ends what has waited for too long at now.
func (p *prober) expire(now time.Time) {
	for _, s := range p.sessions {
		p.sweep(s, func(k *packet) ending {
			switch {
			case k.held && now.Sub(k.received.at) >= p.hold:
				return sampled
			case !k.held && now.Sub(k.sent.at) > p.timeout:
				return lost
			}
			return stays
		})
	}
}

// forget ends all packets to the peer and its session.
func (p *prober) forget(peer netip.AddrPort) {
	if s := p.sessions[p.key(peer)]; s != nil {
		p.sweep(s, func(k *packet) ending {
			if k.held {
				return sampled
			}
			return abandoned
		})
		delete(p.sessions, p.key(peer))
	}
}

// end ends everything.
func (p *prober) end() {
	for peer := range p.sessions {
		p.forget(peer)
	}
}

// sweep asks of each outstanding packet of the session what becomes of it.
func (p *prober) sweep(s *session, verdict func(*packet) ending) {
	s.outstanding = slices.DeleteFunc(s.outstanding, func(k *packet) bool {
		how := verdict(k)
		if how == stays {
			return false
		}
		p.finish(k, how)
		return true
	})
}

// finish is the only place where an Outcome comes from.
func (p *prober) finish(k *packet, how ending) {
	o := Outcome{Probe: k.Probe, Session: k.session.id, Seq: k.seq, Sent: k.sent.at}
	switch how {
	case lost:
		o.Lost = true
		p.counters.Lost++
	case abandoned:
		o.Discarded = true
		p.counters.Abandoned++
	case sampled:
		var ok bool
		if o.RTT, o.Stamps, ok = k.roundTrip(); !ok {
			o.Discarded = true
			p.counters.OutOfBracket++
			break
		}
		p.count(k, o.Stamps)
	}
	p.ready = append(p.ready, o)
	p.release(k)
}

func (p *prober) count(k *packet, source StampSource) {
	if source == Kernel {
		p.counters.KernelSamples++
		return
	}
	p.counters.UserSamples++
	for _, stamp := range [...]struct {
		name    string
		present bool
	}{{"t1", k.t1 != 0}, {"t2", k.kernelT2}, {"t3", k.t3 != 0}, {"t4", k.t4 != 0}} {
		if !stamp.present && !(p.echo && (stamp.name == "t2" || stamp.name == "t3")) {
			p.counters.Missing[stamp.name]++
		}
	}
}

func (p *prober) release(k *packet) {
	*k = packet{}
	p.free = append(p.free, k)
}

// find looks from the newest packet, which is the one that most replies are
// for.
func (s *session) find(seq uint32) *packet {
	for _, k := range slices.Backward(s.outstanding) {
		if k.seq == seq {
			return k
		}
	}
	return nil
}

// waiting says that a packet after one and before another has no reply yet.
func (s *session) waiting(after, before uint32) bool {
	return slices.ContainsFunc(s.outstanding, func(k *packet) bool {
		return !k.held && int32(k.seq-after) > 0 && int32(before-k.seq) > 0
	})
}

// key is the peer as sessions know it.
func (p *prober) key(peer netip.AddrPort) netip.AddrPort {
	peer = key(peer)
	if p.echo {
		return netip.AddrPortFrom(peer.Addr(), 0)
	}
	return peer
}

// key is the peer without a difference that means nothing: an IPv4 address is the same one when
// it is written as IPv6.
func key(peer netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(peer.Addr().Unmap(), peer.Port())
}

func counts[K ~string](keys ...K) map[K]uint64 {
	m := make(map[K]uint64, len(keys))
	for _, k := range keys {
		m[k] = 0
	}
	return m
}
