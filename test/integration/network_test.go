package integration

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/probe"
	"github.com/netlatency/netlatency/test/sandbox"
	"github.com/netlatency/netlatency/test/sandbox/scenario"
	"github.com/netlatency/netlatency/test/sandbox/trial"
)

// rounds is the time that n rounds of probing take at most: with their jitter,
// and until the last probe of the last is lost.
func rounds(s *sandbox.Sandbox, n int) time.Duration {
	interval := s.Scenario.Probe.Interval.Duration
	return time.Duration(n)*interval*11/10 + interval/2
}

// between are the pairs of nodes of two providers, in both directions.
func between(s *sandbox.Sandbox, a, b string) (pairs []latency.Pair) {
	for _, n := range s.Scenario.NodeList() {
		for _, m := range s.Scenario.NodeList() {
			if n.Provider == a && m.Provider == b || n.Provider == b && m.Provider == a {
				pairs = append(pairs, latency.Pair{Node: n.Name, Peer: m.Name})
			}
		}
	}
	return pairs
}

// rows are what the agents know of pairs.
func rows(ctx context.Context, t *testing.T, s *sandbox.Sandbox, pairs []latency.Pair) map[latency.Pair]latency.Distribution {
	t.Helper()
	found := make(map[latency.Pair]latency.Distribution)
	for _, node := range s.NodeNames() {
		window, err := s.Window(ctx, node)
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range window.Rows {
			if pair := (latency.Pair{Node: node, Peer: row.Peer}); slices.Contains(pairs, pair) {
				found[pair] = row.Distribution
			}
		}
	}
	return found
}

// change replaces the link between two providers by what alter makes of the
// scenario's.
func change(ctx context.Context, t *testing.T, s *sandbox.Sandbox, a, b string, alter func(*scenario.Path)) {
	t.Helper()
	for _, link := range s.Scenario.Links {
		if slices.Contains(link.Between, a) && slices.Contains(link.Between, b) {
			alter(&link.Path)
			if err := s.Apply(ctx, scenario.Event{Link: &link}); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("the scenario has no link between %s and %s", a, b)
}

// What a firewall blocks is replaced by the next method within three rounds, and what it lets through again is used again.
func blockedMethodsAreReplaced(ctx context.Context, t *testing.T, s *sandbox.Sandbox) {
	t.Helper()
	const near, far = "hetzner", "gthost"
	pairs := between(s, near, far)
	for _, step := range []struct {
		name   string
		blocks []string
		want   probe.Method
	}{
		{"UDP is blocked", []string{"udp"}, probe.MethodICMP},
		{"ICMP is blocked too", []string{"udp", "icmp"}, probe.MethodTCP},
	} {
		change(ctx, t, s, near, far, func(p *scenario.Path) { p.Blocks = step.blocks })
		began := time.Now()
		oldest := time.Duration(0)
		waitFor(ctx, t, fmt.Sprintf("all pairs to be measured by %s after %s", step.want, step.name), func() (bool, error) {
			now := time.Now()
			done := true
			for _, d := range rows(ctx, t, s, pairs) {
				oldest = max(oldest, now.Sub(d.Newest))
				done = done && probe.Method(d.Method) == step.want
			}
			return done, nil
		})
		t.Logf("%s: all %d pairs are measured by %s after %.1f s; the oldest value meanwhile was of %.1f s", step.name, len(pairs), step.want, time.Since(began).Seconds(), oldest.Seconds())
		if limit := rounds(s, 3); oldest > limit {
			t.Errorf("%s: a pair was not measured for %v: want at most three rounds, %v", step.name, oldest, limit)
		}
	}
	doctorSays(t, s, "warning", "methods", "UDP is not answered everywhere")
	change(ctx, t, s, near, far, func(*scenario.Path) {})
	waitFor(ctx, t, "all pairs to be measured by UDP again", func() (bool, error) {
		for _, d := range rows(ctx, t, s, pairs) {
			if probe.Method(d.Method) != probe.MethodUDP {
				return false, nil
			}
		}
		return true, nil
	})
}

// Where a link duplicates and reorders and a host answers for others, there
// are as many samples as anywhere, as true.
func noiseOfTheNetworkChangesNothing(ctx context.Context, t *testing.T, s *sandbox.Sandbox) {
	t.Helper()
	const near, far = "hetzner", "gthost"
	pairs := between(s, near, far)
	turned := s.Scenario.Probe.Window.Duration + rounds(s, 1)
	measure := func() (*trial.Measured, map[latency.Pair]latency.Distribution) {
		t.Helper()
		measured, err := trial.Measure(ctx, s, func() { sleep(ctx, t, turned) })
		if err != nil {
			t.Fatal(err)
		}
		return measured, rows(ctx, t, s, pairs)
	}
	before, rowsBefore := measure()

	spoofing, stop := context.WithCancel(ctx)
	defer stop()
	spoofed := make(chan error, 1)
	go func() { spoofed <- spoof(spoofing, s) }()
	change(ctx, t, s, near, far, func(p *scenario.Path) { p.Duplicate, p.Reorder = 0.3, true })
	after, rowsAfter := measure()
	stop()
	if err := <-spoofed; err != nil {
		t.Fatalf("spoof: %v", err)
	}
	change(ctx, t, s, near, far, func(*scenario.Path) {})

	slices.Sort(after.Errors)
	quantile := func(q float64) time.Duration { return after.Errors[int(q*float64(len(after.Errors)-1))] }
	t.Logf("%d samples exceed the truth by %v at least, %v (p1), %v (p50), %v (p99)", len(after.Errors), quantile(0), quantile(0.01), quantile(0.5), quantile(0.99))
	if quantile(0.01) < -100*time.Microsecond || quantile(0.5).Abs() > 30*time.Microsecond || quantile(0.99) > 100*time.Microsecond {
		t.Error("want 0 within 0.03 ms at the median and 0.1 ms at p1 and p99")
	}
	// Of what came, not of the windows: one begins anew when the machine has
	// slowed all of a pair's packets for three rounds.
	for _, pair := range pairs {
		if b, a := before.Pairs[pair], after.Pairs[pair]; 4*a < 3*b || 4*a > 5*b {
			t.Errorf("%v: %d samples, %d in the same time before: want as many within a quarter\nwindow now    %+v\nwindow before %+v", pair, a, b, rowsAfter[pair], rowsBefore[pair])
		}
		if b, a := rowsBefore[pair].Lost, rowsAfter[pair].Lost; a > b {
			t.Errorf("%v: %d lost, before %d: want no more", pair, a, b)
		}
	}
}

// spoof has one node send replies to another's probes in the name of a third,
// a thousand a second with sessions and numbers at random, until ctx ends.
func spoof(ctx context.Context, s *sandbox.Sandbox) error {
	names := s.NodeNames()
	liar, victim, third := s.Node(names[0]), s.Node(names[1]), s.Node(names[len(names)-1])
	var fd int
	err := liar.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		return err
	})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	to := unix.SockaddrInet4{Addr: victim.WAN.As4()}
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			if err := unix.Sendto(fd, forged(third.WAN, victim.WAN), 0, &to); err != nil {
				return err
			}
		}
	}
}

// forged is an IP packet with a reply that says it comes from another node's
// agent, as far as who is not on the path can know.
func forged(from, to netip.Addr) []byte {
	const header, port = 20 + 8, 9465
	packet := make([]byte, header+probe.MinSize)
	packet[0], packet[8], packet[9] = 0x45, 64, unix.IPPROTO_UDP
	copy(packet[12:], from.AsSlice())
	copy(packet[16:], to.AsSlice())
	binary.BigEndian.PutUint16(packet[20:], port)
	binary.BigEndian.PutUint16(packet[22:], port)
	binary.BigEndian.PutUint16(packet[24:], 8+probe.MinSize) // no checksum: it is optional on IPv4
	now := time.Now().UnixNano()
	probe.Header{Kind: probe.Reply, Session: rand.Uint64(), Seq: 1 + rand.Uint32N(100), T2: now, T3: now}.Encode(packet[header:])
	return packet
}

// A node that goes takes its series with it within a minute.
func seriesOfANodeEndWithIt(ctx context.Context, t *testing.T, s *sandbox.Sandbox) {
	t.Helper()
	names := s.NodeNames()
	gone, witness := names[len(names)-1], names[0]
	has := func() bool {
		t.Helper()
		families, err := s.AgentMetrics(ctx, witness)
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range families {
			for _, m := range family.GetMetric() {
				for _, l := range m.GetLabel() {
					if l.GetName() == "peer" && l.GetValue() == gone {
						return true
					}
				}
			}
		}
		return false
	}
	if !has() {
		t.Fatalf("the agent on %s has no series of %s", witness, gone)
	}
	// A scheduler tells the agents that a node is gone, the one that holds this
	// Lease. Whoever held it may have been killed a moment ago.
	waitFor(ctx, t, "a scheduler to hold the Lease of who tells the agents", func() (bool, error) {
		lease, err := s.Cluster.Client().CoordinationV1().Leases(sandbox.Namespace).Get(ctx, "netlatency-targets", metav1.GetOptions{})
		if err != nil || lease.Spec.RenewTime == nil {
			return false, err
		}
		return time.Since(lease.Spec.RenewTime.Time) < 15*time.Second, nil // it is renewed every ten
	})
	if err := s.Cluster.Client().CoreV1().Nodes().Delete(ctx, gone, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	waitFor(ctx, t, "the series of a node that was removed to end", func() (bool, error) { return !has(), nil })
	took := time.Since(began)
	t.Logf("after %.1f s", took.Seconds())
	if took > time.Minute {
		t.Errorf("the series of a node ended %.0f s after it was removed, want a minute at most", took.Seconds())
	}
}

func sleep(ctx context.Context, t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-ctx.Done():
		t.Fatal(ctx.Err())
	case <-time.After(d):
	}
}
