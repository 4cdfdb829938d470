package agent

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/netlatency/netlatency/pkg/exposition"
	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/probe"
)

// engine sends probes by one method; their outcomes arrive at Agent.outcome.
// It is an engine of package probe, and a fake in tests.
type engine interface {
	// SendBatch sends now, and calls failed for each probe that was not sent.
	SendBatch(probes []probe.Probe, failed func(i int, err error))
	Forget(netip.AddrPort)
	Counters() probe.Counters
}

// way is a method to probe peers of one address family by, and its engine.
type way struct {
	method probe.Method
	ipv6   bool
	engine engine
	// probes are to be sent next, each to the pair and by the rung of the same
	// index.
	probes []probe.Probe
	pairs  []*pair // nil for a probe that was not sent
	rungs  []int
}

// address is where a peer is probed this way, the zero value if it is not.
func (w *way) address(p peer) netip.AddrPort {
	if p.Address.Is6() != w.ipv6 {
		return netip.AddrPort{}
	}
	return p.address(w.method)
}

// Agent is the probe agent of one node.
type Agent struct {
	options   Options
	version   string
	own       addresses // one of each family; peers are probed in the first that they have
	clock     clock.Clock
	discovery *discovery
	metrics   *metrics
	stream    *stream
	pairs     *pairs
	reflector *probe.Reflector
	epoch     time.Time

	// The run loop's own. The ways are in the order in which they are tried,
	// and do not change once the loop runs.
	plan    *plan
	leftOut int
	ways    []way
	due     []packet
}

// New prepares an agent, which finds its peers in the given EndpointSlices; Run
// starts it. The error lists all that is wrong with the options.
func New(options Options, version string, slices cache.ListerWatcher) (*Agent, error) {
	return newAgent(options, version, slices, clock.RealClock{})
}

func newAgent(options Options, version string, slices cache.ListerWatcher, now clock.Clock) (*Agent, error) {
	if err := options.Validate(); err != nil {
		return nil, err
	}
	own, err := options.addresses()
	if err != nil {
		return nil, err
	}
	discovery, err := newDiscovery(slices)
	if err != nil {
		return nil, err
	}
	return &Agent{
		options:   options,
		version:   version,
		own:       own,
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
	engines, err := a.open(ctx)
	defer func() {
		for _, e := range engines {
			_ = e.Close() // when it is not run; Run closes it itself
		}
	}()
	if err != nil {
		return err
	}
	listeners, err := a.listen(ctx)
	if err != nil {
		return err
	}
	for _, e := range engines {
		group.Go(func() error { return e.Run(ctx) })
	}
	logger.Info("Agent started", "version", a.version, "addresses", a.own, "httpPort", a.options.HTTPPort, "probePort", a.options.ProbePort, "methods", a.methods())

	group.Go(func() error { return a.serve(ctx, listeners) })
	group.Go(func() error { a.discovery.Run(ctx); return nil })
	group.Go(func() error { a.loop(ctx); return nil })
	err = group.Wait()
	logger.Info("Agent stopped")
	return err
}

// runner is an engine with a life of its own.
type runner interface {
	engine
	Run(context.Context) error
	Close() error
}

// open opens the engines of the methods at each address, and those of UDP in
// any case, for the sake of the peers who want to be answered. What was opened
// is returned with an error too. A method that the system refuses is left out,
// for the next one on the ladder takes its place.
func (a *Agent) open(ctx context.Context) (engines []runner, err error) {
	logger := klog.FromContext(ctx)
	for _, own := range a.own {
		udp, err := a.openMethod(ctx, probe.MethodUDP, own)
		if err != nil {
			return engines, err
		}
		engines = append(engines, udp)
		before := len(a.ways)
		for _, name := range a.options.Methods {
			method := probe.Method(name)
			e, err := udp, error(nil)
			if method != probe.MethodUDP {
				if e, err = a.openMethod(ctx, method, own); err == nil {
					engines = append(engines, e)
				}
			}
			if err != nil {
				logger.Error(err, "A method of probing is not to be had here and is left out", "method", method, "address", own)
				continue
			}
			a.ways = append(a.ways, way{method: method, ipv6: own.Is6(), engine: e})
		}
		if len(a.ways) == before {
			return engines, fmt.Errorf("none of --methods %s is to be had on this system at %s", strings.Join(a.options.Methods, ","), own)
		}
	}
	a.collect(engines)
	return engines, nil
}

// openMethod opens the engine of a method at an address of the agent's own.
func (a *Agent) openMethod(ctx context.Context, method probe.Method, own netip.Addr) (runner, error) {
	logger := klog.FromContext(ctx)
	outcome := func(o probe.Outcome) { a.outcome(logger, method, o) }
	switch method {
	case probe.MethodUDP:
		address := netip.AddrPortFrom(own, uint16(a.options.ProbePort))
		udp, err := probe.ListenUDP(ctx, address, probe.UDPOptions{
			Timeout: a.options.Timeout,
			// A sample waits for the kernel's stamp of its reply, which the
			// next reply brings. For the last of a burst that is the next
			// round, which may be late by jitter, growth of the interval, or a
			// lost first probe.
			Hold:      2 * a.options.Interval,
			Reflector: a.reflector,
			Outcome:   outcome,
		})
		if err != nil {
			return nil, fmt.Errorf("open the probe socket on %s: %w", address, err)
		}
		return udp, nil
	case probe.MethodICMP:
		return opened(probe.ListenICMP(ctx, own, probe.ICMPOptions{Timeout: a.options.Timeout, Outcome: outcome}))
	case probe.MethodTCP:
		return opened(probe.OpenTCP(ctx, own, probe.TCPOptions{Timeout: a.options.Timeout, Outcome: outcome}))
	case probe.MethodPortable:
		return opened(probe.OpenPortable(ctx, own, probe.PortableOptions{Timeout: a.options.Timeout, Outcome: outcome}))
	default:
		return nil, fmt.Errorf("method %q is not known", method)
	}
}

// opened is an engine that was opened, and no engine at all when it was not.
func opened[E runner](e E, err error) (runner, error) {
	if err != nil {
		return nil, err
	}
	return e, nil
}

// collect shows what the engines, the reflector and the plan count themselves.
func (a *Agent) collect(engines []runner) {
	a.metrics.registry.MustRegister(engineCollector{
		engines: func() (counters []probe.Counters) {
			for _, e := range engines {
				counters = append(counters, e.Counters())
			}
			return counters
		},
		reflector: a.reflector.Counters,
		// A source sends once an interval; three leave room for jitter, growth
		// of the interval and a lost burst.
		probedBy:    func() int { return a.reflector.Sources(a.clock.Now().Add(-3 * a.plan.interval)) },
		methods:     a.methods(),
		pairs:       a.pairs.Methods,
		capped:      a.plan.capped.Load,
		undelivered: a.stream.dropped.Load,
	})
}

// methods are the methods of the ways, each once.
func (a *Agent) methods() (methods []probe.Method) {
	for _, w := range a.ways {
		if !slices.Contains(methods, w.method) {
			methods = append(methods, w.method)
		}
	}
	return methods
}

// loop is the run loop: it follows the peers and sends what the plan says.
func (a *Agent) loop(ctx context.Context) {
	for ctx.Err() == nil {
		now := a.clock.Now()
		wake := a.sendDue(ctx, now)
		if forget := a.pairs.ForgetAbsent(now); wake.IsZero() || !forget.IsZero() && forget.Before(wake) {
			wake = forget
		}
		a.sleep(ctx, now, wake)
	}
}

// sendTick is how late a probe may leave so that those of other peers leave
// with it: an agent with a thousand peers wakes 100 times a second, not 1000,
// which is most of what it costs. The default spacing of a burst is twice as
// long.
const sendTick = 10 * time.Millisecond

// sendDue sends all that the plan has due at now, and returns when to ask
// again, zero when there are no peers.
func (a *Agent) sendDue(ctx context.Context, now time.Time) (wake time.Time) {
	a.due = a.due[:0]
	for {
		p, next, ok := a.plan.Next(now)
		if !ok {
			wake = next
			break
		}
		a.due = append(a.due, p)
	}
	if len(a.due) > 0 {
		a.send(ctx, a.due)
		if soon := now.Add(sendTick); wake.Before(soon) && !wake.IsZero() {
			wake = soon
		}
	}
	return wake
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

// send sends probes, each by the method that its peer's ladder says.
func (a *Agent) send(ctx context.Context, packets []packet) {
	for _, p := range packets {
		if pair := a.pairs.Present(p.peer); pair != nil {
			a.queue(pair, p)
		}
	}
	for i := range a.ways {
		w := &a.ways[i]
		if len(w.probes) == 0 {
			continue
		}
		w.engine.SendBatch(w.probes, func(j int, err error) {
			// A probe that did not leave is no loss of the network's: the pair ages.
			klog.FromContext(ctx).V(4).Info("A probe was not sent", "peer", w.pairs[j].node, "method", w.method, "address", w.probes[j].Peer, "err", err)
			w.pairs[j].failed(w.method, w.probes[j])
			w.pairs[j] = nil
		})
		for j, pair := range w.pairs {
			if pair != nil {
				pair.sent(w.rungs[j], fullSize(w.probes[j]))
			}
		}
		clear(w.pairs)
		w.probes, w.pairs, w.rungs = w.probes[:0], w.pairs[:0], w.rungs[:0]
	}
}

// queue puts a packet to where it will be sent from.
func (a *Agent) queue(to *pair, p packet) {
	rung, method := to.rung(p.burst)
	for i := range a.ways {
		if w := &a.ways[i]; w.method == method && w.address(to.peer).IsValid() {
			size := probe.MinSize
			if p.full {
				if method == probe.MethodTCP {
					return // SYNs have one size
				}
				size = a.options.FullSize
			}
			w.probes = append(w.probes, probe.Probe{Peer: w.address(to.peer), Size: size, Tag: p.burst})
			w.pairs, w.rungs = append(w.pairs, to), append(w.rungs, rung)
		}
	}
}

// follow brings pairs and plan in line with the peers as they are now.
func (a *Agent) follow(logger klog.Logger, now time.Time) {
	if !a.discovery.Synced() {
		return // half a list would look like peers that have gone
	}
	found, zone := peersIn(a.discovery.Slices(a.options.Service), a.options.NodeName, a.own, logger)
	found, targets := withTargets(found, a.discovery.Slices(a.options.TargetsService), a.options.NodeName, a.own, slices.Contains(a.methods(), probe.MethodTCP), logger)
	peers, leftOut := choose(found, targets, a.options.NodeName, zone, a.options.MaxPeers)
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
	for _, p := range a.pairs.PresentPeers() {
		if !stays[p.Node] {
			a.leave(logger, p, now)
		}
	}
	a.metrics.Show(peers, share(a.options.MaxSeries, len(found)+1), func(node string) {
		if pair := a.pairs.Present(node); pair != nil {
			pair.show(a.metrics.Series(node, pair.methods)) // methods change in this goroutine only
		}
	})
	for _, p := range peers {
		a.join(logger, p, now)
	}
}

// join starts to probe a peer, or to probe it elsewhere.
func (a *Agent) join(logger klog.Logger, p peer, now time.Time) {
	var methods []probe.Method
	for _, w := range a.ways {
		if w.address(p).IsValid() {
			methods = append(methods, w.method)
		}
	}
	before := a.pairs.Present(p.Node)
	if before != nil && before.peer == p || len(methods) == 0 {
		return
	}
	if before != nil {
		a.forget(before.peer)
	}
	a.pairs.Put(p, a.newWindow).probeBy(methods, a.metrics.Series(p.Node, methods), newLadder(len(methods), a.options.Burst))
	a.plan.Join(p.Node, now)
	logger.V(2).Info("Probing a peer", "peer", p.Node, "address", p.Address, "methods", methods)
}

// forget has the engines drop what they know of a peer where it was.
func (a *Agent) forget(p peer) {
	for _, w := range a.ways {
		if address := w.address(p); address.IsValid() {
			w.engine.Forget(address)
		}
	}
}

// leave stops probing a peer. Its series end at once, its row in the matrix
// ages for keepAbsent.
func (a *Agent) leave(logger klog.Logger, p peer, now time.Time) {
	a.plan.Leave(p.Node)
	a.pairs.MarkAbsent(p.Node, now)
	a.forget(p)
	a.metrics.Forget(p.Node)
	logger.V(2).Info("No longer probing a peer", "peer", p.Node)
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
func (a *Agent) outcome(logger klog.Logger, method probe.Method, o probe.Outcome) {
	a.pairs.At(o.Peer.Addr(), func(pair *pair) {
		switch {
		case o.Discarded:
			pair.failed(method, o.Probe)
		case o.Lost:
			pair.lost(method, o)
		case fullSize(o.Probe):
			// That it was not lost is all that it tells.
		case o.RTT >= 0 && o.RTT <= latency.MaxRTT:
			if pair.answered(method, o) {
				logger.V(2).Info("The path to a peer has changed; what was measured before is forgotten", "peer", pair.node)
			}
			a.stream.Publish(pair.node, o)
		}
	})
}

// Window is what the agent knows now about every peer that answered within
// span, 0 for all that it keeps.
func (a *Agent) Window(span time.Duration) exposition.Window {
	now := a.clock.Now()
	return exposition.Window{Node: a.options.NodeName, Version: a.version, Now: now, Rows: a.pairs.Rows(now, span)}
}
