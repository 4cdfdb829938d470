package probe

import (
	"cmp"
	"time"
)

// reading is one look at the user's clocks: at is the monotonic one, unix the
// clock that kernel stamps are of, in nanoseconds. They cannot be read at
// once; within is how far apart they are at most.
type reading struct {
	at     time.Time
	unix   int64
	within time.Duration
}

func read() reading {
	before := time.Now()
	now := time.Now() // the clock of the stamps first, then the monotonic one
	return reading{now, now.UnixNano(), now.Sub(before)}
}

// stepTolerance is how far the two clocks of the user may disagree about the
// same span, beyond what reading them leaves open, before it counts as a step
// of the one that stamps are of. They are slewed alike (adjtimex).
const stepTolerance = 50 * time.Microsecond

// exchange is all that is known of the times of one request and its reply.
// The stamps are unix nanoseconds; 0 is a stamp that is missing.
type exchange struct {
	sent, received reading // the user's bracket around the kernel's stamps
	t1, t4         int64   // kernel
	t2, userT3     int64   // from the reply
	kernelT2       bool
	t3             int64 // kernel, from the reply after it
	echo           bool  // the peer's kernel answered, which has no t2 and t3
}

// roundTrip computes (t4-t1)-(t3-t2) with the best stamps there are; for an
// echo the second difference is 0, since the reflector's share cannot be known. ok says
// that the stamps are possible: all differences are positive, and no more time
// passed between t1 and t4 than the monotonic clock saw around them. That is
// what a step of the clock breaks: kernel stamps are of CLOCK_REALTIME, which
// is "not necessarily monotonic" (Documentation/networking/timestamping.rst).
func (e *exchange) roundTrip() (rtt time.Duration, source StampSource, ok bool) {
	bracket := e.received.at.Sub(e.sent.at)
	elapsed := bracket
	if e.t1 != 0 || e.t4 != 0 {
		elapsed = time.Duration(cmp.Or(e.t4, e.received.unix) - cmp.Or(e.t1, e.sent.unix))
		// A step back that is shorter than the round trip leaves a sample
		// that looks possible, only too short.
		step := time.Duration(e.received.unix-e.sent.unix) - bracket
		if step.Abs() > stepTolerance+e.sent.within+e.received.within {
			return 0, "", false
		}
	}
	t3 := cmp.Or(e.t3, e.userT3)
	turnaround := time.Duration(t3 - e.t2)
	rtt = elapsed - turnaround
	if turnaround < 0 || elapsed > bracket || rtt < 0 {
		return 0, "", false
	}
	source = User
	if e.t1 != 0 && e.t4 != 0 && (e.echo || e.t3 != 0 && e.kernelT2) {
		source = Kernel
	}
	return rtt, source, true
}
