package agent

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/klog/v2"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/netlatency/netlatency/pkg/exposition"
	"github.com/netlatency/netlatency/pkg/probe"
)

// BenchmarkAThousandPeers is one read of the matrix of an agent whose windows
// are all full, at the default options. It also reports what a peer takes in
// memory, window, histogram and counters together. The goal is an agent of at
// most 32 MiB with 1000 peers.
func BenchmarkAThousandPeers(b *testing.B) {
	const peers = 1000
	o := testOptions()
	o.MaxPeers = peers
	before := heapInUse()
	clock := clocktesting.NewFakeClock(start)
	a, err := newAgent(o, "v1.2.3", slicesOf(fake.NewClientset()), clock)
	if err != nil {
		b.Fatal(err)
	}
	a.ways = []way{{method: probe.MethodUDP, engine: &fakeEngine{}}}
	random := rand.New(rand.NewPCG(1, 2))
	addresses := make([]netip.AddrPort, peers)
	for i := range addresses {
		addresses[i] = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 9465)
		a.join(klog.Background(), peer{Node: fmt.Sprintf("worker-%d.metro.example.com", i), Address: addresses[i].Addr(), ProbePort: 9465}, start)
	}
	for round := range uint64(200) {
		for i, address := range addresses {
			for range o.Burst {
				rtt := time.Duration(float64(500+i) * (1 + 0.2*random.ExpFloat64()) * float64(us))
				a.outcome(klog.Background(), probe.MethodUDP, probe.Outcome{Probe: probe.Probe{Peer: address, Tag: round}, Sent: clock.Now(), RTT: rtt})
			}
		}
		clock.Step(o.Interval)
	}
	perPeer := float64(heapInUse()-before) / peers

	for b.Loop() {
		if n := len(exposition.Families(a.Window(0))); n < 2 {
			b.Fatalf("%d families", n)
		}
	}
	b.ReportMetric(perPeer, "B/peer")
	runtime.KeepAlive(a)
}

func heapInUse() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}
