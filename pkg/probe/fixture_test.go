package probe

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"
)

var (
	loopback4 = netip.MustParseAddrPort("127.0.0.1:0")
	loopback6 = netip.MustParseAddrPort("[::1]:0")
)

// method is what UDP, ICMP, TCP and Portable have in common.
type method interface {
	Send(Probe) error
	SendBatch(probes []Probe, failed func(i int, err error))
	Forget(peer netip.AddrPort)
	Counters() Counters
	Run(ctx context.Context) error
	Close() error
}

// subject is a method that may run, and the Outcomes that it has delivered.
type subject struct {
	method   method
	outcomes chan Outcome
	stop     func() // ends Run and waits for it
}

// opens makes a subject of what open returns; it is closed with the test.
func opens[M method](tb testing.TB, open func(outcome func(Outcome)) (M, error)) (M, *subject) {
	tb.Helper()
	s := &subject{outcomes: make(chan Outcome, 10_000)}
	m, err := open(func(o Outcome) { s.outcomes <- o })
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { m.Close() })
	s.method = m
	return m, s
}

func (s *subject) run(tb testing.TB) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.method.Run(ctx) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			tb.Errorf("run: %v", err)
		}
		close(s.outcomes)
	})
	tb.Cleanup(s.stop)
}

func (s *subject) send(tb testing.TB, to netip.AddrPort, tag uint64) {
	tb.Helper()
	if err := s.method.Send(Probe{Peer: to, Size: MinSize, Tag: tag}); err != nil {
		tb.Fatal(err)
	}
}

func (s *subject) next(tb testing.TB) Outcome {
	tb.Helper()
	select {
	case o := <-s.outcomes:
		return o
	case <-time.After(10 * time.Second):
		tb.Fatalf("no outcome; counters: %+v", s.method.Counters())
		panic("unreachable")
	}
}

// wantKernel wants o, which is of s, to be a sample by kernel stamps.
func (s *subject) wantKernel(t *testing.T, o Outcome) {
	t.Helper()
	if o.Lost || o.Discarded || o.Stamps != Kernel || o.RTT <= 0 {
		t.Fatalf("outcome is %+v, want a sample by kernel stamps; counters: %+v", o, s.method.Counters())
	}
}

func wantKernelSamples(t *testing.T, all []Outcome) {
	t.Helper()
	for i, o := range all {
		if o.Lost || o.Discarded || o.Stamps != Kernel || o.RTT <= 0 || o.Tag != uint64(i) {
			t.Fatalf("outcome %d is %+v, want a sample by kernel stamps", i, o)
		}
	}
}

// wantRefused wants that none of the probes is sent, nor any after the end of
// s, which runs.
func (s *subject) wantRefused(t *testing.T, probes map[string]Probe) {
	t.Helper()
	for name, p := range probes {
		if err := s.method.Send(p); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	s.stop()
	for o := range s.outcomes {
		t.Errorf("a probe that was not sent has outcome %+v", o)
	}
	if err := s.method.Send(Probe{Peer: netip.AddrPortFrom(loopback4.Addr(), 1), Size: MinSize}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after the end: error %v, want %v", err, net.ErrClosed)
	}
}

// wantNoRunAfterClose closes s, which does not run.
func (s *subject) wantNoRunAfterClose(t *testing.T) {
	t.Helper()
	if err := s.method.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.method.Run(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("run after close: error %v, want %v", err, net.ErrClosed)
	}
}

// wantOutcomeToSendAndForget has each Outcome forget its peer and send again.
func wantOutcomeToSendAndForget[M method](t *testing.T, peer netip.AddrPort, open func(outcome func(Outcome)) (M, error)) {
	t.Helper()
	done := make(chan struct{})
	var m M
	m, err := open(func(o Outcome) {
		switch {
		case o.Tag < 3:
			m.Forget(o.Peer)
			if err := m.Send(Probe{Peer: o.Peer, Size: o.Size, Tag: o.Tag + 1}); err != nil {
				t.Errorf("send from an outcome: %v", err)
			}
		case o.Tag == 3:
			close(done)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		if err := m.Run(t.Context()); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	defer running.Wait()
	defer m.Close()
	if err := m.Send(Probe{Peer: peer, Size: MinSize}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("the third probe has no outcome")
	}
}

// onLinux ends a test of what only Linux has.
func onLinux(tb testing.TB) {
	tb.Helper()
	if runtime.GOOS != "linux" {
		tb.Skipf("kernel stamps are implemented for Linux only, this is %s", runtime.GOOS)
	}
}
