package probe

import "time"

// Rate is a token bucket's: so many per second in the long run, and so many
// at once.
type Rate struct {
	PerSecond float64
	Burst     int
}

// bucket is a token bucket that starts full. The zero value is ready.
type bucket struct {
	spent float64 // tokens taken that have not grown back
	at    time.Time
}

// take takes a token if there is one.
func (b *bucket) take(rate Rate, now time.Time) bool {
	if grown := now.Sub(b.at).Seconds() * rate.PerSecond; grown > 0 {
		b.spent = max(0, b.spent-grown)
		b.at = now
	}
	if b.spent+1 > float64(rate.Burst) {
		return false
	}
	b.spent++
	return true
}
