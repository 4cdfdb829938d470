package probe

import (
	"context"
	"fmt"
	"maps"
	"net"
	"sync"
	"time"
)

// lifecycle is what all methods have in common: they run once, take in what
// comes, end what has waited for too long, and deliver Outcomes. What differs
// is in a runner.
type lifecycle struct {
	runner  runner
	name    string // of what probes, in errors: "at 192.0.2.1:9465"
	outcome func(Outcome)
	tick    time.Duration

	mu    sync.Mutex
	state runState
	*results

	delivering []Outcome // of Run's goroutine
}

// runner is what a method adds to a lifecycle.
type runner interface {
	// wait returns when something has come, at the deadline at the latest and
	// on wake. Its error ends Run.
	wait(deadline time.Time) error
	// settle concludes probes after each wait, which ended at now: those that
	// something came for and, if due, those that have waited for too long. The
	// lock is held.
	settle(now time.Time, due bool)
	// wake ends a wait, and all that come after. The lock is held.
	wake()
	// end ends every probe, and then releases all there is. It is called once,
	// in the state closed and without the lock.
	end() error
}

// results is what became of probes: Outcomes that are to be delivered, and
// counts. It is guarded by the lock of a lifecycle.
type results struct {
	ready    []Outcome
	counters Counters
}

type runState uint8

const (
	opened runState = iota
	running
	stopping
	closed
)

// tickOf is how much later than the timeout a loss is noticed at most. Four
// times a second costs nothing, and needs no timer per packet.
func tickOf(timeout time.Duration) time.Duration {
	return min(max(timeout/8, time.Millisecond), 250*time.Millisecond)
}

// Counters returns what was counted so far.
func (l *lifecycle) Counters() Counters {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.counters
	c.Ignored, c.Missing = maps.Clone(c.Ignored), maps.Clone(c.Missing)
	return c
}

// Run receives until ctx is done, and delivers Outcomes; a UDP answers too.
// Before it returns it ends every probe and releases all there is, which takes
// a Portable up to a tenth of a second. It can be called once, and returns nil
// unless the kernel fails.
func (l *lifecycle) Run(ctx context.Context) error {
	l.mu.Lock()
	if l.state != opened {
		l.mu.Unlock()
		return fmt.Errorf("run probes %s: already run or closed: %w", l.name, net.ErrClosed)
	}
	l.state = running
	l.mu.Unlock()
	defer l.finish()
	defer context.AfterFunc(ctx, func() { l.Close() })()

	next := time.Now().Add(l.tick)
	for {
		if err := l.runner.wait(next); err != nil {
			return fmt.Errorf("receive probes %s: %w", l.name, err)
		}
		now := time.Now()
		due := !now.Before(next)
		if due {
			next = now.Add(l.tick)
		}
		l.mu.Lock()
		// After receiving, so that what has come is not lost when the whole
		// agent was stopped for longer than the timeout.
		l.runner.settle(now, due)
		ending := l.state == stopping
		l.mu.Unlock()
		if ending {
			return nil
		}
		l.deliver()
	}
}

// Close makes Run return, or releases all there is if Run was never called.
func (l *lifecycle) Close() error {
	l.mu.Lock()
	before := l.state
	switch before {
	case opened:
		l.state = closed
	case running:
		l.state = stopping
		l.runner.wake()
	}
	l.mu.Unlock()
	if before == opened {
		return l.runner.end()
	}
	return nil
}

func (l *lifecycle) finish() {
	l.mu.Lock()
	l.state = closed // from here on nobody wakes it
	l.mu.Unlock()
	_ = l.runner.end()
	l.deliver()
}

// deliver calls Outcome for all that is ready.
func (l *lifecycle) deliver() {
	l.mu.Lock()
	l.delivering, l.ready = l.ready, l.delivering[:0]
	l.mu.Unlock()
	if l.outcome == nil {
		return
	}
	for _, o := range l.delivering {
		l.outcome(o)
	}
}
