package probe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	probing "github.com/prometheus-community/pro-bing"
)

func init() {
	roles["accuracy"] = beAccurate
	roles["busy"] = beBusy
}

// accuracyConfig is what a process that measures does.
type accuracyConfig struct {
	Method   string // of accuracies
	Interval time.Duration
	Span     time.Duration
	Garbage  bool // make garbage in the same process
}

// roundTrips are what one process measured, by method.
type roundTrips map[string][]time.Duration

// accuracies measure round trips to the far end of the link. Ours are in one
// process, as in an agent; each of the others has its own.
var accuracies = map[string]func(accuracyConfig) (roundTrips, error){
	"ours":             accuracyOfOurs,
	"probing-raw":      func(c accuracyConfig) (roundTrips, error) { return accuracyOfProbing(c, true) },
	"probing-datagram": func(c accuracyConfig) (roundTrips, error) { return accuracyOfProbing(c, false) },
	"http":             accuracyOfHTTP,
}

var others = []string{"probing-raw", "probing-datagram", "http"}

// BenchmarkAccuracy is the error of round trips over a link between two network
// namespaces, in circumstances that a prober meets: for each method the p50,
// p99, p99.9 and maximum of the difference to the floor. The floor is the
// median of what kernel stamps say of the same link when nothing else runs:
// ours have their own, echoes by others that of icmp4, and HTTP that of udp4.
// All methods measure at the same time.
func BenchmarkAccuracy(b *testing.B) {
	hasICMP(b)
	startFar(b, farConfig{HTTP: true})
	idle := measure(b, accuracyConfig{Interval: 5 * time.Millisecond, Span: 2 * time.Second}, []string{"ours"}, nil)
	floor := make(map[string]float64)
	for method := range idle {
		floor[method] = quantile(idle[method], 0.5)
	}
	for theirs, ours := range map[string]string{"probing-raw": "icmp4", "probing-datagram": "icmp4", "http": "udp4"} {
		floor[theirs] = floor[ours]
	}
	all := append([]string{"ours"}, others...)
	for _, circumstances := range []struct {
		name    string
		config  accuracyConfig
		arrange func(*testing.B) func(pid int)
	}{
		{"idle", accuracyConfig{Interval: 5 * time.Millisecond, Span: 4 * time.Second}, nil},
		{"cpu-busy", accuracyConfig{Interval: 5 * time.Millisecond, Span: 8 * time.Second}, keepBusy},
		{"garbage", accuracyConfig{Interval: 5 * time.Millisecond, Span: 4 * time.Second, Garbage: true}, nil},
		{"cpu-limit-50m", accuracyConfig{Interval: 20 * time.Millisecond, Span: 5 * time.Second}, limitTo50m},
	} {
		b.Run(circumstances.name, func(b *testing.B) {
			var place func(pid int)
			if circumstances.arrange != nil {
				place = circumstances.arrange(b)
			}
			var results roundTrips
			for b.Loop() {
				results = measure(b, circumstances.config, all, place)
			}
			for method, rtts := range results {
				if len(rtts) == 0 {
					b.Fatalf("%s has no samples", method)
				}
				errs := make([]time.Duration, len(rtts))
				for i, rtt := range rtts {
					errs[i] = (rtt - time.Duration(floor[method]*1e3)).Abs()
				}
				for _, q := range []struct {
					name string
					of   float64
				}{{"p50", 0.5}, {"p99", 0.99}, {"p999", 0.999}, {"max", 1}} {
					b.ReportMetric(quantile(errs, q.of), method+"-"+q.name+"-µs")
				}
				b.Logf("%s: %d samples", method, len(rtts))
			}
		})
	}
}

// measure runs the methods at the same time, each in a process of its own that
// place, if there is one, is told of.
func measure(b *testing.B, config accuracyConfig, methods []string, place func(pid int)) roundTrips {
	b.Helper()
	all := make(roundTrips)
	var processes []*process
	for _, method := range methods {
		config.Method = method
		p := startRole(b, "accuracy", config, nil)
		if place != nil {
			place(p.Process.Pid)
		}
		processes = append(processes, p)
	}
	for _, p := range processes {
		var r roundTrips
		p.result(b, &r)
		maps.Copy(all, r)
	}
	return all
}

// keepBusy has two processes for each processor that want all of it.
func keepBusy(b *testing.B) func(int) {
	b.Helper()
	for range 2 * runtime.NumCPU() {
		startRole(b, "busy", nil, nil)
	}
	return nil
}

func beBusy([]byte, *json.Encoder) error {
	go exitWithParent()
	runtime.GOMAXPROCS(1)
	for { //nolint:staticcheck // it is meant to spin
	}
}

// limitTo50m gives each process a control group with a twentieth of a
// processor, as the limit "cpu: 50m" of a container does.
func limitTo50m(b *testing.B) func(int) {
	b.Helper()
	return func(pid int) {
		var failed error
		for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/cpu"} {
			group := filepath.Join(root, fmt.Sprintf("netlatency-probe-%d", pid))
			if failed = limit(group, pid); failed == nil {
				b.Cleanup(func() {
					// The process has ended, or is about to.
					for range 100 {
						if err := os.Remove(group); err == nil || errors.Is(err, os.ErrNotExist) {
							return
						}
						time.Sleep(10 * time.Millisecond)
					}
				})
				return
			}
			_ = os.Remove(group)
		}
		b.Skipf("this needs control groups that can be made: %v", failed)
	}
}

func limit(group string, pid int) error {
	if err := os.Mkdir(group, 0o755); err != nil {
		return err
	}
	v2 := os.WriteFile(filepath.Join(group, "cpu.max"), []byte("5000 100000"), 0o644)
	v1 := os.WriteFile(filepath.Join(group, "cpu.cfs_quota_us"), []byte("5000"), 0o644)
	if v1 != nil && v2 != nil {
		return errors.Join(v2, v1)
	}
	return os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o644)
}

func beAccurate(data []byte, results *json.Encoder) error {
	go exitWithParent()
	var config accuracyConfig
	if err := json.Unmarshal(data, &config); err != nil {
		return err
	}
	var done atomic.Bool
	if config.Garbage {
		for range runtime.GOMAXPROCS(0) {
			go makeGarbage(&done)
		}
	}
	r, err := accuracies[config.Method](config)
	done.Store(true)
	if err != nil {
		return err
	}
	return results.Encode(r)
}

// makeGarbage has some live memory and makes a lot that is not.
func makeGarbage(done *atomic.Bool) {
	live := make([][]*[64]byte, 64)
	for i := 0; !done.Load(); i++ {
		part := make([]*[64]byte, 10_000)
		for j := range part {
			part[j] = new([64]byte)
		}
		live[i%len(live)] = part
	}
}

// accuracyOfOurs has the engines that an agent of a cluster with both families
// could have.
func accuracyOfOurs(config accuracyConfig) (roundTrips, error) {
	var mu sync.Mutex
	results, ended := make(roundTrips), false
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	type prober struct {
		engine interface {
			Send(Probe) error
			Run(context.Context) error
		}
		peer netip.AddrPort
	}
	probers := make(map[string]prober)
	for _, name := range []string{"udp4", "udp6", "icmp4", "icmp6", "tcp4", "tcp6"} {
		near, far := near4.Addr(), far4.Addr()
		if name[len(name)-1] == '6' {
			near, far = near6.Addr(), far6.Addr()
		}
		outcome := func(o Outcome) {
			mu.Lock()
			defer mu.Unlock()
			// Those that come at the end could not wait for their stamps.
			if !ended && !o.Lost && !o.Discarded {
				results[name] = append(results[name], o.RTT)
			}
		}
		p := prober{peer: netip.AddrPortFrom(far, farPort)}
		var err error
		switch name[0] {
		case 'u':
			p.engine, err = ListenUDP(ctx, netip.AddrPortFrom(near, 0), UDPOptions{Timeout: time.Second, Hold: time.Second, Outcome: outcome})
		case 'i':
			p.engine, err = ListenICMP(ctx, near, ICMPOptions{Timeout: time.Second, Outcome: outcome})
		case 't':
			p.peer = netip.AddrPortFrom(far, farHTTPPort)
			p.engine, err = OpenTCP(ctx, near, TCPOptions{Timeout: time.Second, Outcome: outcome})
		}
		if err != nil {
			return nil, err
		}
		go func() { _ = p.engine.Run(ctx) }()
		probers[name] = p
	}
	err := every(config, func(i int) error {
		for _, p := range probers {
			if err := p.engine.Send(Probe{Peer: p.peer, Size: MinSize, Tag: uint64(i / 4)}); err != nil {
				return err
			}
		}
		return nil
	})
	mu.Lock()
	defer mu.Unlock()
	ended = true
	return results, err
}

// every calls f in the rhythm of config.
func every(config accuracyConfig, f func(i int) error) error {
	ticker := time.NewTicker(config.Interval)
	defer ticker.Stop()
	for i := range int(config.Span / config.Interval) {
		<-ticker.C
		if err := f(i); err != nil {
			return err
		}
	}
	return nil
}

func accuracyOfProbing(config accuracyConfig, raw bool) (roundTrips, error) {
	name := "probing-datagram"
	if raw {
		name = "probing-raw"
	}
	p, err := probing.NewPinger(far4.Addr().String())
	if err != nil {
		return nil, err
	}
	p.SetPrivileged(raw)
	p.Interval = config.Interval
	p.Timeout = config.Span
	p.RecordRtts = false
	var rtts []time.Duration
	p.OnRecv = func(p *probing.Packet) { rtts = append(rtts, p.Rtt) }
	err = p.Run()
	return roundTrips{name: rtts}, err
}

// accuracyOfHTTP measures as goldpinger does: the time of a GET, on a
// connection that is kept.
func accuracyOfHTTP(config accuracyConfig) (roundTrips, error) {
	client := &http.Client{Timeout: time.Second}
	url := fmt.Sprintf("http://%v:%d/ping", far4.Addr(), farHTTPPort)
	var rtts []time.Duration
	err := every(config, func(int) error {
		begin := time.Now()
		response, err := client.Get(url)
		if err != nil {
			return nil // it is lost
		}
		defer response.Body.Close()
		if _, err := io.Copy(io.Discard, response.Body); err == nil {
			rtts = append(rtts, time.Since(begin))
		}
		return nil
	})
	return roundTrips{"http": rtts}, err
}
