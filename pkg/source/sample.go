package source

import (
	"math"
	"time"

	"github.com/netlatency/netlatency/pkg/exposition"
	"github.com/netlatency/netlatency/pkg/latency"
)

// samples is what queries returned, by pair.
type samples map[latency.Pair]*sample

// sample is the numbers of one pair as they came, NaN for those that did not.
type sample struct {
	mean, p50, p90, p99 float64 // in units of a scale
	samples, sent, loss float64
	age                 float64 // in seconds
}

func newSample() *sample {
	none := math.NaN()
	return &sample{none, none, none, none, none, none, none, none}
}

// distribution makes a Distribution of s, or says why it cannot. scale is the
// seconds in one unit of the latencies, now the time at which the age was as s
// has it.
func (s sample) distribution(scale float64, now time.Time) (latency.Distribution, exposition.Reason) {
	for _, v := range []float64{s.mean, s.p50, s.p90, s.p99, s.samples, s.sent, s.loss, s.age} {
		if math.IsInf(v, 0) {
			return latency.Distribution{}, exposition.Malformed
		}
	}
	if math.IsNaN(s.age) || math.IsNaN(s.mean) && math.IsNaN(s.p50) {
		return latency.Distribution{}, exposition.Malformed
	}
	switch {
	case s.age < -clockSlack.Seconds():
		return latency.Distribution{}, exposition.Future
	case s.age > maxAge.Seconds():
		return latency.Distribution{}, exposition.Malformed
	}
	if s.loss < 0 || s.loss > 1 || s.sent < 0 || s.sent > math.MaxInt32 || s.samples < 0 || s.samples > math.MaxInt32 {
		return latency.Distribution{}, exposition.Impossible
	}
	s.complete()
	d := latency.Distribution{
		Mean: seconds(s.mean * scale), P50: seconds(s.p50 * scale), P90: seconds(s.p90 * scale), P99: seconds(s.p99 * scale),
		Samples: int(math.Ceil(s.samples)), // increase() has fractions
		Sent:    int(math.Round(s.sent)),
		Newest:  now.Add(-seconds(math.Max(s.age, 0))),
	}
	d.Min = min(d.Mean, d.P50)
	d.Lost = int(math.Round(s.loss * float64(d.Sent)))
	// A round trip of 0 is how some probers say that there was none.
	if d.Min == 0 || d.Validate() != nil {
		return latency.Distribution{}, exposition.Impossible
	}
	return d, ""
}

// complete fills in what was not asked for, so that nothing contradicts what
// was.
func (s *sample) complete() {
	or := func(v *float64, value float64) {
		if math.IsNaN(*v) {
			*v = value
		}
	}
	or(&s.mean, s.p50)
	if math.IsNaN(s.p50) {
		s.p50 = s.mean
		for _, larger := range []float64{s.p90, s.p99} {
			if larger < s.p50 { // false for NaN
				s.p50 = larger
			}
		}
	}
	if math.IsNaN(s.p90) {
		s.p90 = math.Max(s.mean, s.p50)
		if s.p99 < s.p90 {
			s.p90 = s.p99
		}
	}
	or(&s.p99, s.p90)
	or(&s.samples, assumedCount)
	or(&s.sent, assumedCount)
	or(&s.loss, 0)
}

// seconds converts to a Duration, far too large ones to something that
// Validate refuses rather than to whatever overflow gives.
func seconds(s float64) time.Duration {
	const limit = float64(math.MaxInt64 / 2)
	return time.Duration(math.Max(-limit, math.Min(limit, math.Round(s*1e9))))
}
