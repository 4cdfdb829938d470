package agent

import (
	"slices"
	"time"
)

// A path has changed when the minima of pathRounds bursts in a row are all
// clearly above, or all clearly below, those before. The minimum of a burst is
// the path's own length with most of the queueing taken out, so it stands out
// of jitter where a mean or a single packet does not.
const (
	// pathRounds is how soon the old path must be forgotten, and how many
	// independent witnesses stand against a false alarm.
	pathRounds = 3
	// pathReference is how many earlier minima it takes to know their spread.
	// With fewer there is also little to forget.
	pathReference = 6
	// pathMemory is how many minima are looked at in all. More would hardly
	// sharpen the spread, and they are sorted with each answer.
	pathMemory = 30
	// pathSpread is the margin in deviations of the earlier minima. The minima
	// of bursts under exponential jitter are exponential themselves. With a
	// mean of m their deviation by the median rule is 0.71 m, so that eight of
	// them above the median, which is 0.69 m, is exceeded with probability
	// exp(-8·0.71-0.69), once in 600, and by three in a row once in 2·10⁸
	// rounds: in 60 years at a round every 10 s. A deviation estimated from few
	// minima is at times too small; the test of plain jitter counts what comes
	// of that.
	pathSpread = 8
	// pathRatio and pathFloor are the least margin. A smaller change alters no
	// placement (they are the default hysteresis of the scheduler), and the
	// window takes it in by itself as it turns over. The floor also keeps the
	// stamps' own noise, some tens of microseconds, out.
	pathRatio = 0.15
	pathFloor = 100 * time.Microsecond
)

// forgetOldPath looks for a change of path and drops what is older than it:
// samples, which would stand for a path that is no more, and bursts, so that
// its losses go with it.
func (w *window) forgetOldPath() bool {
	minima, starts := w.recentMinima()
	if len(minima) < pathRounds+pathReference {
		return false
	}
	cut := len(minima) - pathRounds
	if !offPath(minima[:cut], minima[cut:]) {
		return false
	}
	since := starts[cut]
	kept := slices.Concat(w.samples[w.next:], w.samples[:w.next])
	w.samples = slices.DeleteFunc(kept, func(s sample) bool { return s.at < since })
	w.next = 0
	w.bursts = slices.DeleteFunc(w.bursts, func(b burst) bool { return b.at < since })
	w.losses.forget()
	w.since = since
	return true
}

// recentMinima returns the minima and starts of the last answered bursts
// within the samples' span, oldest first.
func (w *window) recentMinima() (minima, starts []time.Duration) {
	for i, b := range slices.Backward(w.bursts) {
		last := i == len(w.bursts)-1
		if len(minima) == pathMemory || b.at <= w.bursts[len(w.bursts)-1].at-w.spans.samples {
			break
		}
		// The last burst may still be under way. All but one of its outcomes
		// are enough: the engine holds the last one until the next burst, and
		// waiting for it would cost a round.
		if !b.answered() || last && int(b.sent) < w.spans.burst-1 {
			continue
		}
		minima, starts = append(minima, b.min), append(starts, b.at)
	}
	slices.Reverse(minima)
	slices.Reverse(starts)
	return minima, starts
}

// offPath reports whether all of the minima in now lie beyond the margin on
// the same side of the earlier ones. Median and median absolute deviation
// (times 1.4826, to be comparable to a standard deviation: Rousseeuw and
// Croux, "Alternatives to the median absolute deviation", JASA 88, 1993) are
// blind to a few bursts that met a full queue.
func offPath(earlier, now []time.Duration) bool {
	centre := median(earlier)
	deviations := make([]time.Duration, len(earlier))
	for i, m := range earlier {
		deviations[i] = (m - centre).Abs()
	}
	margin := max(pathFloor,
		time.Duration(pathRatio*float64(centre)),
		time.Duration(pathSpread*1.4826*float64(median(deviations))))
	return slices.Min(now) > centre+margin || slices.Max(now) < centre-margin
}

func median(values []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(values))
	return nearestRank(sorted, 500)
}
