package probe

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fullListener has an accept queue that is full: it drops SYNs until there is
// room.
func fullListener(tb testing.TB) (at netip.AddrPort, makeRoom func()) {
	tb.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, socketAddress(loopback4)); err != nil {
		tb.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil { // room for one
		tb.Fatal(err)
	}
	bound, err := unix.Getsockname(fd)
	if err != nil {
		tb.Fatal(err)
	}
	at = netip.AddrPortFrom(loopback4.Addr(), uint16(bound.(*unix.SockaddrInet4).Port))
	c, err := net.Dial("tcp", at.String())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	return at, func() {
		accepted, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
		if err != nil {
			tb.Fatal(err)
		}
		unix.Close(accepted)
	}
}

func TestAConnectWithoutAnAnswerIsLost(t *testing.T) {
	full, _ := fullListener(t)
	prober := startTCP(t, loopback4.Addr(), TCPOptions{Timeout: 50 * time.Millisecond})
	for _, o := range prober.probeInTurn(t, full, 3) {
		if !o.Lost || o.Discarded || o.RTT != 0 || o.Stamps != "" {
			t.Errorf("outcome is %+v, want a loss without a latency", o)
		}
	}
	if c := prober.Counters(); c.Lost != 3 || c.KernelSamples != 0 {
		t.Errorf("counters are %+v, want 3 lost", c)
	}
}

func TestASYNThatHadToBeSentAgainIsALossAndNoLatency(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	full, makeRoom := fullListener(t)
	prober := startTCP(t, loopback4.Addr(), TCPOptions{Timeout: 10 * time.Second})
	dropped := listenDrops(t)
	prober.send(t, full, 0)
	for listenDrops(t) == dropped {
		time.Sleep(time.Millisecond)
	}
	makeRoom()
	if o := prober.next(t); !o.Lost || o.Discarded || o.RTT != 0 {
		t.Errorf("outcome is %+v, want a loss without a latency", o)
	}
	if c := prober.Counters(); c.Ignored[Retransmitted] != 1 || c.Lost != 1 {
		t.Errorf("counters are %+v, want one loss by retransmission", c)
	}
}

// listenDrops is how many SYNs listeners of this network have dropped.
func listenDrops(tb testing.TB) string {
	tb.Helper()
	statistics, err := os.ReadFile("/proc/self/net/netstat")
	if err != nil {
		tb.Fatal(err)
	}
	lines := strings.Split(string(statistics), "\n")
	names, values := strings.Fields(lines[0]), strings.Fields(lines[1])
	column := slices.Index(names, "ListenDrops")
	if column < 0 {
		tb.Fatalf("no ListenDrops in %q", names)
	}
	return values[column]
}

// A peer's process that answers our FIN before our RST is there leaves us with
// a TIME-WAIT. Over loopback it can, so here it waits for a moment; over a
// network it has to be quicker than the round trip.
func TestNoConnectionOutlivesItsProbe(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	for _, at := range []netip.AddrPort{loopback4, loopback6} {
		probed, ended := make(chan struct{}), make(chan struct{})
		peer := listenTCP(t, at, func(c net.Conn) {
			<-probed
			_, _ = c.Read(make([]byte, 1))
			c.Close()
			ended <- struct{}{}
		})
		prober := startTCP(t, at.Addr(), TCPOptions{})
		for range 200 {
			wantKernelSamples(t, prober.probeInTurn(t, peer, 1))
			probed <- struct{}{}
			<-ended
		}
		if left := connections(t, peer.Port()); len(left) > 0 {
			t.Errorf("%v: %d connections are left, in states %v", peer, len(left), left)
		}
	}
}

// connections are the states of all connections from and to a port, as numbers
// (include/net/tcp_states.h); 06 is TIME-WAIT.
func connections(tb testing.TB, port uint16) []string {
	tb.Helper()
	const listening = "0A"
	suffix := ":" + strings.ToUpper(strconv.FormatUint(uint64(port)|1<<16, 16)[1:])
	var states []string
	for _, table := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		text, err := os.ReadFile(table)
		if err != nil {
			tb.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			if (strings.HasSuffix(fields[1], suffix) || strings.HasSuffix(fields[2], suffix)) && fields[3] != listening {
				states = append(states, fields[3])
			}
		}
	}
	return states
}

func TestForgetEndsWhatIsUnderWayToOnePeer(t *testing.T) {
	gone, _ := fullListener(t)
	stays, _ := fullListener(t)
	prober := startTCP(t, loopback4.Addr(), TCPOptions{})
	for i := range uint64(6) {
		prober.send(t, []netip.AddrPort{gone, stays}[i%2], i)
	}
	prober.Forget(netip.AddrPortFrom(netip.AddrFrom16(gone.Addr().As16()), gone.Port())) // the same, written as IPv6
	for range 3 {
		if o := prober.next(t); !o.Discarded || o.Lost || o.Peer != gone {
			t.Errorf("outcome is %+v, want one to %v discarded", o, gone)
		}
	}
	if c := prober.Counters(); c.Abandoned != 3 || c.Lost != 0 {
		t.Errorf("counters are %+v, want 3 abandoned", c)
	}
	prober.stop()
	rest := 0
	for o := range prober.outcomes {
		rest++
		if !o.Discarded || o.Peer != stays {
			t.Errorf("outcome at the end is %+v, want one to %v discarded", o, stays)
		}
	}
	if rest != 3 {
		t.Errorf("%d outcomes at the end, want 3", rest)
	}
}

func TestEveryProbeHasOneOutcomeAndNoDescriptorIsLeft(t *testing.T) {
	answers := listenTCP(t, loopback4, nil)
	silent, _ := fullListener(t)
	nobody := netip.AddrPortFrom(loopback4.Addr(), 1)
	before := descriptors(t)
	for name, closing := range map[string]func(*tcpStation){
		"the context of Run ends": func(s *tcpStation) { s.stop() },
		"Close ends Run": func(s *tcpStation) {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			s.stop()
		},
	} {
		t.Run(name, func(t *testing.T) {
			prober := startTCP(t, loopback4.Addr(), TCPOptions{Timeout: 30 * time.Millisecond})
			const probes = 400
			for i := range uint64(probes) {
				prober.send(t, []netip.AddrPort{answers, silent, nobody}[i%3], i)
				if i%100 == 99 {
					prober.Forget(silent)
					time.Sleep(10 * time.Millisecond)
				}
			}
			closing(prober)
			seen := make(map[uint64]bool)
			for o := range prober.outcomes {
				if seen[o.Tag] || o.Lost && o.Discarded || o.RTT < 0 {
					t.Errorf("outcome %+v is impossible or the second of its probe", o)
				}
				seen[o.Tag] = true
			}
			c := prober.Counters()
			if ended := c.KernelSamples + c.Lost + c.OutOfBracket + c.Abandoned + c.Ignored[Refused]; len(seen) != probes || c.Sent != probes || ended != probes {
				t.Errorf("%d probes have an outcome and counters are %+v, want %d", len(seen), c, probes)
			}
		})
	}
	t.Run("Close before Run", func(t *testing.T) {
		prober := openTCP(t, loopback4.Addr(), TCPOptions{})
		for i := range uint64(30) {
			prober.send(t, []netip.AddrPort{answers, silent, nobody}[i%3], i)
		}
		if err := prober.Close(); err != nil {
			t.Error(err)
		}
	})
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors are open, want %d as before", after, before)
	}
}

func descriptors(tb testing.TB) int {
	tb.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		tb.Fatal(err)
	}
	return len(all)
}

func TestAKernelThatFailsEndsRun(t *testing.T) {
	prober := openTCP(t, loopback4.Addr(), TCPOptions{})
	full, _ := fullListener(t)
	prober.send(t, full, 0)
	unix.Close(prober.connector.epoll)
	if err := prober.Run(t.Context()); !errors.Is(err, unix.EBADF) {
		t.Errorf("run: error %v, want %v", err, unix.EBADF)
	}
	if o := prober.next(t); !o.Discarded {
		t.Errorf("outcome is %+v, want it discarded", o)
	}
}
