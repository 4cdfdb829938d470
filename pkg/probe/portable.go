package probe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	probing "github.com/prometheus-community/pro-bing"
)

// PortableOptions configures a Portable.
type PortableOptions struct {
	// Timeout is when an echo without an answer is lost; it must be positive.
	Timeout time.Duration
	// Limit is how many echoes may be under way at once, each of which has a
	// socket and five goroutines; Send fails beyond it. The default is 128: a
	// full mesh of 128 peers has about 100 under way when none of them answers.
	Limit int
	// Outcome receives what became of each probe, one call at a time and from
	// the goroutine of Run. It may call Send, Forget and Counters.
	Outcome func(Outcome)
}

const defaultPortableLimit = 128

// Portable probes peers by ICMP echo through pro-bing, where neither UDP's
// stamps nor TCP's are to be had: on macOS, in gVisor, on virtualised kernels
// that do not stamp. Make it with OpenPortable. It has the shape of UDP.
//
// The sockets are of datagrams, which need no privilege but, on Linux, a group
// within net.ipv4.ping_group_range. The process reads all times itself, so that
// what its host does to it is in the round trips; every sample is a User one.
// pro-bing takes them from the wall clock: each is checked against the
// monotonic clock, and those that a step of the wall clock bent are Discarded.
//
// A Probe's Size is that of the echo's payload; the port of its Peer is not
// used. SendFailed counts errors of Send and, besides, probes that Send took
// and the kernel then refused, which are Discarded and counted as Abandoned.
type Portable struct {
	lifecycle
	options PortableOptions
	local   netip.Addr
	session uint64
	token   chan struct{} // there is one when Run has something to do
	echoing sync.WaitGroup

	// Guarded by mu.
	echoes map[*echo]struct{} // those under way, and their sockets
	seq    uint32
}

// echo is one probe under way.
type echo struct {
	Probe
	seq       uint32
	exchange                     // of the echo's own goroutines
	forget    context.CancelFunc // ends it
	concluded bool               // it has had its Outcome; guarded by Portable.mu
}

// OpenPortable prepares to probe from the local address, whose family is the
// only one that can be probed; the unspecified address of a family leaves the
// choice to the kernel. It fails where echoes are not permitted. The Portable
// must be ended, by the context of Run or by Close.
func OpenPortable(_ context.Context, local netip.Addr, options PortableOptions) (*Portable, error) {
	if options.Limit == 0 {
		options.Limit = defaultPortableLimit
	}
	local = local.Unmap()
	if options.Timeout <= 0 || options.Limit < 0 || !local.IsValid() {
		return nil, fmt.Errorf("probe by echoes from %v: timeout is %v and limit is %d: want an address, a positive timeout and no negative limit", local, options.Timeout, options.Limit)
	}
	p := &Portable{
		lifecycle: lifecycle{
			name: fmt.Sprintf("by echoes from %v", local), outcome: options.Outcome,
			results: &results{counters: Counters{Ignored: counts[Reason](), Missing: counts[string]()}},
		},
		options: options,
		local:   local,
		session: randomSession(),
		token:   make(chan struct{}, 1),
		echoes:  make(map[*echo]struct{}),
	}
	p.runner = p
	if err := p.permitted(); err != nil {
		return nil, fmt.Errorf("probe by echoes from %v: %w; on Linux net.ipv4.ping_group_range must include a group of this process", local, err)
	}
	return p, nil
}

// permitted opens a socket as every echo does, and ends it.
func (p *Portable) permitted() error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	itself := p.local
	if itself.IsUnspecified() {
		itself = netip.MustParseAddr("127.0.0.1")
		if p.local.Is6() {
			itself = netip.IPv6Loopback()
		}
	}
	pinger := p.pinger(itself, MinSize)
	pinger.OnSetup = cancel
	if err := pinger.RunWithContext(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func (p *Portable) pinger(peer netip.Addr, size int) *probing.Pinger {
	pinger := probing.New("")
	pinger.SetIPAddr(&net.IPAddr{IP: peer.AsSlice()})
	pinger.SetLogger(probing.NoopLogger{})
	pinger.Count, pinger.Size, pinger.Timeout = 1, size, p.options.Timeout
	pinger.Interval = p.options.Timeout // there is no second one
	if !p.local.IsUnspecified() {
		pinger.Source = p.local.String()
	}
	return pinger
}

// Send sends one echo and does not block. When it returns nil the probe ends
// in exactly one Outcome, otherwise in none. The Session of an Outcome is the
// Portable's, and its Seq counts the Portable's probes.
func (p *Portable) Send(probe Probe) error {
	if err := cmp.Or(probe.checkSize(), probe.checkPeer(p.local)); err != nil {
		return fmt.Errorf("probe %v by echo: %w", probe.Peer, err)
	}
	peer := key(probe.Peer).Addr()
	if err := p.reachable(peer); err != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.counters.SendFailed++
		return fmt.Errorf("probe %v by echo: %w", probe.Peer, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state >= stopping {
		return fmt.Errorf("probe %v by echo: %w", probe.Peer, net.ErrClosed)
	}
	if len(p.echoes) >= p.options.Limit {
		p.counters.SendFailed++
		return fmt.Errorf("probe %v by echo: %w", probe.Peer, errLimit)
	}
	p.seq++
	p.counters.Sent++
	ctx, cancel := context.WithCancel(context.Background())
	e := &echo{Probe: probe, seq: p.seq, forget: cancel}
	e.sent = read()
	p.echoes[e] = struct{}{}
	p.echoing.Go(func() { p.echo(ctx, e, p.pinger(peer, probe.Size)) })
	return nil
}

// SendBatch sends probes now and does not block. It calls failed with the index
// of each that was not sent, and why; as with Send those have no Outcome, and
// all others exactly one.
func (p *Portable) SendBatch(probes []Probe, failed func(i int, err error)) {
	sendEach(p.Send, probes, failed)
}

// reachable says whether the kernel has a way to the peer, by connecting a
// socket of datagrams, which sends nothing. Where a route prohibits it pro-bing
// (v0.8.0, sendICMP) takes the peer for a broadcast address and tries for ever.
func (p *Portable) reachable(peer netip.Addr) error {
	var local *net.UDPAddr
	if !p.local.IsUnspecified() {
		local = &net.UDPAddr{IP: p.local.AsSlice()}
	}
	c, err := net.DialUDP("udp", local, &net.UDPAddr{IP: peer.AsSlice(), Port: 9}) // discard
	if err != nil {
		return err
	}
	return c.Close()
}

// echo carries out one probe.
func (p *Portable) echo(ctx context.Context, e *echo, pinger *probing.Pinger) {
	defer e.forget()
	pinger.OnSetup = func() { e.sent = read() } // right before it sends
	// It takes the pinger a while to come to its end, so the sample is
	// concluded before.
	pinger.OnRecv = func(packet *probing.Packet) { p.answered(e, packet.Rtt, read()) }
	err := pinger.RunWithContext(ctx)

	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case ctx.Err() != nil:
		p.conclude(e, Outcome{Discarded: true}, &p.counters.Abandoned)
	case err != nil:
		p.counters.SendFailed++
		p.conclude(e, Outcome{Discarded: true}, &p.counters.Abandoned)
	default:
		p.conclude(e, Outcome{Lost: true}, &p.counters.Lost)
	}
	delete(p.echoes, e)
}

// answered takes in what pro-bing measured: the difference of two readings of
// the wall clock, as that of two stamps of the kernel is, so that it can be
// checked in the same way.
func (p *Portable) answered(e *echo, rtt time.Duration, now reading) {
	e.received, e.t1, e.t4 = now, e.sent.unix, e.sent.unix+int64(rtt)
	rtt, source, ok := e.roundTrip()

	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case !ok:
		p.conclude(e, Outcome{Discarded: true}, &p.counters.OutOfBracket)
	case rtt > p.options.Timeout:
		p.conclude(e, Outcome{Lost: true}, &p.counters.Lost)
	default:
		p.conclude(e, Outcome{RTT: rtt, Stamps: source}, &p.counters.UserSamples)
	}
}

// conclude is the only place where an Outcome comes from. The first one of an
// echo counts. p.mu is held.
func (p *Portable) conclude(e *echo, o Outcome, counter *uint64) {
	if e.concluded {
		return
	}
	e.concluded = true
	*counter++
	o.Probe, o.Session, o.Seq, o.Sent = e.Probe, p.session, e.seq, e.sent.at
	p.ready = append(p.ready, o)
	p.wake()
}

// Forget drops what is under way to a peer that is gone. It is Discarded, by
// Run and soon.
func (p *Portable) Forget(peer netip.AddrPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for e := range p.echoes {
		if key(e.Peer) == key(peer) {
			e.forget()
		}
	}
}

// wait needs no deadline: each echo has a timeout of its own.
func (p *Portable) wait(time.Time) error {
	<-p.token
	return nil
}

// settle has nothing to do: echoes conclude themselves.
func (p *Portable) settle(time.Time, bool) {}

func (p *Portable) wake() {
	select {
	case p.token <- struct{}{}:
	default:
	}
}

// end waits for the echoes, which need the lock.
func (p *Portable) end() error {
	p.mu.Lock()
	for e := range p.echoes {
		e.forget()
	}
	p.mu.Unlock()
	p.echoing.Wait()
	return nil
}
