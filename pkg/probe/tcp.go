package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// TCPOptions configures a TCP.
type TCPOptions struct {
	// Timeout is when a connect without an answer is lost; it must be
	// positive. Where the first SYN was lost it makes no difference beyond
	// about a second: the kernel sends another one then, whose answer shows
	// the loss and is no sample.
	Timeout time.Duration
	// Limit is how many connects may be under way at once, each of which has
	// a descriptor; Send fails beyond it. The default is 512: a full mesh of
	// 128 peers has about 100 under way when none of them answers.
	Limit int
	// Outcome receives what became of each probe, one call at a time and from
	// the goroutine of Run. It may call Send, Forget and Counters.
	Outcome func(Outcome)
}

const defaultTCPLimit = 512

// Reasons that only a TCP has.
const (
	// Refused is a connect that was refused: the peer's host, or a firewall
	// before it, says that nobody listens there. Its probe is Discarded: the
	// network did carry an answer, so it is no loss, and no kernel measures
	// how long a refusal took, so it is no sample.
	Refused Reason = "refused"
	// Retransmitted is an answer to a SYN that had to be sent again. Its probe
	// is lost.
	Retransmitted Reason = "retransmitted"
)

// TCP probes peers by opening connections to a port of theirs: an agent's, or
// that of a service (Qdrant's, say) where there is no agent. Make it with
// OpenTCP. It has the shape of UDP, and is Linux's only.
//
// # Method
//
// The round trip is the time from our SYN to the answer to it, as our kernel
// measures it for its retransmission timer (RFC 6298, section 2.2) and shows in
// TCP_INFO (tcpi_rtt, whole microseconds). The peer's kernel answers, before
// any process there knows of the connection, so that neither process is in it;
// the peer's interrupt handling is. Nothing is sent afterwards that would make
// a second sample, so it is that of the handshake. The kernel takes both times
// from CLOCK_MONOTONIC (tcp_clock_ns), the clock of the bracket that a sample is
// checked against: a step of the wall clock can neither bend a sample nor
// discard one.
//
// A SYN that had to be sent again is a loss whatever comes back later, since
// nobody knows which of the two was answered (Karn's algorithm), and since the
// second it took would be counted as a latency. A peer whose accept queue is
// full drops SYNs too; a probe cannot tell that from the network.
//
// Each connect has a source port of its own, and so sees another of the paths
// that routers choose by ports. Probe.Size is not used: SYNs have one size.
//
// # What the peer sees
//
// A connection that ends at once without a request, as from a load balancer's
// health check: a FIN and, right behind it, a RST. Servers log a reset
// connection far oftener than one that ended (grpc-go is silent about the
// latter since its #1052 and declined to be about the former in #1272); after
// the FIN, Linux lets them read the end and nothing else. A FIN alone would
// leave us with a socket in TIME-WAIT for a minute, thousands of them at 50
// probes a second; the RST leaves nothing at either end, unless the peer's own
// FIN came before we sent it, and ten seconds in connection tracking.
//
// # Counters
//
// SendFailed includes probes beyond the limit. KernelSamples, Lost,
// OutOfBracket, Abandoned and Ignored[Refused] are the outcomes. OutOfBracket
// includes handshakes that the kernel did not measure.
type TCP struct {
	lifecycle
	timeout time.Duration
	local   netip.Addr
	session uint64

	ended []connectID // since the last wait; of Run's goroutine

	// Guarded by mu.
	connector *connector // but for wait and wake
	connects  []connect  // of Limit; a connect's place in it is its slot
	free      []int      // slots
	seq       uint32
}

// connect is one probe under way, or a slot that is free.
type connect struct {
	Probe
	connectID
	underWay bool
	sent     time.Time
	fd       int
}

// connectID says which connect an event is about. A slot is used again; its
// number tells whether it still is the same connect.
type connectID struct {
	slot int
	seq  uint32
}

// handshake is what the kernel knows of a connect that has come to an end,
// good or bad.
type handshake struct {
	rtt           time.Duration // 0 if it did not measure one
	retransmitted bool          // more than one SYN was sent
	refused       bool
	failed        bool // for another reason than being refused
}

// errLimit is a Send with as many probes under way as there may be.
var errLimit = errors.New("as many probes are under way as there may be at once")

// OpenTCP prepares to probe from the local address, whose family is the only
// one that can be probed; the unspecified address of a family leaves the choice
// to the kernel. The TCP must be ended, by the context of Run or by Close. On
// other systems than Linux the error is errors.ErrUnsupported.
func OpenTCP(_ context.Context, local netip.Addr, options TCPOptions) (*TCP, error) {
	if options.Limit == 0 {
		options.Limit = defaultTCPLimit
	}
	if options.Timeout <= 0 || options.Limit < 0 {
		return nil, fmt.Errorf("probe by TCP from %v: timeout is %v and limit is %d: want a positive timeout and no negative limit", local, options.Timeout, options.Limit)
	}
	local = local.Unmap()
	c, err := openConnector(local, options.Limit)
	if err != nil {
		return nil, fmt.Errorf("probe by TCP from %v: %w", local, err)
	}
	t := &TCP{
		lifecycle: lifecycle{
			name: fmt.Sprintf("by TCP from %v", local), outcome: options.Outcome, tick: tickOf(options.Timeout),
			results: &results{counters: Counters{Ignored: counts(Refused, Retransmitted, Late), Missing: counts[string]()}},
		},
		timeout:   options.Timeout,
		local:     local,
		session:   randomSession(),
		connector: c,
		connects:  make([]connect, options.Limit),
	}
	t.runner = t
	for slot := options.Limit - 1; slot >= 0; slot-- {
		t.free = append(t.free, slot)
	}
	return t, nil
}

// Send starts one connect now and does not block. When it returns nil the
// probe ends in exactly one Outcome, otherwise in none. The Session of an
// Outcome is the TCP's, and its Seq counts the TCP's probes.
func (t *TCP) Send(p Probe) error {
	if err := p.checkPort(t.local); err != nil {
		return fmt.Errorf("probe %v by TCP: %w", p.Peer, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.state >= stopping {
		return fmt.Errorf("probe %v by TCP: %w", p.Peer, net.ErrClosed)
	}
	last := len(t.free) - 1
	if last < 0 {
		t.counters.SendFailed++
		return fmt.Errorf("probe %v by TCP: %w", p.Peer, errLimit)
	}
	c := connect{Probe: p, connectID: connectID{t.free[last], t.seq + 1}, underWay: true}
	var err error
	if c.fd, c.sent, err = t.connector.start(key(p.Peer), c.connectID); err != nil {
		t.counters.SendFailed++
		return fmt.Errorf("probe %v by TCP: %w", p.Peer, err)
	}
	t.seq++
	t.free = t.free[:last]
	t.connects[c.slot] = c
	t.counters.Sent++
	return nil
}

// SendBatch sends probes now and does not block. It calls failed with the index
// of each that was not sent, and why; as with Send those have no Outcome, and
// all others exactly one.
func (t *TCP) SendBatch(probes []Probe, failed func(i int, err error)) {
	sendEach(t.Send, probes, failed)
}

// sendEach is the batch of a method that has nothing to gain from one.
func sendEach(send func(Probe) error, probes []Probe, failed func(i int, err error)) {
	for i, p := range probes {
		if err := send(p); err != nil {
			failed(i, err)
		}
	}
}

// Forget drops what is under way to a peer that is gone. It is Discarded, by
// Run and soon.
func (t *TCP) Forget(peer netip.AddrPort) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for slot := range t.connects {
		if c := &t.connects[slot]; c.underWay && key(c.Peer) == key(peer) {
			t.abandon(c)
		}
	}
}

func (t *TCP) wait(deadline time.Time) (err error) {
	t.ended, err = t.connector.wait(deadline)
	return err
}

func (t *TCP) settle(now time.Time, due bool) {
	for _, id := range t.ended {
		if c := &t.connects[id.slot]; c.underWay && c.seq == id.seq {
			t.conclude(c, now)
		}
	}
	if due {
		t.expire(now)
	}
}

func (t *TCP) wake() { t.connector.wake() }

func (t *TCP) end() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for slot := range t.connects {
		if c := &t.connects[slot]; c.underWay {
			t.abandon(c)
		}
	}
	t.connector.close()
	return nil
}

// conclude ends a connect that was seen to have come to an end at now.
func (t *TCP) conclude(c *connect, now time.Time) {
	h := t.connector.handshake(c.fd)
	o, reason := h.outcome(now.Sub(c.sent), t.timeout)
	switch {
	case o.Lost:
		t.counters.Lost++
	case !o.Discarded:
		t.counters.KernelSamples++
	case reason == "":
		t.counters.OutOfBracket++
	}
	if reason != "" {
		t.counters.Ignored[reason]++
	}
	t.release(c, o)
}

// expire ends what has waited for too long at now.
func (t *TCP) expire(now time.Time) {
	for slot := range t.connects {
		if c := &t.connects[slot]; c.underWay && now.Sub(c.sent) > t.timeout {
			t.counters.Lost++
			t.release(c, Outcome{Lost: true})
		}
	}
}

func (t *TCP) abandon(c *connect) {
	t.counters.Abandoned++
	t.release(c, Outcome{Discarded: true})
}

// release is the only place where an Outcome comes from and where a slot gets
// free.
func (t *TCP) release(c *connect, o Outcome) {
	t.connector.hangUp(c.fd)
	o.Probe, o.Session, o.Seq, o.Sent = c.Probe, t.session, c.seq, c.sent
	t.ready = append(t.ready, o)
	t.free = append(t.free, c.slot)
	*c = connect{}
}

// tcpResolution is that of tcpi_rtt: the difference of two times that were cut
// to microseconds may be one more than the time between them.
const tcpResolution = time.Microsecond

// outcome is what becomes of a probe whose handshake was looked at when
// bracket had passed on the monotonic clock, and what to count it under
// besides.
func (h handshake) outcome(bracket, timeout time.Duration) (Outcome, Reason) {
	switch {
	case h.retransmitted && h.failed:
		return Outcome{Lost: true}, ""
	case h.retransmitted:
		return Outcome{Lost: true}, Retransmitted
	case h.rtt > bracket+tcpResolution:
		return Outcome{Discarded: true}, ""
	case h.rtt > timeout:
		return Outcome{Lost: true}, Late
	case h.rtt > 0:
		// Also if the peer has ended the connection meanwhile.
		return Outcome{RTT: min(h.rtt, bracket), Stamps: Kernel}, ""
	case h.refused:
		return Outcome{Discarded: true}, Refused
	case h.failed:
		// A router says that it knows no way, or nobody said anything.
		return Outcome{Lost: true}, ""
	}
	return Outcome{Discarded: true}, ""
}
