package agent

import "time"

const (
	// burstMemory is how many bursts are remembered one by one: what a change
	// of path is told by, and those whose outcomes may still come. With them
	// a pair takes 1.5 kB, whatever the loss window is.
	burstMemory = pathMemory + 10
	// lossParts is what the loss window is divided into beyond them. Losses
	// are forgotten a part at a time, which is finer than their number is
	// certain.
	lossParts = 30
)

// lossHistory counts the probes of bursts that are no longer remembered one by
// one, over parts of the time.
type lossHistory struct {
	span  time.Duration // of a part
	parts [lossParts + 1]lossPart
}

// lossPart is the time from number to number+1 spans after the window's epoch.
type lossPart struct {
	number     int64
	sent, lost uint32
}

// add counts an answered burst.
func (h *lossHistory) add(b burst) {
	number := int64(b.at / h.span)
	part := &h.parts[number%int64(len(h.parts))]
	if part.number != number {
		*part = lossPart{number: number}
	}
	part.sent += uint32(b.sent)
	part.lost += uint32(b.lost)
}

// since counts the probes in the parts that begin after the time given.
func (h *lossHistory) since(at time.Duration) (sent, lost int) {
	for _, part := range h.parts {
		if time.Duration(part.number)*h.span > at {
			sent += int(part.sent)
			lost += int(part.lost)
		}
	}
	return sent, lost
}

// forget drops everything.
func (h *lossHistory) forget() { clear(h.parts[:]) }
