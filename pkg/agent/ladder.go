package agent

// ladder chooses the rung of each burst to a peer: which of several methods,
// the best first, it is sent by. What answers is used, what does not is left
// for the next rung, and from a lower rung the higher ones are tried now and
// then. It knows nothing of time: a round is a burst.
//
// Bursts are numbered in the order in which they begin, from 1 on.
type ladder struct {
	// rungs is the number of methods that the peer can be probed by.
	rungs int
	// patience is how many probes in a row bring no sample before a rung is
	// given up.
	patience int

	burst uint64 // the newest burst
	// trying is the rung of the newest burst, and since the first burst of
	// those that it was sent by without a change.
	trying int
	since  uint64
	// proven is the rung that was answered last.
	proven int
	// climb is the newest burst that tried a rung above proven, which is
	// climbed; 0 once it was answered. climbing says that it is the newest of
	// all.
	climb    uint64
	climbed  int
	climbing bool
	// answered is the newest burst that was answered. lost counts probes
	// without a sample of later ones on the rung being tried; lostIn is the
	// newest of those.
	answered uint64
	lost     int
	lostIn   uint64
	// down says that every rung has been given up since the last answer.
	down bool
	// rounds counts bursts since the last climb or change, and climbs
	// the climbs.
	rounds, climbs int
}

// climbRounds is how many rounds a peer is probed by a lower rung before a
// higher one gets a burst again. That burst is one in ten, so that a method
// that stays blocked takes a tenth of the samples, and one that works again is
// found within two minutes at a round every 10 s.
const climbRounds = 10

// newLadder makes a ladder that begins at the top. The rungs are at least one.
func newLadder(rungs, burst int) ladder {
	// With one probe in a burst a single loss would be a change of method.
	return ladder{rungs: rungs, patience: max(burst, 2)}
}

// Rung is the rung that a probe of burst is to be sent by.
func (l *ladder) Rung(burst uint64) int {
	if burst > l.burst {
		l.burst = burst
		l.next()
	}
	return l.trying
}

// next chooses the rung of a burst that begins.
func (l *ladder) next() {
	l.rounds++
	switch {
	case l.climbing:
		// Had it been answered, Answered would have ended the climb.
		l.climbing = false
		l.try(l.proven)
	case l.lost >= l.patience:
		next := (l.trying + 1) % l.rungs
		// When nothing works the peer is down. The rung that happens to find it
		// back should not be kept for long.
		l.down = l.down || next == 0
		l.rounds = 0
		if l.down {
			l.rounds = climbRounds
		}
		l.try(next)
	case l.proven > 0 && l.trying == l.proven && l.lost == 0 && l.rounds >= climbRounds:
		l.rounds = 0
		l.climbing = true
		l.climb, l.climbed = l.burst, l.climbs%l.proven
		l.try(l.climbed)
		l.climbs++
	}
}

func (l *ladder) try(rung int) {
	if rung != l.trying {
		l.trying, l.since = rung, l.burst
	}
	l.lost = 0
}

// Answered takes note that a probe of burst on rung was answered. That may be
// long ago: an engine holds the last sample of a burst for the next reply, and
// if none comes for two intervals.
func (l *ladder) Answered(burst uint64, rung int) {
	switch {
	case burst == l.climb && rung == l.climbed:
		l.climb = 0
		if rung != l.trying {
			l.try(rung) // a climb whose only sample was held
		}
	case rung != l.trying || burst < l.since:
		return // of before the rung was given up
	}
	l.proven, l.climbing, l.down = rung, false, false
	l.answered = max(l.answered, burst)
	if burst >= l.lostIn {
		l.lost = 0 // else later bursts were lost meanwhile
	}
}

// Lost takes note that a probe of burst on rung brought no sample.
func (l *ladder) Lost(burst uint64, rung int) {
	if rung == l.trying && burst >= l.since && burst > l.answered {
		l.lost++
		l.lostIn = max(l.lostIn, burst)
	}
}
