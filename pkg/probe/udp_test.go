package probe

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/netlatency/netlatency/test/machine"
)

// station is a UDP that may run.
type station struct {
	*UDP
	*subject
}

func start(tb testing.TB, addr netip.AddrPort, options UDPOptions) *station {
	tb.Helper()
	s := open(tb, addr, options)
	s.run(tb)
	return s
}

func open(tb testing.TB, addr netip.AddrPort, options UDPOptions) *station {
	tb.Helper()
	if options.Timeout == 0 {
		options.Timeout, options.Hold = 2*time.Second, time.Minute
	}
	if options.Ports == 0 {
		options.Ports = 1 // most tests have packets to one peer under way with many tags
	}
	u, s := opens(tb, func(outcome func(Outcome)) (*UDP, error) {
		options.Outcome = outcome
		return ListenUDP(tb.Context(), addr, options)
	})
	return &station{u, s}
}

// probeInTurn sends one packet after the other, each once its predecessor has
// an outcome, and returns the outcomes of all but the last, which is held.
func probeInTurn(tb testing.TB, s *station, to netip.AddrPort, packets int) []Outcome {
	tb.Helper()
	var all []Outcome
	for i := range packets {
		s.send(tb, to, uint64(i))
		if i > 0 {
			all = append(all, s.next(tb))
		}
	}
	return all
}

func TestSamplesRestOnKernelStampsAtBothEnds(t *testing.T) {
	onLinux(t)
	for name, addr := range map[string]netip.AddrPort{"IPv4": loopback4, "IPv6": loopback6} {
		t.Run(name, func(t *testing.T) {
			if name == "IPv6" {
				machine.NeedsIPv6(t)
			}
			reflector := start(t, addr, UDPOptions{Reflector: NewReflector(ReflectorOptions{})})
			prober := start(t, addr, UDPOptions{})
			if prober.Stamps != Kernel {
				t.Fatalf("stamps are %s, want kernel", prober.Stamps)
			}
			wantKernelSamples(t, probeInTurn(t, prober, reflector.LocalAddr(), 50))
		})
	}
}

func TestOneSocketProbesAndReflectsAtTheSameTime(t *testing.T) {
	onLinux(t)
	both := func() *station {
		return start(t, loopback4, UDPOptions{Reflector: NewReflector(ReflectorOptions{})})
	}
	a, b := both(), both()
	var wait sync.WaitGroup
	for _, pair := range [][2]*station{{a, b}, {b, a}} {
		wait.Go(func() {
			wantKernelSamples(t, probeInTurn(t, pair[0], pair[1].LocalAddr(), 100))
		})
	}
	wait.Wait()
	t.Run("even with itself", func(t *testing.T) {
		c := both()
		wantKernelSamples(t, probeInTurn(t, c, c.LocalAddr(), 20))
	})
}

// A process that waits for the CPU finds a whole burst at once.
func TestABurstThatWaitedInTheSocketIsAnsweredWithTheStampsOfItsReplies(t *testing.T) {
	onLinux(t)
	reflector := open(t, loopback4, UDPOptions{Reflector: NewReflector(ReflectorOptions{})})
	prober := start(t, loopback4, UDPOptions{})
	const burst = 10
	for i := range uint64(burst) {
		prober.send(t, reflector.LocalAddr(), i)
	}
	reflector.run(t)
	var all []Outcome
	for range burst - 1 {
		all = append(all, prober.next(t))
	}
	wantKernelSamples(t, all)
}

func TestASocketBoundToNoAddressAnswersFromTheOneThatWasAsked(t *testing.T) {
	onLinux(t)
	reflector := start(t, netip.MustParseAddrPort("0.0.0.0:0"), UDPOptions{Reflector: NewReflector(ReflectorOptions{})})
	prober := start(t, loopback4, UDPOptions{})
	// All of 127/8 is local, and the kernel would answer from 127.0.0.1.
	other := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), reflector.LocalAddr().Port())
	wantKernelSamples(t, probeInTurn(t, prober, other, 3))
}

func TestFullSizePacketsAreAnsweredInFull(t *testing.T) {
	reflector := start(t, loopback4, UDPOptions{Reflector: NewReflector(ReflectorOptions{})})
	prober := start(t, loopback4, UDPOptions{Timeout: 5 * time.Second})
	for _, size := range []int{MinSize, 1400, MaxSize} {
		if err := prober.Send(Probe{Peer: reflector.LocalAddr(), Size: size}); err != nil {
			t.Fatal(err)
		}
		if o := prober.next(t); o.Lost || o.Discarded || o.Size != size {
			t.Errorf("%d octets: outcome is %+v, want a sample", size, o)
		}
	}
}

func TestSendRefusesWhatCannotBeProbed(t *testing.T) {
	start(t, loopback4, UDPOptions{}).wantRefused(t, map[string]Probe{
		"too small":                {Peer: peerA, Size: MinSize - 1},
		"too large":                {Peer: peerA, Size: MaxSize + 1},
		"no address":               {Size: MinSize},
		"the unspecified address":  {Peer: netip.MustParseAddrPort("0.0.0.0:1"), Size: MinSize},
		"no port":                  {Peer: netip.MustParseAddrPort("192.0.2.1:0"), Size: MinSize},
		"an address of the other":  {Peer: netip.MustParseAddrPort("[2001:db8::1]:1"), Size: MinSize},
		"the kernel has no way to": {Peer: netip.MustParseAddrPort("255.255.255.255:1"), Size: MinSize},
	})
}

func TestPacketsOfOneSessionInABatchAreSamplesByKernelStamps(t *testing.T) {
	onLinux(t)
	reflector := start(t, loopback4, UDPOptions{Reflector: unlimited()})
	prober := start(t, loopback4, UDPOptions{})
	probes := make([]Probe, 100)
	for i := range probes {
		probes[i] = Probe{Peer: reflector.LocalAddr(), Size: MinSize}
	}
	prober.SendBatch(probes, func(i int, err error) { t.Errorf("probe %d: %v", i, err) })
	for range len(probes) - 1 {
		prober.wantKernel(t, prober.next(t))
	}
}

func TestBurstsLeaveFromDifferentPorts(t *testing.T) {
	onLinux(t)
	listener, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(loopback4))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	prober := start(t, loopback4, UDPOptions{Ports: defaultPorts})
	var bursts [8]uint16
	for i := range bursts {
		for range 3 {
			prober.send(t, listener.LocalAddr().(*net.UDPAddr).AddrPort(), uint64(i))
			_, from, err := listener.ReadFromUDPAddrPort(make([]byte, MaxSize))
			if err != nil {
				t.Fatal(err)
			}
			if bursts[i] != 0 && bursts[i] != from.Port() {
				t.Errorf("burst %d left from ports %d and %d, want one", i, bursts[i], from.Port())
			}
			bursts[i] = from.Port()
		}
	}
	if bursts[0] != prober.LocalAddr().Port() {
		t.Errorf("the first burst left from port %d, want the prober's own, %d", bursts[0], prober.LocalAddr().Port())
	}
	slices.Sort(bursts[:])
	if n := len(slices.Compact(bursts[:])); n != 4 {
		t.Errorf("bursts left from %d ports, want 4", n)
	}
}

func TestASampleHasTheStampThatTheNextBurstBringsToAnotherPort(t *testing.T) {
	onLinux(t)
	reflector := start(t, loopback4, UDPOptions{Reflector: unlimited()})
	prober := start(t, loopback4, UDPOptions{Ports: defaultPorts})
	const bursts = 10
	for burst := range uint64(bursts) {
		prober.send(t, reflector.LocalAddr(), burst)
		if burst > 0 {
			prober.wantKernel(t, prober.next(t)) // the last of the burst before
		}
		prober.send(t, reflector.LocalAddr(), burst)
		prober.wantKernel(t, prober.next(t))
	}
}

func TestAnUnansweredPacketIsLost(t *testing.T) {
	silent := start(t, loopback4, UDPOptions{})
	prober := start(t, loopback4, UDPOptions{Timeout: 50 * time.Millisecond})
	prober.send(t, silent.LocalAddr(), 7)
	if o := prober.next(t); !o.Lost || o.Discarded || o.RTT != 0 || o.Stamps != "" || o.Tag != 7 {
		t.Errorf("outcome is %+v, want a loss without a latency", o)
	}
	if got := silent.Counters().Ignored[Unwanted]; got != 1 {
		t.Errorf("the one without a reflector counted %d requests, want 1", got)
	}
}

func TestASampleIsDeliveredWithoutAnotherPacket(t *testing.T) {
	reflector := start(t, loopback4, UDPOptions{Reflector: NewReflector(ReflectorOptions{})})
	prober := start(t, loopback4, UDPOptions{Timeout: time.Second, Hold: 50 * time.Millisecond})
	prober.send(t, reflector.LocalAddr(), 0)
	if o := prober.next(t); o.Lost || o.Discarded || o.Stamps != User {
		t.Errorf("outcome is %+v, want a sample by the reflector's user clock", o)
	}
}

func TestAllPacketsHaveAnOutcomeWhenRunReturns(t *testing.T) {
	reflector := start(t, loopback4, UDPOptions{Reflector: NewReflector(ReflectorOptions{})})
	silent := start(t, loopback4, UDPOptions{})
	gone := start(t, loopback4, UDPOptions{})
	prober := start(t, loopback4, UDPOptions{})
	const packets = 300
	for i := range uint64(packets) {
		prober.send(t, []*station{reflector, silent, gone}[i%3].LocalAddr(), i)
		if i == packets/2 {
			prober.Forget(gone.LocalAddr())
		}
	}
	prober.stop()
	var tags []uint64
	for o := range prober.outcomes {
		tags = append(tags, o.Tag)
		if o.RTT < 0 {
			t.Errorf("negative round trip: %+v", o)
		}
	}
	slices.Sort(tags)
	var want []uint64
	for i := range uint64(packets) {
		want = append(want, i)
	}
	if diff := cmp.Diff(want, tags); diff != "" {
		t.Errorf("packets with an outcome (-want +got):\n%s", diff)
	}
}

func TestOutcomeMaySendAndForget(t *testing.T) {
	reflector := start(t, loopback4, UDPOptions{Reflector: NewReflector(ReflectorOptions{})})
	wantOutcomeToSendAndForget(t, reflector.LocalAddr(), func(outcome func(Outcome)) (*UDP, error) {
		return ListenUDP(t.Context(), loopback4, UDPOptions{Timeout: time.Second, Outcome: outcome})
	})
}

// stranger sends octets of its own to a reflector and sees what comes back.
func stranger(t *testing.T) (write func(to netip.AddrPort, b []byte), read func() []byte) {
	t.Helper()
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(loopback4))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	write = func(to netip.AddrPort, b []byte) {
		if _, err := c.WriteToUDPAddrPort(b, to); err != nil {
			t.Fatal(err)
		}
	}
	read = func() []byte {
		b := make([]byte, 2*MaxSize)
		if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return b[:n]
	}
	return write, read
}

func TestOnlyRequestsAreAnsweredAndWithTheirOwnSize(t *testing.T) {
	shared := NewReflector(ReflectorOptions{})
	reflector := start(t, loopback4, UDPOptions{Reflector: shared})
	write, read := stranger(t)
	carrier := encoded(aRequest, 200)
	carrier[150] = 'x'
	for _, b := range [][]byte{
		[]byte("hello"),
		{},
		encoded(aRequest, MinSize)[:MinSize-1],
		encoded(aRequest, MaxSize+1),
		encoded(aRequest, 9000),
		carrier,
		encoded(aReply, MinSize),
		encoded(aRequest, 777), // the only one
	} {
		write(reflector.LocalAddr(), b)
	}
	got := read()
	h, err := Decode(got)
	if err != nil || len(got) != 777 || h.Kind != Reply || h.Session != aRequest.Session || h.Seq != aRequest.Seq || h.T3 < h.T2 {
		t.Errorf("got %d octets, %+v, error %v, want a reply of 777 octets to %+v", len(got), h, err, aRequest)
	}
	c := reflector.Counters()
	if c.Ignored[Malformed] != 6 || c.Ignored[WrongSource] != 1 {
		t.Errorf("ignored %v, want 6 malformed packets and 1 of a wrong source", c.Ignored)
	}
	if r := shared.Counters(); r.Replies != 1 {
		t.Errorf("%d replies, want 1", r.Replies)
	}
}

func TestTwoSocketsShareTheLimitsOfOneReflector(t *testing.T) {
	shared := NewReflector(ReflectorOptions{PerSource: Rate{PerSecond: 1e-9, Burst: 3}})
	first := start(t, loopback4, UDPOptions{Reflector: shared})
	second := start(t, loopback4, UDPOptions{Reflector: shared})
	prober := start(t, loopback4, UDPOptions{Timeout: 100 * time.Millisecond})
	for range 4 {
		prober.send(t, first.LocalAddr(), 0)
		prober.send(t, second.LocalAddr(), 0)
	}
	lost := 0
	for range 8 {
		if prober.next(t).Lost {
			lost++
		}
	}
	if c := shared.Counters(); lost != 5 || c.Replies != 3 || c.Refused[SourceLimit] != 5 {
		t.Errorf("%d lost, counters %+v, want 3 replies and the rest refused", lost, c)
	}
}

func TestListenUDPSaysWhatIsWrong(t *testing.T) {
	taken := start(t, loopback4, UDPOptions{})
	for name, test := range map[string]struct {
		addr    netip.AddrPort
		options UDPOptions
	}{
		"no timeout":                   {loopback4, UDPOptions{}},
		"a negative hold":              {loopback4, UDPOptions{Timeout: 1, Hold: -1}},
		"too many ports":               {loopback4, UDPOptions{Timeout: 1, Ports: maxPorts + 1}},
		"no address":                   {netip.AddrPort{}, UDPOptions{Timeout: 1}},
		"a port in use":                {taken.LocalAddr(), UDPOptions{Timeout: 1}},
		"an address of another's node": {netip.MustParseAddrPort("192.0.2.1:0"), UDPOptions{Timeout: 1}},
	} {
		if u, err := ListenUDP(t.Context(), test.addr, test.options); err == nil {
			u.Close()
			t.Errorf("%s: no error", name)
		}
	}
}

func TestCloseWithoutRunFreesThePort(t *testing.T) {
	u := open(t, loopback4, UDPOptions{})
	u.wantNoRunAfterClose(t)
	start(t, u.LocalAddr(), UDPOptions{})
}
