package agent

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/netlatency/netlatency/pkg/exposition"
)

// keepAbsent is how long the window of a peer that has gone is kept, with its
// row in the matrix, which says its age. A rollout of the agents replaces
// every pod of them, and what was measured to a node a minute ago is the best
// that is known of it until both ends are back. Readers hold nothing older for
// fresh (staleAfter of the scheduler, 2 minutes by default).
const keepAbsent = 2 * time.Minute

// pair is what is known about the way to one peer.
type pair struct {
	peer   string
	window *window
	// address is where the peer is probed; the zero value while it is absent.
	address netip.AddrPort
	// absentSince is when an absent peer went.
	absentSince time.Time
}

// pairs are the pairs of this node. The run loop alone changes them; outcomes
// and HTTP handlers read.
type pairs struct {
	mu        sync.RWMutex
	byPeer    map[string]*pair
	byAddress map[netip.AddrPort]*pair
}

func newPairs() *pairs {
	return &pairs{byPeer: make(map[string]*pair), byAddress: make(map[netip.AddrPort]*pair)}
}

// Present returns the address of a peer that is being probed.
func (p *pairs) Present(peer string) (netip.AddrPort, bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	known := p.byPeer[peer]
	if known == nil || !known.address.IsValid() {
		return netip.AddrPort{}, false
	}
	return known.address, true
}

// Put makes peer present at address. The window of a peer that was absent or
// elsewhere stays: it belongs to the pair of nodes, not to the address, which
// changes with every rollout of the agents. Should the path be another too,
// the window finds that out by itself.
func (p *pairs) Put(peer string, address netip.AddrPort, fresh func() *window) {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := p.byPeer[peer]
	if known == nil {
		known = &pair{peer: peer, window: fresh()}
		p.byPeer[peer] = known
	}
	p.detach(known)
	known.address, known.absentSince = address, time.Time{}
	p.byAddress[address] = known
}

// MarkAbsent takes the address of a peer away, so that no outcome reaches its
// pair any more when this returns.
func (p *pairs) MarkAbsent(peer string, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if known := p.byPeer[peer]; known != nil {
		p.detach(known)
		known.address, known.absentSince = netip.AddrPort{}, now
	}
}

// detach unlinks a pair from its address, unless the address has passed to
// another peer already.
func (p *pairs) detach(known *pair) {
	if p.byAddress[known.address] == known {
		delete(p.byAddress, known.address)
	}
}

// ForgetAbsent drops the peers that have been absent for keepAbsent, and
// returns when there is the next to drop, the zero time when none is absent.
func (p *pairs) ForgetAbsent(now time.Time) (next time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for peer, known := range p.byPeer {
		if known.address.IsValid() {
			continue
		}
		end := known.absentSince.Add(keepAbsent)
		if !end.After(now) {
			delete(p.byPeer, peer)
		} else if next.IsZero() || end.Before(next) {
			next = end
		}
	}
	return next
}

// PresentPeers returns the names of the peers that are being probed.
func (p *pairs) PresentPeers() []string {
	p.mu.RLock()
	defer p.mu.RUnlock()
	var names []string
	for peer, known := range p.byPeer {
		if known.address.IsValid() {
			names = append(names, peer)
		}
	}
	return names
}

// At calls use with the pair whose peer is at address, if there is one. The
// peer does not become absent before use returns.
func (p *pairs) At(address netip.AddrPort, use func(*pair)) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if known := p.byAddress[address]; known != nil {
		use(known)
	}
}

// Rows gives what is known at now of each peer that answered within the span,
// by name.
func (p *pairs) Rows(now time.Time, span time.Duration) []exposition.Row {
	p.mu.RLock()
	known := make([]*pair, 0, len(p.byPeer))
	for _, one := range p.byPeer {
		known = append(known, one)
	}
	p.mu.RUnlock()
	// Outside of the lock: the statistics of a thousand peers take
	// milliseconds, for which no outcome should have to wait.
	rows := make([]exposition.Row, 0, len(known))
	for _, one := range known {
		if d := one.window.Statistics(now, span); d.Samples > 0 {
			rows = append(rows, exposition.Row{Peer: one.peer, Distribution: d})
		}
	}
	slices.SortFunc(rows, func(a, b exposition.Row) int { return cmp.Compare(a.Peer, b.Peer) })
	return rows
}
