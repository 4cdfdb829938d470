package agent

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/netlatency/netlatency/pkg/exposition"
	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/probe"
)

// prober sends probes; their outcomes arrive at Agent.outcome. It is
// *probe.UDP, and a fake in tests.
type prober interface {
	Send(probe.Probe) error
	Forget(netip.AddrPort)
	Counters() probe.Counters
}

var _ prober = (*probe.UDP)(nil)

// Agent is the probe agent of one node.
type Agent struct {
	options   Options
	version   string
	own       netip.Addr
	clock     clock.Clock
	discovery *discovery
	metrics   *metrics
	stream    *stream
	pairs     *pairs
	reflector *probe.Reflector
	epoch     time.Time

	// The run loop's own.
	plan    *plan
	leftOut int
	engine  prober
}

// New prepares an agent; Run starts it. The error lists all that is wrong
// with the options.
func New(options Options, version string, client kubernetes.Interface) (*Agent, error) {
	return newAgent(options, version, client, clock.RealClock{})
}

func newAgent(options Options, version string, client kubernetes.Interface, now clock.Clock) (*Agent, error) {
	if err := options.Validate(); err != nil {
		return nil, err
	}
	own, err := netip.ParseAddr(options.BindAddress)
	if err != nil {
		return nil, fmt.Errorf("read bind address: %w", err)
	}
	discovery, err := newDiscovery(client, options.Namespace, options.Service)
	if err != nil {
		return nil, err
	}
	return &Agent{
		options:   options,
		version:   version,
		own:       own.Unmap(),
		clock:     now,
		discovery: discovery,
		metrics:   newMetrics(options.NodeName, version),
		stream:    newStream(options.NodeName),
		pairs:     newPairs(),
		reflector: probe.NewReflector(probe.ReflectorOptions{}),
		epoch:     now.Now(),
		plan:      newPlan(options),
	}, nil
}

// Run probes and serves until ctx ends, and returns nil then. Any other
// return is a failure that a restart may mend, for instance a port in use.
func (a *Agent) Run(ctx context.Context) error {
	logger := klog.FromContext(ctx).WithValues("node", a.options.NodeName)
	ctx = klog.NewContext(ctx, logger)

	group, ctx := errgroup.WithContext(ctx)
	engine, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = engine.Close() }() // when it is not run; Run closes it itself
	address := net.JoinHostPort(a.own.String(), strconv.Itoa(a.options.HTTPPort))
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listen for HTTP on %s: %w", address, err)
	}
	a.use(engine)
	logger.Info("Agent started", "version", a.version, "address", address, "probePort", a.options.ProbePort)

	group.Go(func() error { return engine.Run(ctx) })
	group.Go(func() error { return a.serve(ctx, listener) })
	group.Go(func() error { a.discovery.Run(ctx); return nil })
	group.Go(func() error { a.loop(ctx); return nil })
	err = group.Wait()
	logger.Info("Agent stopped")
	return err
}

// open opens the socket that probes leave from and are answered at.
func (a *Agent) open(ctx context.Context) (*probe.UDP, error) {
	logger := klog.FromContext(ctx)
	address := netip.AddrPortFrom(a.own, uint16(a.options.ProbePort))
	engine, err := probe.ListenUDP(ctx, address, probe.UDPOptions{
		Timeout: a.options.Timeout,
		// A sample waits for the kernel's stamp of its reply, which the next
		// reply brings. For the last of a burst that is the next round, which
		// may be late by jitter, growth of the interval, or a lost first probe.
		Hold:      2 * a.options.Interval,
		Reflector: a.reflector,
		Outcome:   func(o probe.Outcome) { a.outcome(logger, o) },
	})
	if err != nil {
		return nil, fmt.Errorf("open the probe socket on %s: %w", address, err)
	}
	return engine, nil
}

// use makes engine the one that probes.
func (a *Agent) use(engine prober) {
	a.engine = engine
	a.metrics.registry.MustRegister(engineCollector{
		engine:      engine.Counters,
		reflector:   a.reflector.Counters,
		capped:      a.plan.capped.Load,
		undelivered: a.stream.dropped.Load,
	})
}

// loop is the run loop: it follows the peers and sends what the plan says.
func (a *Agent) loop(ctx context.Context) {
	for ctx.Err() == nil {
		now := a.clock.Now()
		packet, wake, ok := a.plan.Next(now)
		if ok {
			a.send(ctx, packet)
			continue
		}
		if forget := a.pairs.ForgetAbsent(now); wake.IsZero() || !forget.IsZero() && forget.Before(wake) {
			wake = forget
		}
		a.sleep(ctx, now, wake)
	}
}

// sleep returns at wake, which may be zero for never, or when peers changed
// or ctx ended.
func (a *Agent) sleep(ctx context.Context, now, wake time.Time) {
	var due <-chan time.Time
	if !wake.IsZero() {
		timer := a.clock.NewTimer(wake.Sub(now))
		defer timer.Stop()
		due = timer.C()
	}
	select {
	case <-ctx.Done():
	case <-due:
	case <-a.discovery.Changed:
		a.follow(klog.FromContext(ctx), a.clock.Now())
	}
}

// send sends one probe.
func (a *Agent) send(ctx context.Context, p packet) {
	address, ok := a.pairs.Present(p.peer)
	if !ok {
		return
	}
	// A probe that did not leave is no loss of the network's: the pair ages.
	if err := a.engine.Send(probe.Probe{Peer: address, Size: probe.MinSize, Tag: p.burst}); err != nil {
		klog.FromContext(ctx).V(4).Info("A probe was not sent", "peer", p.peer, "address", address, "err", err)
		return
	}
	a.metrics.Sent(p.peer)
}

// follow brings pairs and plan in line with the peers as they are now.
func (a *Agent) follow(logger klog.Logger, now time.Time) {
	if !a.discovery.Synced() {
		return // half a list would look like peers that have gone
	}
	peers, leftOut := choose(peersIn(a.discovery.Slices(), a.options.NodeName, a.own, logger), a.options.NodeName, a.options.MaxPeers)
	if (leftOut > 0) != (a.leftOut > 0) {
		logger.Info("The number of peers has crossed --max-peers", "maxPeers", a.options.MaxPeers, "leftOut", leftOut)
	}
	a.leftOut = leftOut
	a.metrics.peers.Set(float64(len(peers)))
	a.metrics.leftOut.Set(float64(leftOut))

	stays := make(map[string]bool, len(peers))
	for _, p := range peers {
		stays[p.Node] = true
	}
	for _, name := range a.pairs.PresentPeers() {
		if !stays[name] {
			a.leave(logger, name, now)
		}
	}
	for _, p := range peers {
		a.join(logger, p, now)
	}
}

// join starts to probe a peer, or to probe it elsewhere.
func (a *Agent) join(logger klog.Logger, p peer, now time.Time) {
	before, present := a.pairs.Present(p.Node)
	if before == p.Address {
		return
	}
	a.pairs.Put(p.Node, p.Address, a.newWindow)
	if present {
		a.engine.Forget(before)
	}
	a.plan.Join(p.Node, now)
	logger.V(2).Info("Probing a peer", "peer", p.Node, "address", p.Address)
}

// leave stops probing a peer. Its series end at once, its row in the matrix
// ages for keepAbsent.
func (a *Agent) leave(logger klog.Logger, name string, now time.Time) {
	address, _ := a.pairs.Present(name)
	a.plan.Leave(name)
	a.pairs.MarkAbsent(name, now)
	a.engine.Forget(address)
	a.metrics.Forget(name)
	logger.V(2).Info("No longer probing a peer", "peer", name)
}

func (a *Agent) newWindow() *window {
	return newWindow(windowSpans{
		samples:  a.options.Window,
		losses:   a.options.LossWindow,
		interval: a.options.Interval,
		burst:    a.options.Burst,
	}, a.epoch)
}

// outcome takes in how a probe ended. Those of a peer that has gone, or has
// moved to another address, no longer count.
func (a *Agent) outcome(logger klog.Logger, o probe.Outcome) {
	a.pairs.At(o.Peer, func(pair *pair) {
		switch {
		case o.Discarded:
		case o.Lost:
			pair.window.Lost(o.Tag, o.Sent)
			a.metrics.Lost(pair.peer)
		case o.RTT >= 0 && o.RTT <= latency.MaxRTT:
			if pair.window.Answered(o.Tag, o.Sent, o.RTT) {
				logger.V(2).Info("The path to a peer has changed; what was measured before is forgotten", "peer", pair.peer)
			}
			a.metrics.Answered(pair.peer, o.RTT)
			a.stream.Publish(pair.peer, o)
		}
	})
}

// Window is what the agent knows now about every peer that answered within
// span, 0 for all that it keeps.
func (a *Agent) Window(span time.Duration) exposition.Window {
	now := a.clock.Now()
	return exposition.Window{Node: a.options.NodeName, Version: a.version, Now: now, Rows: a.pairs.Rows(now, span)}
}
