package probe

import (
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"testing"
	"time"
)

// BenchmarkTCPRoundTrip probes over the loopback interface, as
// BenchmarkUDPRoundTrip does: the round trips that are measured are what two
// kernels take for a SYN and its answer, and the error that the method adds.
// ns/op is how long the process took for the whole probe, and so what a probe
// costs at most.
func BenchmarkTCPRoundTrip(b *testing.B) {
	rtts := tcpRoundTrips(b)
	b.ReportMetric(microseconds(rtts[len(rtts)/2]), "p50-µs")
	b.ReportMetric(microseconds(rtts[len(rtts)*99/100]), "p99-µs")
}

// BenchmarkTCPRoundTripCPUBusy is the same while other processes keep every
// core busy, two to a core. The error is what a round trip is longer than the
// floor: the median of the same path while the cores are idle.
func BenchmarkTCPRoundTripCPUBusy(b *testing.B) {
	prober := startTCP(b, loopback4.Addr(), TCPOptions{})
	peer := listenAndDiscard(b)
	var idle []time.Duration
	for _, o := range prober.probeInTurn(b, peer, 2000) {
		idle = append(idle, o.RTT)
	}
	slices.Sort(idle)
	floor := idle[len(idle)/2]

	keepBusy(b, 2*runtime.NumCPU())
	rtts := tcpRoundTrips(b)
	b.ReportMetric(microseconds(floor), "floor-µs")
	b.ReportMetric(microseconds(max(0, rtts[len(rtts)*99/100]-floor)), "error-p99-µs")
	b.ReportMetric(microseconds(max(0, rtts[len(rtts)-1]-floor)), "error-max-µs")
	b.ReportMetric(float64(len(rtts)), "samples")
}

// tcpRoundTrips probes for as long as the benchmark wants and returns the round
// trips, the shortest first.
func tcpRoundTrips(b *testing.B) []time.Duration {
	b.Helper()
	prober := startTCP(b, loopback4.Addr(), TCPOptions{})
	peer := listenAndDiscard(b)
	prober.probeInTurn(b, peer, 100)
	rtts := make([]time.Duration, 0, 1<<20)
	b.ReportAllocs()
	for b.Loop() {
		prober.send(b, peer, 0)
		o := prober.next(b)
		if o.Lost || o.Discarded || o.Stamps != Kernel {
			b.Fatalf("outcome is %+v, want a sample by kernel stamps", o)
		}
		if len(rtts) < cap(rtts) {
			rtts = append(rtts, o.RTT)
		}
	}
	slices.Sort(rtts)
	return rtts
}

// listenAndDiscard listens and ends connections as they come.
func listenAndDiscard(tb testing.TB) netip.AddrPort {
	tb.Helper()
	return listenTCP(tb, loopback4, func(c net.Conn) { c.Close() })
}

func microseconds(d time.Duration) float64 { return float64(d) / 1e3 }

// busyVariable tells a copy of this program to keep one core busy.
const busyVariable = "NETLATENCY_TEST_BUSY"

func init() {
	if os.Getenv(busyVariable) == "" {
		return
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // ends with the benchmark
		os.Exit(0)
	}()
	for spins := 0; ; spins++ {
	}
}

// keepBusy keeps so many processes busy until the benchmark ends.
func keepBusy(b *testing.B, processes int) {
	b.Helper()
	for range processes {
		cmd := exec.CommandContext(b.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), busyVariable+"=1", "GOMAXPROCS=1")
		stdin, err := cmd.StdinPipe()
		if err != nil {
			b.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			stdin.Close()
			_ = cmd.Wait()
		})
	}
}
