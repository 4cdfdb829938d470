package probe

import (
	"slices"
	"testing"
	"time"
)

// unlimited is a reflector for measurements.
func unlimited() *Reflector {
	return NewReflector(ReflectorOptions{PerSource: Rate{1e9, 1e9}, Total: Rate{1e9, 1e9}})
}

// BenchmarkUDPRoundTrip probes over the loopback interface. The way through it
// is as good as nothing, so the round trips that are measured are the error
// that the method adds: p50-µs and p99-µs are the result, and ns/op is how long
// the two user processes took to come to the next packet.
func BenchmarkUDPRoundTrip(b *testing.B) {
	reflector := start(b, loopback4, UDPOptions{Reflector: unlimited()})
	prober := start(b, loopback4, UDPOptions{})
	rtts := make([]time.Duration, 0, 1<<20)
	prober.send(b, reflector.LocalAddr(), 0)
	b.ReportAllocs()
	for b.Loop() {
		prober.send(b, reflector.LocalAddr(), 0)
		o := <-prober.outcomes
		if o.Lost || o.Discarded || o.Stamps != Kernel {
			b.Fatalf("outcome is %+v, want a sample by kernel stamps", o)
		}
		if len(rtts) < cap(rtts) {
			rtts = append(rtts, o.RTT)
		}
	}
	slices.Sort(rtts)
	b.ReportMetric(float64(rtts[len(rtts)/2])/1e3, "p50-µs")
	b.ReportMetric(float64(rtts[len(rtts)*99/100])/1e3, "p99-µs")
}

func TestNothingIsAllocatedPerPacket(t *testing.T) {
	onLinux(t)
	reflector := start(t, loopback4, UDPOptions{Reflector: unlimited()})
	prober := start(t, loopback4, UDPOptions{})
	probeInTurn(t, prober, reflector.LocalAddr(), 100)
	probe := Probe{Peer: reflector.LocalAddr(), Size: MinSize}
	if allocations := testing.AllocsPerRun(500, func() {
		if err := prober.Send(probe); err != nil {
			t.Fatal(err)
		}
		<-prober.outcomes
	}); allocations > 0 {
		t.Errorf("%v allocations per round trip, want none", allocations)
	}
}
