package agent

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/netlatency/netlatency/pkg/exposition"
	"github.com/netlatency/netlatency/pkg/probe"
)

// keepAbsent is how long the window of a peer that has gone is kept, with its
// row in the matrix, which says its age. A rollout of the agents replaces
// every pod of them, and what was measured to a node a minute ago is the best
// that is known of it until both ends are back. Readers hold nothing older for
// fresh (staleAfter of the scheduler, 2 minutes by default).
const keepAbsent = 2 * time.Minute

// pair is what is known about the way to one peer.
type pair struct {
	node   string // the peer's
	window *window
	// peer is where it is probed; without an address while it is absent.
	peer peer
	// absentSince is when an absent peer went.
	absentSince time.Time

	// mu guards what follows. It is taken by outcomes of several engines.
	mu sync.Mutex
	// methods are those that the peer is probed by, and series what is shown
	// of each; the ladder chooses one by its index.
	methods []probe.Method
	series  []series
	ladder  ladder
	// method is that of the newest answer, "" before there is one.
	method probe.Method
}

// present says that the pair is being probed.
func (p *pair) present() bool { return p.peer.Address.IsValid() }

// probeBy sets the methods that the peer is probed by, from now on.
func (p *pair) probeBy(methods []probe.Method, series []series, ladder ladder) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.methods, p.series, p.ladder = methods, series, ladder
}

// show sets what is shown of the pair from now on.
func (p *pair) show(series []series) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.series = series
}

// rung is how a probe of burst is to be sent.
func (p *pair) rung(burst uint64) (int, probe.Method) {
	p.mu.Lock()
	defer p.mu.Unlock()
	rung := p.ladder.Rung(burst)
	return rung, p.methods[rung]
}

// fullSize says that a probe is there to see whether large packets pass. That
// is all it tells: it is in no window, and moves no ladder.
func fullSize(p probe.Probe) bool { return p.Size > probe.MinSize }

// sent takes note of a probe that was sent.
func (p *pair) sent(rung int, full bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.series[rung].Sent(full)
}

// lost takes note of a probe that was not answered.
func (p *pair) lost(method probe.Method, o probe.Outcome) {
	full := fullSize(o.Probe)
	if !full {
		p.window.Lost(o.Tag, o.Sent)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	rung := slices.Index(p.methods, method)
	if rung < 0 {
		return // of before it could be probed elsewhere only
	}
	p.series[rung].Lost(full)
	if !full {
		p.ladder.Lost(o.Tag, rung)
	}
}

// failed takes note of a probe that could not be sent, or whose answer says
// nothing, as a refused connection does: no loss of the network's, but a method
// that brings no sample.
func (p *pair) failed(method probe.Method, of probe.Probe) {
	if fullSize(of) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if rung := slices.Index(p.methods, method); rung >= 0 {
		p.ladder.Lost(of.Tag, rung)
	}
}

// answered takes in a round trip of a small probe, and reports whether it has shown the path to
// be another than before.
func (p *pair) answered(method probe.Method, o probe.Outcome) (pathChanged bool) {
	pathChanged = p.window.Answered(o.Tag, o.Sent, o.RTT)
	p.mu.Lock()
	defer p.mu.Unlock()
	if rung := slices.Index(p.methods, method); rung >= 0 {
		p.series[rung].Answered(o.RTT)
		p.ladder.Answered(o.Tag, rung)
		p.method = method
	}
	return pathChanged
}

// pairs are the pairs of this node. The run loop alone changes them; outcomes
// and HTTP handlers read.
type pairs struct {
	mu        sync.RWMutex
	byNode    map[string]*pair
	byAddress map[netip.Addr]*pair
	absent    map[string]*pair // those of byNode that are
}

func newPairs() *pairs {
	return &pairs{byNode: make(map[string]*pair), byAddress: make(map[netip.Addr]*pair), absent: make(map[string]*pair)}
}

// Present returns the pair of a node that is being probed, nil for any other.
func (p *pairs) Present(node string) *pair {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if known := p.byNode[node]; known != nil && known.present() {
		return known
	}
	return nil
}

// Put makes a peer present. The window of a peer that was absent or elsewhere
// stays: it belongs to the pair of nodes, not to the address, which changes
// with every rollout of the agents. Should the path be another too, the window
// finds that out by itself.
func (p *pairs) Put(to peer, fresh func() *window) *pair {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := p.byNode[to.Node]
	if known == nil {
		known = &pair{node: to.Node, window: fresh()}
		p.byNode[to.Node] = known
	}
	p.detach(known)
	known.peer, known.absentSince = to, time.Time{}
	delete(p.absent, to.Node)
	p.byAddress[to.Address] = known
	return known
}

// MarkAbsent takes the address of a peer away, so that no outcome reaches its
// pair any more when this returns.
func (p *pairs) MarkAbsent(node string, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if known := p.byNode[node]; known != nil {
		p.detach(known)
		known.peer, known.absentSince = peer{}, now
		p.absent[node] = known
	}
}

// detach unlinks a pair from its address, unless the address has passed to
// another peer already.
func (p *pairs) detach(known *pair) {
	if p.byAddress[known.peer.Address] == known {
		delete(p.byAddress, known.peer.Address)
	}
}

// ForgetAbsent drops the peers that have been absent for keepAbsent, and
// returns when there is the next to drop, the zero time when none is absent.
func (p *pairs) ForgetAbsent(now time.Time) (next time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for node, known := range p.absent {
		end := known.absentSince.Add(keepAbsent)
		if !end.After(now) {
			delete(p.byNode, node)
			delete(p.absent, node)
		} else if next.IsZero() || end.Before(next) {
			next = end
		}
	}
	return next
}

// PresentPeers returns the peers that are being probed.
func (p *pairs) PresentPeers() []peer {
	p.mu.RLock()
	defer p.mu.RUnlock()
	var found []peer
	for _, known := range p.byNode {
		if known.present() {
			found = append(found, known.peer)
		}
	}
	return found
}

// At calls use with the pair whose peer is at address, if there is one. The
// peer does not become absent before use returns.
func (p *pairs) At(address netip.Addr, use func(*pair)) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if known := p.byAddress[address]; known != nil {
		use(known)
	}
}

// Methods counts the pairs that are probed and have been answered, by the
// method of their newest answer.
func (p *pairs) Methods() map[probe.Method]int {
	p.mu.RLock()
	defer p.mu.RUnlock()
	counts := make(map[probe.Method]int)
	for _, known := range p.byNode {
		known.mu.Lock()
		if known.present() && known.method != "" {
			counts[known.method]++
		}
		known.mu.Unlock()
	}
	return counts
}

// Rows gives what is known at now of each peer that answered within the span,
// by name.
func (p *pairs) Rows(now time.Time, span time.Duration) []exposition.Row {
	p.mu.RLock()
	known := make([]*pair, 0, len(p.byNode))
	for _, one := range p.byNode {
		known = append(known, one)
	}
	p.mu.RUnlock()
	// Outside of the lock: the statistics of a thousand peers take
	// milliseconds, for which no outcome should have to wait.
	rows := make([]exposition.Row, 0, len(known))
	for _, one := range known {
		if d := one.window.Statistics(now, span); d.Samples > 0 {
			one.mu.Lock()
			d.Method = string(one.method)
			one.mu.Unlock()
			rows = append(rows, exposition.Row{Peer: one.node, Distribution: d})
		}
	}
	slices.SortFunc(rows, func(a, b exposition.Row) int { return cmp.Compare(a.Peer, b.Peer) })
	return rows
}
