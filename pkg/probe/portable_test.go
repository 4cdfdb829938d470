package probe

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/netlatency/netlatency/test/machine"
)

// portableStation is a Portable that may run.
type portableStation struct {
	*Portable
	*subject
}

func startPortable(t *testing.T, local netip.Addr, options PortableOptions) *portableStation {
	t.Helper()
	s := openPortable(t, local, options)
	s.run(t)
	return s
}

func openPortable(t *testing.T, local netip.Addr, options PortableOptions) *portableStation {
	t.Helper()
	if options.Timeout == 0 {
		options.Timeout = 10 * time.Second
	}
	p, s := opens(t, func(outcome func(Outcome)) (*Portable, error) {
		options.Outcome = outcome
		return OpenPortable(t.Context(), local, options)
	})
	return &portableStation{p, s}
}

// echoPeer has a port, which must come back in outcomes and means nothing else.
var echoPeer = netip.MustParseAddrPort("127.0.0.1:9465")

func wantUserSample(t *testing.T, o Outcome, tag uint64) {
	t.Helper()
	if o.Lost || o.Discarded || o.Stamps != User || o.RTT <= 0 || o.Tag != tag || o.Sent.IsZero() {
		t.Fatalf("outcome is %+v, want a sample by the user's clock with tag %d", o, tag)
	}
}

func TestAnEchoIsASampleByTheUsersClock(t *testing.T) {
	if !inNetworkWithEchoes(t) {
		return
	}
	for name, peer := range map[string]netip.AddrPort{"IPv4": echoPeer, "IPv6": netip.MustParseAddrPort("[::1]:9465")} {
		t.Run(name, func(t *testing.T) {
			if name == "IPv6" {
				machine.NeedsIPv6(t)
			}
			unspecified := netip.IPv4Unspecified()
			if peer.Addr().Is6() {
				unspecified = netip.IPv6Unspecified()
			}
			for _, local := range []netip.Addr{peer.Addr(), unspecified} {
				prober := startPortable(t, local, PortableOptions{})
				for i := range uint64(5) {
					prober.send(t, peer, i)
					o := prober.next(t)
					wantUserSample(t, o, i)
					if o.Peer != peer || o.Seq != uint32(i+1) {
						t.Errorf("outcome is %+v, want peer %v and number %d", o, peer, i+1)
					}
				}
				if c := prober.Counters(); c.Sent != 5 || c.UserSamples != 5 || c.Lost+c.OutOfBracket+c.Abandoned != 0 {
					t.Errorf("counters are %+v, want 5 samples", c)
				}
			}
		})
	}
}

func TestAFullSizeEchoIsAnswered(t *testing.T) {
	if !inNetworkWithEchoes(t) {
		return
	}
	prober := startPortable(t, loopback4.Addr(), PortableOptions{})
	if err := prober.Send(Probe{Peer: echoPeer, Size: MaxSize}); err != nil {
		t.Fatal(err)
	}
	if o := prober.next(t); o.Lost || o.Discarded || o.Size != MaxSize {
		t.Errorf("outcome is %+v, want a sample of %d octets", o, MaxSize)
	}
}

func TestAnEchoWithoutAnAnswerIsLost(t *testing.T) {
	if !inNetworkWithEchoes(t) {
		return
	}
	silence(t)
	prober := startPortable(t, loopback4.Addr(), PortableOptions{Timeout: 50 * time.Millisecond})
	prober.send(t, echoPeer, 7)
	if o := prober.next(t); !o.Lost || o.Discarded || o.RTT != 0 || o.Stamps != "" || o.Tag != 7 {
		t.Errorf("outcome is %+v, want a loss without a latency", o)
	}
	if c := prober.Counters(); c.Lost != 1 {
		t.Errorf("counters are %+v, want 1 lost", c)
	}
}

func TestEchoesUnderWayAreBounded(t *testing.T) {
	if !inNetworkWithEchoes(t) {
		return
	}
	silence(t)
	prober := startPortable(t, loopback4.Addr(), PortableOptions{Limit: 20})
	for i := range uint64(20) {
		prober.send(t, echoPeer, i)
	}
	if err := prober.Send(Probe{Peer: echoPeer, Size: MinSize}); !errors.Is(err, errLimit) {
		t.Errorf("one more than the limit: error %v, want %v", err, errLimit)
	}
	prober.stop()
	seen := make(map[uint64]bool)
	for o := range prober.outcomes {
		if !o.Discarded || seen[o.Tag] {
			t.Errorf("outcome is %+v, want each discarded once", o)
		}
		seen[o.Tag] = true
	}
	if c := prober.Counters(); len(seen) != 20 || c.Abandoned != 20 || c.SendFailed != 1 {
		t.Errorf("%d probes have an outcome and counters are %+v, want 20 abandoned and 1 failure", len(seen), c)
	}
}

func TestManyEchoesAtOnceAreToldApart(t *testing.T) {
	if !inNetworkWithEchoes(t) {
		return
	}
	prober := startPortable(t, loopback4.Addr(), PortableOptions{})
	var all []Outcome
	for i := range uint64(100) {
		prober.send(t, echoPeer, i)
	}
	for range 100 {
		all = append(all, prober.next(t))
	}
	slices.SortFunc(all, func(a, b Outcome) int { return int(a.Tag) - int(b.Tag) })
	for i, o := range all {
		wantUserSample(t, o, uint64(i))
	}
}

func TestForgetEndsTheEchoesToOnePeer(t *testing.T) {
	if !inNetworkWithEchoes(t) {
		return
	}
	silence(t)
	stays := netip.MustParseAddrPort("127.0.0.2:9465")
	prober := startPortable(t, loopback4.Addr(), PortableOptions{})
	prober.send(t, echoPeer, 1)
	prober.send(t, stays, 2)
	prober.Forget(netip.MustParseAddrPort("[::ffff:127.0.0.1]:9465")) // the same, written as IPv6
	if o := prober.next(t); !o.Discarded || o.Tag != 1 {
		t.Errorf("outcome is %+v, want the first probe discarded", o)
	}
	if c := prober.Counters(); c.Abandoned != 1 {
		t.Errorf("counters are %+v, want 1 abandoned", c)
	}
}

func TestAnEchosOutcomeMaySendAndForget(t *testing.T) {
	if !inNetworkWithEchoes(t) {
		return
	}
	wantOutcomeToSendAndForget(t, echoPeer, func(outcome func(Outcome)) (*Portable, error) {
		return OpenPortable(t.Context(), loopback4.Addr(), PortableOptions{Timeout: 10 * time.Second, Outcome: outcome})
	})
}

func TestAPortableSendRefusesWhatCannotBeProbed(t *testing.T) {
	if !inNetworkWithEchoes(t) {
		return
	}
	startPortable(t, loopback4.Addr(), PortableOptions{}).wantRefused(t, map[string]Probe{
		"too small":                 {Peer: echoPeer, Size: MinSize - 1},
		"too large":                 {Peer: echoPeer, Size: MaxSize + 1},
		"no address":                {Size: MinSize},
		"the unspecified address":   {Peer: netip.MustParseAddrPort("0.0.0.0:1"), Size: MinSize},
		"an address of the other":   {Peer: netip.MustParseAddrPort("[::1]:1"), Size: MinSize},
		"the kernel has no way to":  {Peer: netip.MustParseAddrPort("192.0.2.1:1"), Size: MinSize},
		"a route that prohibits it": {Peer: netip.AddrPortFrom(prohibited(t), 1), Size: MinSize},
	})
}

func TestAPortableThatWasClosedDoesNotRun(t *testing.T) {
	if !inNetworkWithEchoes(t) {
		return
	}
	prober := openPortable(t, loopback4.Addr(), PortableOptions{})
	prober.send(t, echoPeer, 0)
	prober.wantNoRunAfterClose(t)
}

func TestOpenPortableSaysWhatIsWrong(t *testing.T) {
	if !inNetworkWithEchoes(t) {
		return
	}
	for name, test := range map[string]struct {
		local   netip.Addr
		options PortableOptions
	}{
		"no timeout":                   {loopback4.Addr(), PortableOptions{}},
		"a negative limit":             {loopback4.Addr(), PortableOptions{Timeout: 1, Limit: -1}},
		"no address":                   {netip.Addr{}, PortableOptions{Timeout: 1}},
		"an address of another's node": {netip.MustParseAddr("192.0.2.1"), PortableOptions{Timeout: 1}},
	} {
		if prober, err := OpenPortable(t.Context(), test.local, test.options); err == nil {
			prober.Close()
			t.Errorf("%s: no error", name)
		}
	}
}

// pro-bing's round trips are differences of the wall clock.
func TestAStepOfTheWallClockDiscardsAnEcho(t *testing.T) {
	sent := reading{at: time.Unix(1_800_000_000, 0), unix: 1_800_000_000_000_000_000}
	const bracket, rtt = 300 * time.Microsecond, 200 * time.Microsecond
	for name, test := range map[string]struct {
		step time.Duration // of the wall clock, while the echo was under way
		want Outcome
	}{
		"no step":                             {0, Outcome{RTT: rtt, Stamps: User}},
		"an hour ahead":                       {time.Hour, Outcome{Discarded: true}},
		"an hour back":                        {-time.Hour, Outcome{Discarded: true}},
		"back, by less than the round trip":   {-100 * time.Microsecond, Outcome{Discarded: true}},
		"ahead, by less than the bracket has": {80 * time.Microsecond, Outcome{Discarded: true}},
	} {
		p := &Portable{lifecycle: lifecycle{results: new(results)}, options: PortableOptions{Timeout: time.Second}}
		e := &echo{}
		e.sent = sent
		p.answered(e, rtt+test.step, reading{at: sent.at.Add(bracket), unix: sent.unix + int64(bracket+test.step)})
		test.want.Sent = sent.at
		if got := p.ready[0]; got != test.want {
			t.Errorf("%s: outcome is %+v, want %+v", name, got, test.want)
		}
	}
}

func TestAnEchoThatCameAfterTheTimeoutIsLost(t *testing.T) {
	p := &Portable{lifecycle: lifecycle{results: new(results)}, options: PortableOptions{Timeout: 100 * time.Microsecond}}
	e := &echo{}
	e.sent = read()
	p.answered(e, 200*time.Microsecond, reading{at: e.sent.at.Add(300 * time.Microsecond), unix: e.sent.unix + 300_000})
	if o := p.ready[0]; !o.Lost || o.RTT != 0 {
		t.Errorf("outcome is %+v, want a loss", o)
	}
}
