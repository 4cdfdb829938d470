package integration

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/test/sandbox"
)

// heard is what the agents say of every sample, when they have it.
type heard struct {
	mu      sync.Mutex
	samples map[latency.Pair][]heardSample // in the order in which they came
}

type heardSample struct {
	at  time.Time
	rtt time.Duration
}

// span is a time that is known to lie in it.
type span struct{ from, to time.Time }

// listen hears all agents until ctx ends.
func listen(ctx context.Context, t *testing.T, s *sandbox.Sandbox) *heard {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	h := &heard{samples: make(map[latency.Pair][]heardSample)}
	var streams sync.WaitGroup
	for _, n := range s.Nodes {
		streams.Go(func() {
			err := s.Samples(ctx, n.Name, func(sample sandbox.Sample) {
				h.mu.Lock()
				defer h.mu.Unlock()
				pair := latency.Pair{Node: sample.Node, Peer: sample.Peer}
				h.samples[pair] = append(h.samples[pair], heardSample{time.Now(), time.Duration(sample.RTT)})
			})
			if err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		streams.Wait()
	})
	return h
}

// Means is from what to what the mean of a pair's samples may be over a window
// that begins and ends some time in begin and end, each sample counting as
// clip at most. It is false when the window may be empty.
func (h *heard) Means(pair latency.Pair, begin, end span, clip time.Duration) (low, high time.Duration, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	samples := h.samples[pair]
	before := func(at time.Time) int {
		n, _ := slices.BinarySearchFunc(samples, at, func(s heardSample, at time.Time) int { return s.at.Compare(at) })
		return n
	}
	sums := make([]time.Duration, len(samples)+1) // of those before
	for i, s := range samples {
		sums[i+1] = sums[i] + min(s.rtt, clip)
	}
	for i := before(begin.from); i <= before(begin.to); i++ {
		for j := before(end.from); j <= before(end.to); j++ {
			if j <= i {
				return 0, 0, false
			}
			mean := (sums[j] - sums[i]) / time.Duration(j-i)
			if !ok || mean < low {
				low = mean
			}
			high = max(high, mean)
			ok = true
		}
	}
	return low, high, ok
}
