package agent

import (
	"slices"
	"sync"
	"time"

	"github.com/netlatency/netlatency/pkg/latency"
)

// windowSpans says how much a window remembers, and so how large it may grow.
type windowSpans struct {
	// samples is how long a round trip counts, losses how long a lost probe
	// does. Loss is rarer than latency and needs the longer span: 120 probes
	// cannot tell 0.1 % from 1 %.
	samples, losses time.Duration
	// interval and burst are the shortest time between two bursts and the
	// number of probes in each.
	interval time.Duration
	burst    int
}

// rounds is the most bursts that start within span. One more than fits,
// because a span need not start with a burst, and a tenth more, because the
// plan's jitter may pull bursts together.
func (s windowSpans) rounds(span time.Duration) int {
	return int(1.1*float64(span)/float64(s.interval)) + 2
}

// window is what was measured to one peer: the samples and bursts of the last
// minutes. It is safe for concurrent use.
type window struct {
	spans windowSpans
	// epoch is what the times below count from, so that a sample is two words
	// and rests on the monotonic clock.
	epoch time.Time

	mu sync.Mutex
	// samples is a ring once it has grown to its bound; next is the oldest.
	samples []sample
	next    int
	// bursts are the newest, in the order of their numbers; of those before
	// only losses are remembered.
	bursts []burst
	losses lossHistory
	// since is when the present path was first seen. A straggler from before
	// it does not count.
	since time.Duration
}

type sample struct{ at, rtt time.Duration }

// burst is one round of probes. Its outcomes may come late and out of order:
// a loss is known after the timeout, and the engine holds the last sample for
// the reflector's stamp that comes with the next burst.
type burst struct {
	number     uint64
	at         time.Duration // when the first of its probes was sent
	min        time.Duration // of the answered ones
	sent, lost uint16
}

func (b burst) answered() bool { return b.lost < b.sent }

// newWindow returns an empty window. Times that are given to it are not before
// epoch.
func newWindow(spans windowSpans, epoch time.Time) *window {
	return &window{spans: spans, epoch: epoch, losses: lossHistory{span: max(1, spans.losses/lossParts)}}
}

// Answered records the round trip of a probe of burst number. It reports
// whether it has shown the path to be another than before, in which case what
// was measured on the old path is forgotten.
func (w *window) Answered(number uint64, sent time.Time, rtt time.Duration) (pathChanged bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := sample{at: sent.Sub(w.epoch), rtt: rtt}
	if s.at < w.since {
		return false
	}
	if bound := w.spans.rounds(w.spans.samples) * w.spans.burst; len(w.samples) < bound {
		w.samples = append(w.samples, s)
	} else {
		w.samples[w.next] = s
		w.next = (w.next + 1) % bound
	}
	if b := w.burst(number, s.at); b != nil {
		if !b.answered() || rtt < b.min {
			b.min = rtt
		}
		b.sent++
	}
	return w.forgetOldPath()
}

// Lost records a probe of burst number that was not answered in time.
func (w *window) Lost(number uint64, sent time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if b := w.burst(number, sent.Sub(w.epoch)); b != nil {
		b.sent++
		b.lost++
	}
}

// burst finds the record of a burst, or makes one. It returns nil for a burst
// that is older than all that is remembered.
func (w *window) burst(number uint64, at time.Duration) *burst {
	if at < w.since {
		return nil
	}
	i := len(w.bursts)
	for i > 0 && w.bursts[i-1].number >= number {
		i--
	}
	if i < len(w.bursts) && w.bursts[i].number == number {
		w.bursts[i].at = min(w.bursts[i].at, at)
		return &w.bursts[i]
	}
	if len(w.bursts) >= burstMemory {
		if i == 0 {
			return nil
		}
		if w.bursts[0].answered() {
			w.losses.add(w.bursts[0])
		}
		w.bursts = slices.Delete(w.bursts, 0, 1)
		i--
	}
	w.bursts = slices.Insert(w.bursts, i, burst{number: number, at: at})
	return &w.bursts[i]
}

// Statistics is what the window knows at now of the last span, which is cut to
// the window's own; 0 is all of it. Losses are always over the whole loss
// window. Method is left to the caller. Samples is 0 when no probe was answered in the span, and then no
// latency has a meaning.
func (w *window) Statistics(now time.Time, span time.Duration) latency.Distribution {
	if span <= 0 || span > w.spans.samples {
		span = w.spans.samples
	}
	var d latency.Distribution
	rtts, newest := w.within(now.Sub(w.epoch), span, &d)
	d.Samples = len(rtts)
	if d.Samples == 0 {
		return d
	}
	slices.Sort(rtts)
	d.Min = rtts[0]
	d.P50, d.P90, d.P99 = nearestRank(rtts, 500), nearestRank(rtts, 900), nearestRank(rtts, 990)
	d.Mean = clippedMean(rtts, latency.ClipFactor*d.P50)
	// As an age on now, so that a step of the wall clock since the sample was
	// taken does not make it older or younger.
	d.Newest = now.Add(newest - now.Sub(w.epoch))
	return d
}

// within copies the round trips that were sent in the span before now, and
// counts the losses into d.
func (w *window) within(now, span time.Duration, d *latency.Distribution) (rtts []time.Duration, newest time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	rtts = make([]time.Duration, 0, len(w.samples))
	for _, s := range w.samples {
		if s.at > now-span && s.at <= now {
			rtts = append(rtts, s.rtt)
			newest = max(newest, s.at)
		}
	}
	for _, b := range w.bursts {
		// A burst of which nothing came back is an outage: it ages the pair
		// and says nothing about the loss of a path that works.
		if b.at > now-w.spans.losses && b.answered() {
			d.Sent += int(b.sent)
			d.Lost += int(b.lost)
		}
	}
	sent, lost := w.losses.since(now - w.spans.losses)
	d.Sent += sent
	d.Lost += lost
	return rtts, newest
}

// nearestRank is the quantile of permille/1000 of sorted values by the
// nearest-rank method: a value that was measured, never one in between.
func nearestRank(sorted []time.Duration, permille int) time.Duration {
	return sorted[(len(sorted)*permille+999)/1000-1]
}

// clippedMean is the mean of values, each of which counts as limit at most.
func clippedMean(values []time.Duration, limit time.Duration) time.Duration {
	var sum time.Duration
	for _, v := range values {
		sum += min(v, limit)
	}
	return sum / time.Duration(len(values))
}
