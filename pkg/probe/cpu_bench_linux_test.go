package probe

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	probing "github.com/prometheus-community/pro-bing"
	"golang.org/x/sys/unix"
)

func init() { roles["load"] = beLoad }

// loadConfig is what a process under load does.
type loadConfig struct {
	Method string // of loads
	Peers  int    // each is probed once a second
	Warm   time.Duration
	Span   time.Duration
}

// loadResult is what it took in Span.
type loadResult struct {
	Cores      float64 // of a processor, user and system
	RSS        float64 // MiB, the most there was
	Goroutines int
	Replies    uint64 // to requests of others
	Samples    []time.Duration
}

// loads measure round trips to peers, which are called once a second each,
// until ctx is done.
var loads = map[string]func(ctx context.Context, peers []netip.AddrPort, result *loadResult) error{
	"udp":     loadUDP,
	"icmp":    loadICMP,
	"probing": loadProbing,
}

// BenchmarkLoad is the processor time and the memory of a process that probes
// 1000 peers once a second and, by UDP, answers each of them as often: what an
// agent does besides its books. The peers are in another process. probing is
// pro-bing as its users have it, with a Pinger for each peer, on the same kind
// of socket as icmp; nobody probes it. It is there for other numbers of peers
// too, for an agent to be measured against.
func BenchmarkLoad(b *testing.B) {
	for _, c := range []struct {
		name, method string
		peers        int
	}{
		{"udp", "udp", 1000}, {"icmp", "icmp", 1000}, {"probing", "probing", 1000},
		{"probing-100", "probing", 100}, {"probing-2000", "probing", 2000},
	} {
		b.Run(c.name, func(b *testing.B) {
			method, peers := c.method, c.peers
			hasICMP(b)
			far := farConfig{}
			if method == "udp" {
				far = farConfig{Target: netip.AddrPortFrom(near4.Addr(), farPort), PerSecond: peers}
			}
			startFar(b, far)
			var r loadResult
			for b.Loop() {
				p := startRole(b, "load", loadConfig{method, peers, 2 * time.Second, 5 * time.Second}, nil)
				p.result(b, &r)
			}
			if len(r.Samples) < peers*4 {
				b.Fatalf("%d samples in 5 s of %d probes a second", len(r.Samples), peers)
			}
			b.ReportMetric(float64(r.Goroutines), "goroutines")
			b.ReportMetric(r.Cores, "cores")
			b.ReportMetric(r.RSS, "RSS-MiB")
			b.ReportMetric(quantile(r.Samples, 0.5), "p50-µs")
			b.ReportMetric(quantile(r.Samples, 0.99), "p99-µs")
			if method == "udp" && r.Replies < uint64(peers*4) {
				b.Fatalf("%d replies to %d requests a second", r.Replies, peers)
			}
		})
	}
}

// quantile is one of round trips, in microseconds.
func quantile(rtts []time.Duration, q float64) float64 {
	sorted := slices.Sorted(slices.Values(rtts))
	return float64(sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]) / 1e3
}

func beLoad(data []byte, results *json.Encoder) error {
	go exitWithParent()
	var config loadConfig
	if err := json.Unmarshal(data, &config); err != nil {
		return err
	}
	peers := make([]netip.AddrPort, config.Peers)
	for i := range peers {
		peers[i] = farPeer(i)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var cores float64
	var goroutines int
	go func() {
		defer cancel()
		time.Sleep(config.Warm)
		begin, before := time.Now(), processorTime()
		time.Sleep(config.Span)
		cores = (processorTime() - before).Seconds() / time.Since(begin).Seconds()
		goroutines = runtime.NumGoroutine()
	}()
	var r loadResult
	if err := loads[config.Method](ctx, peers, &r); err != nil {
		return err
	}
	r.Cores, r.Goroutines = cores, goroutines
	var err error
	if r.RSS, err = residentPeak(); err != nil {
		return err
	}
	return results.Encode(r)
}

// processorTime is what this process has used.
func processorTime() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u) // cannot fail
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// residentPeak is of this program alone, which ru_maxrss is not.
func residentPeak() (mebibytes float64, err error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); f[0] == "VmHWM:" {
			kibibytes, err := strconv.ParseFloat(f[1], 64)
			return kibibytes / 1024, err
		}
	}
	return 0, fmt.Errorf("no VmHWM in %q", status)
}

// take returns what takes in outcomes until ctx is done: those that come then
// could not wait for their stamps.
func (r *loadResult) take(ctx context.Context) func(Outcome) {
	return func(o Outcome) {
		if !o.Lost && !o.Discarded && ctx.Err() == nil {
			r.Samples = append(r.Samples, o.RTT)
		}
	}
}

func loadUDP(ctx context.Context, peers []netip.AddrPort, r *loadResult) error {
	reflector := unlimited()
	u, err := ListenUDP(ctx, netip.AddrPortFrom(near4.Addr(), farPort), UDPOptions{
		Timeout: time.Second, Hold: 10 * time.Second, Outcome: r.take(ctx), Reflector: reflector,
	})
	if err != nil {
		return err
	}
	return r.run(ctx, u.engine, reflector, peers)
}

func loadICMP(ctx context.Context, peers []netip.AddrPort, r *loadResult) error {
	c, err := ListenICMP(ctx, near4.Addr(), ICMPOptions{Timeout: time.Second, Outcome: r.take(ctx)})
	if err != nil {
		return err
	}
	return r.run(ctx, c.engine, nil, peers)
}

// tick is how often an agent looks for probes that are due.
const tick = 10 * time.Millisecond

// run has one processor, as an agent has.
func (r *loadResult) run(ctx context.Context, e *engine, reflector *Reflector, peers []netip.AddrPort) error {
	runtime.GOMAXPROCS(1)
	go func() {
		var batch []Probe
		begin := time.Now()
		ticker := time.NewTicker(tick)
		defer ticker.Stop()
		for i := 0; ctx.Err() == nil; {
			<-ticker.C
			batch = batch[:0]
			for due := int(time.Since(begin).Seconds() * float64(len(peers))); i < due; i++ {
				batch = append(batch, Probe{Peer: peers[i%len(peers)], Size: MinSize, Tag: uint64(i / len(peers))})
			}
			e.SendBatch(batch, func(_ int, err error) {
				if ctx.Err() == nil {
					fmt.Fprintln(os.Stderr, err)
				}
			})
		}
	}()
	if err := e.Run(ctx); err != nil {
		return err
	}
	if reflector != nil {
		r.Replies = reflector.Counters().Replies
	}
	return nil
}

func loadProbing(ctx context.Context, peers []netip.AddrPort, r *loadResult) error {
	rtts := make(chan time.Duration, 1000)
	errs := make(chan error, len(peers))
	for i, peer := range peers {
		p, err := probing.NewPinger(peer.Addr().String())
		if err != nil {
			return err
		}
		p.SetPrivileged(false)
		p.Interval = time.Second
		p.RecordRtts = false
		p.OnRecv = func(p *probing.Packet) { rtts <- p.Rtt }
		go func() {
			time.Sleep(time.Duration(i) * time.Second / time.Duration(len(peers)))
			if err := p.RunWithContext(ctx); err != nil {
				errs <- err
			}
		}()
	}
	for {
		select {
		case rtt := <-rtts:
			r.Samples = append(r.Samples, rtt)
		case err := <-errs:
			return err
		case <-ctx.Done():
			return nil
		}
	}
}
