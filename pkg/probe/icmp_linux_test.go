package probe

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/netlatency/netlatency/test/machine"
)

// pinger is an ICMP that runs.
type pinger struct {
	*ICMP
	*subject
}

func startICMP(tb testing.TB, addr netip.Addr, timeout time.Duration) *pinger {
	tb.Helper()
	hasICMP(tb)
	c, s := opens(tb, func(outcome func(Outcome)) (*ICMP, error) {
		return ListenICMP(tb.Context(), addr, ICMPOptions{Timeout: timeout, Outcome: outcome})
	})
	s.run(tb)
	return &pinger{c, s}
}

var families = map[string]netip.Addr{"IPv4": loopback4.Addr(), "IPv6": loopback6.Addr()}

func TestEchoesAreSamplesByKernelStamps(t *testing.T) {
	for name, addr := range families {
		t.Run(name, func(t *testing.T) {
			if addr.Is6() {
				machine.NeedsIPv6(t)
			}
			p := startICMP(t, addr, 2*time.Second)
			if p.Stamps != Kernel {
				t.Fatalf("stamps are %s, want kernel", p.Stamps)
			}
			if p.ports[0].tx == p.ports[0].fd {
				t.Error("one socket sends and receives, want two: a transmit stamp would wake who waits")
			}
			// The port means nothing, and is the caller's again in the outcome.
			for i, port := range []uint16{0, 9465, 1} {
				probe := Probe{Peer: netip.AddrPortFrom(addr, port), Size: MinSize, Tag: uint64(i)}
				if err := p.Send(probe); err != nil {
					t.Fatal(err)
				}
				o := p.next(t)
				p.wantKernel(t, o)
				if o.Probe != probe || o.Seq != uint32(i)+1 {
					t.Errorf("outcome is of packet %d, %+v, want packet %d of the same session, %+v", o.Seq, o.Probe, i+1, probe)
				}
			}
			if diff := cmp.Diff(map[string]uint64{"t1": 0, "t4": 0}, p.Counters().Missing); diff != "" {
				t.Errorf("missing stamps (-want +got):\n%s", diff)
			}
		})
	}
}

func TestABatchOfEchoesIsSentButForThoseThatFail(t *testing.T) {
	for name, explicit := range map[string]bool{"numbered by us": true, "counted by the kernel": false} {
		t.Run(name, func(t *testing.T) {
			p := startICMP(t, loopback4.Addr(), 5*time.Second)
			if !explicit {
				p.mu.Lock()
				p.ports[0].out.explicit = false
				p.mu.Unlock()
			}
			var probes []Probe
			var want []uint64
			for i := range uint64(200) {
				probe := Probe{Peer: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 1, byte(i)}), 0), Size: MinSize + int(i), Tag: i}
				switch i % 10 {
				case 3:
					probe.Peer = netip.MustParseAddrPort("255.255.255.255:0") // refused by the kernel
				case 5:
					probe.Peer = netip.MustParseAddrPort("198.51.100.1:0") // there is no route
				case 7:
					probe.Peer = loopback6
				default:
					want = append(want, i)
				}
				probes = append(probes, probe)
			}
			failed := 0
			p.SendBatch(probes, func(i int, err error) {
				failed++
				if i%10 != 3 && i%10 != 5 && i%10 != 7 {
					t.Errorf("packet %d failed: %v", i, err)
				}
			})
			if failed != 60 {
				t.Errorf("%d packets failed, want 60", failed)
			}
			var got []uint64
			for range want {
				o := p.next(t)
				p.wantKernel(t, o)
				got = append(got, o.Tag)
			}
			slices.Sort(got)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("packets with a sample (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFullSizeEchoesAreAnsweredInFull(t *testing.T) {
	for name, addr := range families {
		t.Run(name, func(t *testing.T) {
			if addr.Is6() {
				machine.NeedsIPv6(t)
			}
			p := startICMP(t, addr, 5*time.Second)
			for _, size := range []int{MinSize, 1400, MaxSize} {
				if err := p.Send(Probe{Peer: netip.AddrPortFrom(addr, 0), Size: size}); err != nil {
					t.Fatal(err)
				}
				o := p.next(t)
				p.wantKernel(t, o)
				if o.Size != size {
					t.Errorf("outcome is of %d octets, want %d", o.Size, size)
				}
			}
		})
	}
}

func TestICMPSocketsDoNotDisturbEachOther(t *testing.T) {
	a, b := startICMP(t, loopback4.Addr(), 2*time.Second), startICMP(t, loopback4.Addr(), 2*time.Second)
	for range 20 {
		for _, p := range []*pinger{a, b} {
			if err := p.Send(Probe{Peer: loopback4, Size: MinSize}); err != nil {
				t.Fatal(err)
			}
		}
		a.wantKernel(t, a.next(t))
		b.wantKernel(t, b.next(t))
	}
	for _, p := range []*pinger{a, b} {
		for reason, n := range p.Counters().Ignored {
			if n > 0 {
				t.Errorf("%d packets were ignored for reason %s", n, reason)
			}
		}
	}
}

func TestOneICMPSocketServesWhereASecondIsNotToBeHad(t *testing.T) {
	p := startICMP(t, loopback4.Addr(), 2*time.Second)
	p.mu.Lock()
	p.ports[0].tx = p.ports[0].fd
	p.mu.Unlock()
	for range 20 {
		if err := p.Send(Probe{Peer: loopback4, Size: MinSize}); err != nil {
			t.Fatal(err)
		}
		p.wantKernel(t, p.next(t))
	}
}

// A router that has no way says so in an ICMP message of its own. It is no
// answer, and does not become the error of another packet.
func TestUnreachablePeersAreLostAndLeaveOthersAlone(t *testing.T) {
	startFar(t, farConfig{})
	for name, test := range map[string]struct{ near, far, lost netip.Addr }{
		"IPv4": {near4.Addr(), far4.Addr(), lostNetworks[0].Addr().Next()},
		"IPv6": {near6.Addr(), far6.Addr(), lostNetworks[1].Addr().Next()},
	} {
		t.Run(name, func(t *testing.T) {
			p := startICMP(t, test.near, 300*time.Millisecond)
			const rounds = 5
			for range rounds {
				for _, peer := range []netip.Addr{test.lost, test.far} {
					if err := p.Send(Probe{Peer: netip.AddrPortFrom(peer, 0), Size: MinSize}); err != nil {
						t.Errorf("send next to a peer that a router rejects: %v", err)
					}
				}
				p.wantKernel(t, p.next(t))
			}
			for range rounds {
				if o := p.next(t); !o.Lost || o.Peer.Addr() != test.lost {
					t.Errorf("outcome is %+v, want the loss of what a router rejects", o)
				}
			}
		})
	}
}

func TestListenICMPSaysWhichSettingPermitsIt(t *testing.T) {
	const file = "/proc/sys/net/ipv4/ping_group_range"
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	ownNamespace(t)
	if err := permitPing("1 0"); err != nil {
		machine.Lacks(t, "the sysctl cannot be changed: %v", err)
	}
	defer permitPing(string(before))
	for name, addr := range families {
		t.Run(name, func(t *testing.T) {
			if addr.Is6() {
				machine.NeedsIPv6(t)
			}
			_, err := ListenICMP(t.Context(), addr, ICMPOptions{Timeout: time.Second})
			if !errors.Is(err, unix.EACCES) || !strings.Contains(err.Error(), "net.ipv4.ping_group_range") || !strings.Contains(err.Error(), "chart") {
				t.Errorf("error is %v, want one that names the sysctl and what sets it", err)
			}
		})
	}
}

func TestListenICMPSaysWhatIsWrong(t *testing.T) {
	hasICMP(t)
	for name, test := range map[string]struct {
		addr    netip.Addr
		timeout time.Duration
	}{
		"no timeout":                   {loopback4.Addr(), 0},
		"no address":                   {netip.Addr{}, 1},
		"an address of another's node": {netip.MustParseAddr("192.0.2.1"), 1},
	} {
		if c, err := ListenICMP(t.Context(), test.addr, ICMPOptions{Timeout: test.timeout}); err == nil {
			c.Close()
			t.Errorf("%s: no error", name)
		}
	}
}

func TestICMPRefusesWhatCannotBeProbed(t *testing.T) {
	startICMP(t, loopback4.Addr(), time.Second).wantRefused(t, map[string]Probe{
		"too small":               {Peer: loopback4, Size: MinSize - 1},
		"too large":               {Peer: loopback4, Size: MaxSize + 1},
		"no address":              {Size: MinSize},
		"the unspecified address": {Peer: netip.MustParseAddrPort("[::ffff:0.0.0.0]:1"), Size: MinSize},
		"an address of the other": {Peer: loopback6, Size: MinSize},
	})
}

func TestEchoesThatAreNotOursAreIgnored(t *testing.T) {
	p := startICMP(t, loopback4.Addr(), time.Second)
	from := loopback4
	echo := func(h Header, size int, change func([]byte)) datagram {
		b := make([]byte, echoHeader+size)
		encodeEcho(b, false, h)
		b[0] = echoReply4
		binary.BigEndian.PutUint16(b[4:], p.local.Port())
		if change != nil {
			change(b)
		}
		return datagram{payload: b, from: from}
	}
	p.mu.Lock()
	k := p.prober.begin(Probe{Peer: loopback4, Size: 100})
	k.sent = read()
	ours := Header{Kind: Request, Session: k.session.id, Seq: k.seq}
	other := ours
	other.Session++
	unsent := ours
	unsent.Seq++
	for _, test := range []struct {
		name string
		d    datagram
		want Reason
	}{
		{"another nonce", echo(other, 100, nil), WrongSession},
		{"another size", echo(ours, 101, nil), WrongSize},
		{"another source", datagram{payload: echo(ours, 100, nil).payload, from: peerA}, WrongSource},
		{"a number that was not sent", echo(unsent, 100, nil), Unsent},
		{"a number that is not that of its data", echo(ours, 100, func(b []byte) { b[7]++ }), Malformed},
		{"another identifier", echo(ours, 100, func(b []byte) { b[5]++ }), Malformed},
		{"a request", echo(ours, 100, func(b []byte) { b[0] = echoRequest4 }), Malformed},
		{"data that was changed", echo(ours, 100, func(b []byte) { b[107] = 1 }), Malformed},
		{"one that was cut short", datagram{payload: echo(ours, 100, nil).payload, from: from, truncated: true}, Malformed},
	} {
		before := p.prober.counters.Ignored[test.want]
		p.received(p.ports[0], &test.d, read())
		if p.prober.counters.Ignored[test.want] != before+1 {
			t.Errorf("%s: not counted as %s: %v", test.name, test.want, p.prober.counters.Ignored)
		}
	}
	d := echo(ours, 100, nil)
	p.received(p.ports[0], &d, read())
	p.received(p.ports[0], &d, read())
	if got := p.prober.counters.Ignored[Duplicate]; got != 1 {
		t.Errorf("%d duplicates counted, want 1", got)
	}
	p.mu.Unlock()
	if o := p.next(t); o.Lost || o.Discarded || o.Stamps != User {
		t.Errorf("outcome is %+v, want a sample without kernel stamps", o)
	}
}

func TestNothingIsAllocatedPerEcho(t *testing.T) {
	p := startICMP(t, loopback4.Addr(), 2*time.Second)
	probe := Probe{Peer: loopback4, Size: MinSize}
	if allocations := testing.AllocsPerRun(500, func() {
		if err := p.Send(probe); err != nil {
			t.Fatal(err)
		}
		<-p.outcomes
	}); allocations > 0 {
		t.Errorf("%v allocations per round trip, want none", allocations)
	}
}
