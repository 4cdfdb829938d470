package probe

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// countByKernel makes the socket behave as on a kernel before 6.13, which
// does not let us number the packets.
func countByKernel(u *UDP) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, p := range u.ports {
		p.out.explicit = false
	}
}

func TestStampsAreMatchedWhereTheKernelCountsPackets(t *testing.T) {
	reflector := start(t, loopback4, UDPOptions{Reflector: NewReflector(ReflectorOptions{})})
	prober := start(t, loopback4, UDPOptions{})
	countByKernel(prober.UDP)
	countByKernel(reflector.UDP)
	wantKernelSamples(t, probeInTurn(t, prober, reflector.LocalAddr(), 20))
}

// Old kernels count a packet that then cannot be sent.
func TestStampsAreMatchedAfterSendsThatFailed(t *testing.T) {
	for name, count := range map[string]func(*UDP){"numbered by us": func(*UDP) {}, "counted by the kernel": countByKernel} {
		t.Run(name, func(t *testing.T) {
			reflector := start(t, loopback4, UDPOptions{Reflector: NewReflector(ReflectorOptions{})})
			prober := start(t, loopback4, UDPOptions{})
			count(prober.UDP)
			for i := range uint64(20) {
				if err := prober.Send(Probe{Peer: netip.MustParseAddrPort("255.255.255.255:1"), Size: MinSize}); err == nil {
					t.Fatal("a broadcast was sent, so this test shows nothing")
				}
				if i%4 == 0 {
					skipNumber(t, prober.UDP)
				}
				prober.send(t, reflector.LocalAddr(), i)
				if i > 0 {
					prober.wantKernel(t, prober.next(t))
				}
			}
			if got := prober.Counters().SendFailed; got != 25 {
				t.Errorf("%d failures counted, want 25", got)
			}
		})
	}
}

// skipNumber makes the kernel count a packet that is not one of ours, as an
// old kernel does for one that fails, and then fail.
func skipNumber(t *testing.T, u *UDP) {
	t.Helper()
	u.mu.Lock()
	if p := u.ports[0]; !p.out.explicit {
		p.put(0, make([]byte, MinSize), p.local, netip.Addr{})
		if _, err := p.outgoing.send(p.tx, 0, 1, false); err != nil {
			t.Errorf("send to itself: %v", err)
		}
	}
	u.mu.Unlock()
	if err := u.Send(Probe{Peer: netip.MustParseAddrPort("255.255.255.255:1"), Size: MinSize}); err == nil {
		t.Error("a broadcast was sent, so this test shows nothing")
	}
}

// Every third packet cannot be sent; each fails alone.
func TestABatchIsSentButForThoseThatFail(t *testing.T) {
	for name, count := range map[string]func(*UDP){"numbered by us": func(*UDP) {}, "counted by the kernel": countByKernel} {
		t.Run(name, func(t *testing.T) {
			reflector := start(t, loopback4, UDPOptions{Reflector: unlimited()})
			prober := start(t, loopback4, UDPOptions{Timeout: 5 * time.Second, Hold: 50 * time.Millisecond, Ports: defaultPorts})
			count(prober.UDP)
			broadcast := netip.MustParseAddrPort("255.255.255.255:1")
			var probes []Probe
			var wantFailed, wantSampled []uint64
			for i := range uint64(200) {
				p := Probe{Peer: reflector.LocalAddr(), Size: MinSize, Tag: i}
				switch {
				case i%3 == 1 && i%2 == 0:
					p.Peer = broadcast // refused by the kernel
				case i%3 == 1:
					p.Size = 1 // refused before
				}
				if probes = append(probes, p); i%3 == 1 {
					wantFailed = append(wantFailed, i)
				} else {
					wantSampled = append(wantSampled, i)
				}
			}
			var failed, sampled []uint64
			prober.SendBatch(probes, func(i int, err error) { failed = append(failed, uint64(i)) })
			for range wantSampled {
				o := prober.next(t)
				if o.Lost || o.Discarded || o.RTT <= 0 {
					t.Fatalf("outcome is %+v, want a sample", o)
				}
				sampled = append(sampled, o.Tag)
			}
			slices.Sort(failed)
			slices.Sort(sampled)
			if diff := cmp.Diff(wantFailed, failed); diff != "" {
				t.Errorf("packets that failed (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(wantSampled, sampled); diff != "" {
				t.Errorf("packets with a sample (-want +got):\n%s", diff)
			}
			if c := prober.Counters(); c.Missing["t1"] != 0 || c.Missing["t4"] != 0 {
				t.Errorf("stamps of the prober are missing: %v", c.Missing)
			}
		})
	}
}

func TestNobodyIsWokenByATransmitStamp(t *testing.T) {
	prober := open(t, loopback4, UDPOptions{})
	silent := start(t, loopback4, UDPOptions{})
	prober.send(t, silent.LocalAddr(), 0)
	fds := []unix.PollFd{{Fd: int32(prober.ports[0].fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, 50); n != 0 || err != nil {
		t.Errorf("poll returned %d sockets with events %#x, error %v, want none", n, fds[0].Revents, err)
	}
	if stamps, _ := prober.ports[0].transmitted(); len(stamps) != 1 {
		t.Errorf("%d transmit stamps, want 1", len(stamps))
	}
}

func TestPacketsThatCameInTimeAreFoundAfterTheDeadline(t *testing.T) {
	reflector := start(t, loopback4, UDPOptions{Reflector: unlimited()})
	prober := open(t, loopback4, UDPOptions{})
	prober.send(t, reflector.LocalAddr(), 0)
	for { // until the reply is there
		fds := []unix.PollFd{{Fd: int32(prober.ports[0].fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(fds, 10_000); err == nil && n == 1 {
			break
		}
	}
	n, err := prober.sockets.receive(time.Now().Add(-time.Second), func(*socket, []datagram, reading) {})
	if n != 1 || err != nil {
		t.Errorf("%d packets, error %v, want the one that waited", n, err)
	}
}

func TestASecondSocketTakesNothingThatArrives(t *testing.T) {
	reflector := start(t, loopback4, UDPOptions{Reflector: unlimited()})
	// From many ports, since a group without its filter chooses by their hash.
	for range 20 {
		wantKernelSamples(t, probeInTurn(t, start(t, loopback4, UDPOptions{}), reflector.LocalAddr(), 2))
	}
}

func TestOneSocketServesWhereASecondIsNotToBeHad(t *testing.T) {
	alone := func(options UDPOptions) *station {
		s := open(t, loopback4, options)
		for _, p := range s.ports {
			unix.Close(p.tx)
			p.tx = p.fd
		}
		s.run(t)
		return s
	}
	reflector := alone(UDPOptions{Reflector: NewReflector(ReflectorOptions{})})
	wantKernelSamples(t, probeInTurn(t, alone(UDPOptions{}), reflector.LocalAddr(), 50))
}

func TestWithoutKernelStampsTheUsersClockServes(t *testing.T) {
	reflector := start(t, loopback4, UDPOptions{Reflector: NewReflector(ReflectorOptions{})})
	prober := start(t, loopback4, UDPOptions{Timeout: time.Second})
	for _, s := range []*station{reflector, prober} {
		s.mu.Lock()
		for _, p := range s.ports {
			for _, fd := range []int{p.fd, p.tx} {
				if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPING, 0); err != nil {
					t.Fatal(err)
				}
			}
			p.out.explicit = false
			p.unstamped = unix.EPERM
		}
		s.mu.Unlock()
	}
	prober.send(t, reflector.LocalAddr(), 0)
	if o := prober.next(t); o.Lost || o.Discarded || o.RTT <= 0 || o.Stamps != User {
		t.Errorf("outcome is %+v, want a sample by the user's clock", o)
	}
	for stamp, n := range prober.Counters().Missing {
		if n != 1 {
			t.Errorf("%s is missing %d times, want 1", stamp, n)
		}
	}
}

// Stamps are read when packets arrive. Peers that do not answer must not fill
// the queue that those of the others come by.
func TestStampsOfUnansweredPacketsLeaveRoomForOthers(t *testing.T) {
	silent := open(t, loopback4, UDPOptions{})
	reflector := start(t, loopback4, UDPOptions{Reflector: unlimited()})
	prober := start(t, loopback4, UDPOptions{Timeout: 30 * time.Second, Hold: time.Minute})
	probes := make([]Probe, 8000) // more stamps than the largest buffer holds
	for i := range probes {
		probes[i] = Probe{Peer: silent.LocalAddr(), Size: MinSize}
	}
	prober.SendBatch(probes, func(i int, err error) { t.Fatalf("probe %d: %v", i, err) })
	prober.send(t, reflector.LocalAddr(), 0)
	prober.send(t, reflector.LocalAddr(), 1)
	prober.wantKernel(t, prober.next(t))
}
