package exposition

import (
	"errors"
	"math"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// Field numbers of the messages of io.prometheus.client that a Window is made
// of.
const (
	familyName   protowire.Number = 1
	familyMetric protowire.Number = 4

	metricLabel     protowire.Number = 1
	metricGauge     protowire.Number = 2
	metricSummary   protowire.Number = 4
	metricTimestamp protowire.Number = 6

	labelPairName  protowire.Number = 1
	labelPairValue protowire.Number = 2

	gaugeValue protowire.Number = 1

	summaryCount    protowire.Number = 1
	summarySum      protowire.Number = 2
	summaryQuantile protowire.Number = 3

	quantileQuantile protowire.Number = 1
	quantileValue    protowire.Number = 2
)

var errTruncated = errors.New("protobuf is broken off or not protobuf")

// protobuf collects from delimited MetricFamily messages.
//
// It reads the wire itself. expfmt's decoder allocates as much as a message
// claims to be long and unfolds a family, two bytes into a hundred, before
// anyone can count it; and a scheduler that reads a thousand agents each ten
// seconds spends most of that work on objects which are thrown away.
func (c *collector) protobuf(body []byte) error {
	for len(body) > 0 {
		message, n := protowire.ConsumeBytes(body) // a varint length, then as many bytes
		if n < 0 {
			return errTruncated
		}
		body = body[n:]
		if err := c.protobufFamily(message); err != nil {
			return err
		}
	}
	return nil
}

func (c *collector) protobufFamily(message []byte) error {
	// The name may come after the series: two passes.
	var name string
	series := 0
	f := fields{rest: message}
	for f.next() {
		switch f.number {
		case familyName:
			name = string(f.bytes)
		case familyMetric:
			series++
		}
	}
	if f.broken {
		return errTruncated
	}
	switch name {
	case WindowRTTSeconds:
		c.rows = slices.Grow(c.rows, min(series, c.series))
	case WindowInfo, WindowSent, WindowLost:
	default:
		return nil
	}
	for f = (fields{rest: message}); f.next(); {
		if f.number != familyMetric || f.kind != protowire.BytesType {
			continue
		}
		if err := c.take(); err != nil {
			return err
		}
		c.protobufMetric(name, f.bytes)
	}
	return nil
}

// protobufMetric collects one series of the family.
func (c *collector) protobufMetric(family string, message []byte) {
	var labels labels
	value := math.NaN()
	row := newRawRow(rowKey{})
	f := fields{rest: message}
	for f.next() {
		switch {
		case f.number == metricLabel && f.kind == protowire.BytesType:
			var name, value []byte
			l := fields{rest: f.bytes}
			for l.next() {
				switch l.number {
				case labelPairName:
					name = l.bytes
				case labelPairValue:
					value = l.bytes
				}
			}
			f.broken = f.broken || l.broken
			labels.set(string(name), c.shared(value))
		case f.number == metricGauge && f.kind == protowire.BytesType:
			g := fields{rest: f.bytes}
			for g.next() {
				if g.number == gaugeValue && g.kind == protowire.Fixed64Type {
					value = g.float()
				}
			}
			f.broken = f.broken || g.broken
		case f.number == metricSummary && f.kind == protowire.BytesType:
			row.protobufSummary(f.bytes)
		case f.number == metricTimestamp && f.kind == protowire.VarintType:
			row.timestamp, row.timed = int64(f.bits), true
		}
	}
	if f.broken {
		c.dropped.Add(Malformed, 1)
		return
	}
	switch family {
	case WindowInfo:
		c.infos = append(c.infos, info{labels.node, labels.version, value})
	case WindowRTTSeconds:
		row.rowKey = labels.rowKey
		c.rows = append(c.rows, row)
	case WindowSent:
		c.addSent(labels.rowKey, value)
	case WindowLost:
		c.addLost(labels.rowKey, value)
	}
}

func (r *rawRow) protobufSummary(message []byte) {
	f := fields{rest: message}
	for f.next() {
		switch {
		case f.number == summaryCount && f.kind == protowire.VarintType:
			r.count = float64(f.bits)
		case f.number == summarySum && f.kind == protowire.Fixed64Type:
			r.sum = f.float()
		case f.number == summaryQuantile && f.kind == protowire.BytesType:
			// Absent is zero, as the type of the messages has it.
			var quantile, value float64
			q := fields{rest: f.bytes}
			for q.next() {
				switch {
				case q.number == quantileQuantile && q.kind == protowire.Fixed64Type:
					quantile = q.float()
				case q.number == quantileValue && q.kind == protowire.Fixed64Type:
					value = q.float()
				}
			}
			f.broken = f.broken || q.broken
			if at := r.quantile(quantile); at != nil {
				r.bad = r.bad || !math.IsNaN(*at)
				*at = value
			}
		}
	}
	r.bad = r.bad || f.broken
}

// fields steps through the fields of a message. bytes is set for fields of
// BytesType and nil for others, bits for the numeric ones.
type fields struct {
	rest   []byte
	number protowire.Number
	kind   protowire.Type
	bytes  []byte
	bits   uint64
	broken bool // what is left is not a field
}

func (f *fields) next() bool {
	if len(f.rest) == 0 {
		return false
	}
	f.bytes, f.bits = nil, 0
	var n int
	f.number, f.kind, n = protowire.ConsumeTag(f.rest)
	if n >= 0 {
		f.rest = f.rest[n:]
		switch f.kind {
		case protowire.BytesType:
			f.bytes, n = protowire.ConsumeBytes(f.rest)
		case protowire.VarintType:
			f.bits, n = protowire.ConsumeVarint(f.rest)
		case protowire.Fixed64Type:
			f.bits, n = protowire.ConsumeFixed64(f.rest)
		default:
			n = protowire.ConsumeFieldValue(f.number, f.kind, f.rest)
		}
	}
	if n < 0 {
		f.broken, f.rest = true, nil
		return false
	}
	f.rest = f.rest[n:]
	return true
}

func (f *fields) float() float64 { return math.Float64frombits(f.bits) }
