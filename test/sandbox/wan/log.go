package wan

import (
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

const (
	// journalCapacity records are 2 s of 30,000 packets a second, far more than
	// the hub can carry in one flushInterval; a power of two makes the index a mask.
	journalCapacity = 1 << 16
	flushInterval   = LogDelay / 2
)

// LogDelay is the time within which readers find a packet in the log, once it
// has left.
const LogDelay = 100 * time.Millisecond

// journal hands records from the hub's thread to the one that writes them. One
// goroutine adds and another one drains, without locks: neither ever waits.
type journal struct {
	ring    []Record
	added   atomic.Uint64 // written by the hub's thread only
	drained atomic.Uint64 // written by the writer only
	dropped atomic.Uint64 // records that found the ring full
}

func newJournal() *journal { return &journal{ring: make([]Record, journalCapacity)} }

func (j *journal) add(r Record) {
	added := j.added.Load()
	if added-j.drained.Load() == uint64(len(j.ring)) {
		j.dropped.Add(1)
		return
	}
	j.ring[added%uint64(len(j.ring))] = r
	j.added.Store(added + 1)
}

// drain appends what was added since the last call to b, encoded.
func (j *journal) drain(b []byte) []byte {
	end := j.added.Load()
	for i := j.drained.Load(); i < end; i++ {
		b = j.ring[i%uint64(len(j.ring))].append(b)
	}
	j.drained.Store(end)
	return b
}

// write writes records to out as they come, until stop is closed, and then the rest.
func (j *journal) write(out io.Writer, stop <-chan struct{}) error {
	tick := time.NewTicker(flushInterval)
	defer tick.Stop()
	buffer := make([]byte, 0, journalCapacity*recordSize)
	for last := false; !last; {
		select {
		case <-tick.C:
		case <-stop:
			last = true
		}
		buffer = j.drain(buffer[:0])
		if len(buffer) == 0 {
			continue
		}
		if _, err := out.Write(buffer); err != nil {
			return fmt.Errorf("write the log: %w", err)
		}
	}
	return nil
}
