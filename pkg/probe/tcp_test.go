package probe

import (
	"bytes"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/netlatency/netlatency/test/machine"
)

// tcpStation is a TCP that may run.
type tcpStation struct {
	*TCP
	*subject
}

func startTCP(tb testing.TB, local netip.Addr, options TCPOptions) *tcpStation {
	tb.Helper()
	s := openTCP(tb, local, options)
	s.run(tb)
	return s
}

func openTCP(tb testing.TB, local netip.Addr, options TCPOptions) *tcpStation {
	tb.Helper()
	onLinux(tb)
	if options.Timeout == 0 {
		options.Timeout = 10 * time.Second
	}
	c, s := opens(tb, func(outcome func(Outcome)) (*TCP, error) {
		options.Outcome = outcome
		return OpenTCP(tb.Context(), local, options)
	})
	return &tcpStation{c, s}
}

// probeInTurn sends one probe after the other, each once its predecessor has
// an outcome.
func (s *tcpStation) probeInTurn(tb testing.TB, to netip.AddrPort, probes int) []Outcome {
	tb.Helper()
	var all []Outcome
	for i := range probes {
		s.send(tb, to, uint64(i))
		all = append(all, s.next(tb))
	}
	return all
}

// listenTCP listens at a free port of the address, and serves each connection
// if serve is not nil. Otherwise nobody accepts them.
func listenTCP(tb testing.TB, at netip.AddrPort, serve func(net.Conn)) netip.AddrPort {
	tb.Helper()
	l, err := net.Listen("tcp", at.String())
	if err != nil {
		tb.Fatal(err)
	}
	var serving sync.WaitGroup
	tb.Cleanup(func() {
		l.Close()
		serving.Wait()
	})
	if serve != nil {
		serving.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				serve(c)
			}
		})
	}
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func TestTheHandshakeOfAConnectionIsASampleByTheKernel(t *testing.T) {
	for name, at := range map[string]netip.AddrPort{"IPv4": loopback4, "IPv6": loopback6} {
		t.Run(name, func(t *testing.T) {
			if name == "IPv6" {
				machine.NeedsIPv6(t)
			}
			peer := listenTCP(t, at, func(c net.Conn) { c.Close() })
			prober := startTCP(t, at.Addr(), TCPOptions{})
			all := prober.probeInTurn(t, peer, 100)
			wantKernelSamples(t, all)
			for i, o := range all {
				if o.Peer != peer || o.Session != all[0].Session || o.Seq != uint32(i+1) || o.Sent.IsZero() {
					t.Fatalf("outcome %d is %+v, want peer %v, the same session and the next number", i, o, peer)
				}
			}
			if c := prober.Counters(); c.Sent != 100 || c.KernelSamples != 100 || c.Lost+c.OutOfBracket+c.Abandoned != 0 {
				t.Errorf("counters are %+v, want 100 samples", c)
			}
		})
	}
}

func TestTheUnspecifiedAddressLeavesTheSourceToTheKernel(t *testing.T) {
	sources := make(chan net.Addr, 1)
	peer := listenTCP(t, loopback4, func(c net.Conn) { sources <- c.RemoteAddr(); c.Close() })
	for local, want := range map[string]string{"0.0.0.0": "127.0.0.1", "127.0.0.9": "127.0.0.9"} {
		wantKernelSamples(t, startTCP(t, netip.MustParseAddr(local), TCPOptions{}).probeInTurn(t, peer, 1))
		if got := (<-sources).(*net.TCPAddr).IP.String(); got != want {
			t.Errorf("from %s the peer saw %s, want %s", local, got, want)
		}
	}
}

func TestTheProcessBehindThePortHasNoPartInASample(t *testing.T) {
	nobodyAccepts := listenTCP(t, loopback4, nil)
	wantKernelSamples(t, startTCP(t, loopback4.Addr(), TCPOptions{}).probeInTurn(t, nobodyAccepts, 20))
}

func TestAPeerThatEndsTheConnectionAtOnceIsASampleStill(t *testing.T) {
	for name, end := range map[string]func(*net.TCPConn){
		"by closing":     func(c *net.TCPConn) { c.Close() },
		"by a reset":     func(c *net.TCPConn) { _ = c.SetLinger(0); c.Close() },
		"after speaking": func(c *net.TCPConn) { _, _ = c.Write([]byte("220 ready\r\n")); c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			ended := make(chan struct{}, 100)
			peer := listenTCP(t, loopback4, func(c net.Conn) { end(c.(*net.TCPConn)); ended <- struct{}{} })
			prober := openTCP(t, loopback4.Addr(), TCPOptions{})
			// It is not looked at before it has been ended.
			for i := range uint64(20) {
				prober.send(t, peer, i)
				<-ended
			}
			prober.run(t)
			var all []Outcome
			for range 20 {
				all = append(all, prober.next(t))
			}
			slices.SortFunc(all, func(a, b Outcome) int { return int(a.Tag) - int(b.Tag) })
			wantKernelSamples(t, all)
		})
	}
}

func TestThePeersProcessSeesAConnectionThatEnds(t *testing.T) {
	reads := make(chan error)
	peer := listenTCP(t, loopback4, func(c net.Conn) {
		defer c.Close()
		n, err := c.Read(make([]byte, 1))
		if n > 0 {
			err = errors.New("it was sent something")
		}
		reads <- err
	})
	prober := startTCP(t, loopback4.Addr(), TCPOptions{})
	for range 100 {
		prober.send(t, peer, 0)
		if err := <-reads; !errors.Is(err, io.EOF) {
			t.Fatalf("reading from a probe's connection: %v, want %v", err, io.EOF)
		}
		prober.next(t)
	}
}

func TestAnHTTPServerLogsNothing(t *testing.T) {
	var logged bytes.Buffer
	idle := make(chan struct{}, 1000)
	server := &http.Server{
		ErrorLog: log.New(&logged, "", 0),
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateClosed {
				idle <- struct{}{}
			}
		},
		ReadHeaderTimeout: time.Minute,
	}
	l, err := net.Listen("tcp", loopback4.String())
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) })
	prober := startTCP(t, loopback4.Addr(), TCPOptions{})
	wantKernelSamples(t, prober.probeInTurn(t, l.Addr().(*net.TCPAddr).AddrPort(), 50))
	for range 50 {
		<-idle // it has seen the end of each
	}
	server.Close()
	serving.Wait()
	if logged.Len() > 0 {
		t.Errorf("the server logged:\n%s", &logged)
	}
}

func TestARefusedConnectIsNeitherASampleNorALoss(t *testing.T) {
	for name, at := range map[string]netip.AddrPort{"IPv4": loopback4, "IPv6": loopback6} {
		t.Run(name, func(t *testing.T) {
			if name == "IPv6" {
				machine.NeedsIPv6(t)
			}
			prober := startTCP(t, at.Addr(), TCPOptions{})
			nobody := netip.AddrPortFrom(at.Addr(), 1) // tcpmux, which is not served any more
			for _, o := range prober.probeInTurn(t, nobody, 5) {
				if o.Lost || !o.Discarded || o.RTT != 0 || o.Stamps != "" {
					t.Errorf("outcome is %+v, want it discarded", o)
				}
			}
			c := prober.Counters()
			if c.Ignored[Refused] != 5 || c.Lost+c.KernelSamples+c.OutOfBracket != 0 {
				t.Errorf("counters are %+v, want 5 refused", c)
			}
		})
	}
}

func TestManyProbesAreUnderWayAtOnce(t *testing.T) {
	peers := []netip.AddrPort{listenTCP(t, loopback4, func(c net.Conn) { c.Close() }), listenTCP(t, loopback4, func(c net.Conn) { c.Close() })}
	prober := openTCP(t, loopback4.Addr(), TCPOptions{Limit: 300})
	for i := range uint64(300) {
		prober.send(t, peers[i%2], i)
	}
	if err := prober.Send(Probe{Peer: peers[0]}); !errors.Is(err, errLimit) {
		t.Fatalf("one more than the limit: error %v, want %v", err, errLimit)
	}
	prober.run(t)
	var all []Outcome
	for range 300 {
		all = append(all, prober.next(t))
	}
	slices.SortFunc(all, func(a, b Outcome) int { return int(a.Tag) - int(b.Tag) })
	wantKernelSamples(t, all)
	prober.send(t, peers[0], 0) // there is room again
	wantKernelSamples(t, []Outcome{prober.next(t)})
	if c := prober.Counters(); c.Sent != 301 || c.SendFailed != 1 {
		t.Errorf("counters are %+v, want 301 sent and 1 failure", c)
	}
}

func TestABatchNamesTheProbesThatWereNotSent(t *testing.T) {
	peer := listenTCP(t, loopback4, nil)
	prober := startTCP(t, loopback4.Addr(), TCPOptions{})
	var failures []int
	prober.SendBatch([]Probe{{Peer: peer}, {Tag: 1}, {Peer: peer, Tag: 2}, {Tag: 3}}, func(i int, err error) {
		failures = append(failures, i)
		if err == nil {
			t.Errorf("probe %d failed without an error", i)
		}
	})
	if !slices.Equal(failures, []int{1, 3}) {
		t.Errorf("probes %v were not sent, want 1 and 3", failures)
	}
	for range 2 {
		if o := prober.next(t); o.Tag%2 != 0 || o.Lost || o.Discarded {
			t.Errorf("outcome is %+v, want samples of probes 0 and 2", o)
		}
	}
}

// An agent that was stopped for a while must not take for late what was
// answered in time.
func TestAConnectThatWasAnsweredInTimeIsASampleWhenItIsSeenLate(t *testing.T) {
	prober := openTCP(t, loopback4.Addr(), TCPOptions{Timeout: 20 * time.Millisecond})
	prober.send(t, listenTCP(t, loopback4, nil), 0)
	time.Sleep(50 * time.Millisecond)
	prober.run(t)
	wantKernelSamples(t, []Outcome{prober.next(t)})
}

func TestATCPSendRefusesWhatCannotBeProbed(t *testing.T) {
	startTCP(t, loopback4.Addr(), TCPOptions{}).wantRefused(t, map[string]Probe{
		"no address":                   {},
		"the unspecified address":      {Peer: netip.MustParseAddrPort("0.0.0.0:1")},
		"no port":                      {Peer: netip.MustParseAddrPort("192.0.2.1:0")},
		"an address of the other kind": {Peer: netip.MustParseAddrPort("[2001:db8::1]:1")},
		"a broadcast":                  {Peer: netip.MustParseAddrPort("255.255.255.255:1")},
	})
}

func TestOpenTCPSaysWhatIsWrong(t *testing.T) {
	for name, test := range map[string]struct {
		local   netip.Addr
		options TCPOptions
	}{
		"no timeout":                   {loopback4.Addr(), TCPOptions{}},
		"a negative limit":             {loopback4.Addr(), TCPOptions{Timeout: 1, Limit: -1}},
		"no address":                   {netip.Addr{}, TCPOptions{Timeout: 1}},
		"an address of another's node": {netip.MustParseAddr("192.0.2.1"), TCPOptions{Timeout: 1}},
	} {
		if prober, err := OpenTCP(t.Context(), test.local, test.options); err == nil {
			prober.Close()
			t.Errorf("%s: no error", name)
		}
	}
}

func TestATCPsOutcomeMaySendAndForget(t *testing.T) {
	onLinux(t)
	wantOutcomeToSendAndForget(t, listenTCP(t, loopback4, nil), func(outcome func(Outcome)) (*TCP, error) {
		return OpenTCP(t.Context(), loopback4.Addr(), TCPOptions{Timeout: 10 * time.Second, Outcome: outcome})
	})
}

func TestATCPThatWasClosedDoesNotRun(t *testing.T) {
	openTCP(t, loopback4.Addr(), TCPOptions{}).wantNoRunAfterClose(t)
}

func TestWhatBecomesOfAHandshake(t *testing.T) {
	const (
		bracket = 500 * time.Microsecond
		timeout = 300 * time.Microsecond
	)
	var (
		lost      = Outcome{Lost: true}
		discarded = Outcome{Discarded: true}
		sample    = func(rtt time.Duration) Outcome { return Outcome{RTT: rtt, Stamps: Kernel} }
	)
	for name, test := range map[string]struct {
		handshake
		bracket time.Duration
		want    Outcome
		reason  Reason
	}{
		"answered":                        {handshake{rtt: 200 * time.Microsecond}, bracket, sample(200 * time.Microsecond), ""},
		"answered, and ended by the peer": {handshake{rtt: 200 * time.Microsecond, failed: true}, bracket, sample(200 * time.Microsecond), ""},
		"refused":                         {handshake{refused: true}, bracket, discarded, Refused},
		"no way there":                    {handshake{failed: true}, bracket, lost, ""},
		"answered the second SYN":         {handshake{rtt: 200 * time.Microsecond, retransmitted: true}, bracket, lost, Retransmitted},
		"answered the second SYN, and not measured":  {handshake{retransmitted: true}, bracket, lost, Retransmitted},
		"refused the second SYN":                     {handshake{refused: true, retransmitted: true}, bracket, lost, Retransmitted},
		"no way there, after the second SYN":         {handshake{failed: true, retransmitted: true}, bracket, lost, ""},
		"answered after the timeout":                 {handshake{rtt: 400 * time.Microsecond}, bracket, lost, Late},
		"not measured":                               {handshake{}, bracket, discarded, ""},
		"longer than the monotonic clock saw":        {handshake{rtt: 202 * time.Microsecond}, 200500 * time.Nanosecond, discarded, ""},
		"longer by what whole microseconds cut away": {handshake{rtt: 201 * time.Microsecond}, 200500 * time.Nanosecond, sample(200500 * time.Nanosecond), ""},
	} {
		got, reason := test.outcome(test.bracket, timeout)
		if got != test.want || reason != test.reason {
			t.Errorf("%s: outcome is %+v with reason %q, want %+v with %q", name, got, reason, test.want, test.reason)
		}
	}
}
