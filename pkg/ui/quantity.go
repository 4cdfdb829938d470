package ui

import (
	"math"
	"slices"
	"time"

	"github.com/netlatency/netlatency/pkg/latency"
)

// quantity is what a heatmap may show of a pair of nodes, as a whole number of
// its unit: three digits that count are enough for a colour, and a number costs
// few bytes so.
type quantity struct {
	name, unit string
	// of is the quantity of what was measured; nil for the latency, which is an
	// estimate.
	of func(s *Snapshot, d *latency.Distribution) int32
	// sum makes one value of those of the pairs between two providers, which it
	// may reorder; there is one at least.
	sum func(values []int32) int32
}

const (
	unitMicroseconds = "µs"
	unitMillionths   = "ppm"
	unitSeconds      = "s"
)

// quantities that are numbers. Basis is in every answer and a quantity of its
// own only to the page; method has names in place of numbers.
var quantities = [...]quantity{
	{"latency", unitMicroseconds, nil, middle},
	{"mean", unitMicroseconds, func(_ *Snapshot, d *latency.Distribution) int32 { return micros(d.Mean) }, middle},
	{"p50", unitMicroseconds, func(_ *Snapshot, d *latency.Distribution) int32 { return micros(d.P50) }, middle},
	{"p90", unitMicroseconds, func(_ *Snapshot, d *latency.Distribution) int32 { return micros(d.P90) }, middle},
	{"p99", unitMicroseconds, func(_ *Snapshot, d *latency.Distribution) int32 { return micros(d.P99) }, middle},
	{"min", unitMicroseconds, func(_ *Snapshot, d *latency.Distribution) int32 { return micros(d.Min) }, middle},
	{"loss", unitMillionths, func(_ *Snapshot, d *latency.Distribution) int32 { return int32(math.Round(1e6 * d.Loss())) }, mean},
	{"age", unitSeconds, func(s *Snapshot, d *latency.Distribution) int32 {
		return int32(min(age(s, d).Round(time.Second)/time.Second, math.MaxInt32))
	}, slices.Max[[]int32]},
}

// byMethod is which of a list of methods a pair is probed by.
var byMethod = quantity{name: "method", sum: most}

// none stands for no value.
const none = math.MinInt32

// micros is at most an hour, which no latency that is believed comes near.
func micros(d time.Duration) int32 { return int32(d.Round(time.Microsecond) / time.Microsecond) }

// middle is the median, the upper one of an even number.
func middle(values []int32) int32 {
	slices.Sort(values)
	return values[len(values)/2]
}

func mean(values []int32) int32 {
	var sum int64
	for _, v := range values {
		sum += int64(v)
	}
	return int32(sum / int64(len(values)))
}

// most is the value that occurs most, the smallest among equals.
func most(values []int32) int32 {
	slices.Sort(values)
	best, times := values[0], 0
	for from := 0; from < len(values); {
		to := from
		for to < len(values) && values[to] == values[from] {
			to++
		}
		if to-from > times {
			best, times = values[from], to-from
		}
		from = to
	}
	return best
}

// bases is a letter for each basis, by its number.
const bases = "ugrml" // unknown, group, reverse, measured, local
