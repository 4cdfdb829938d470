package exposition

import (
	"bytes"
	"math"
	"strconv"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// A line that is longer, or has more labels, is not of this contract. The
// parser's work is quadratic in the labels of a line.
const (
	maxLineBytes  = 1024
	maxLineEquals = 8
)

// text collects from the text format, line by line: expfmt's parser gives up a
// whole answer for one bad line, and a summary's lines are put together here
// anyway.
func (c *collector) text(body []byte) error {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	at := make(map[rowKey]int) // position in c.rows
	for len(body) > 0 {
		end := bytes.IndexByte(body, '\n')
		if end < 0 {
			// Broken off: what is left may be half a number.
			c.dropped.Add(Malformed, 1)
			break
		}
		line := body[:end+1]
		body = body[end+1:]
		if !bytes.HasPrefix(line, []byte(windowPrefix)) {
			continue // comment, empty, or another family
		}
		name, metric := textLine(&parser, line)
		if metric == nil {
			c.dropped.Add(Malformed, 1)
			continue
		}
		value := metric.GetUntyped().GetValue()
		var labels labels
		for _, l := range metric.GetLabel() {
			labels.set(l.GetName(), l.GetValue())
		}
		key := labels.rowKey
		switch name {
		case WindowInfo:
			if err := c.take(); err != nil {
				return err
			}
			c.infos = append(c.infos, info{labels.node, labels.version, value})
		case WindowSent, WindowLost:
			if err := c.take(); err != nil {
				return err
			}
			if name == WindowSent {
				c.addSent(key, value)
			} else {
				c.addLost(key, value)
			}
		case WindowRTTSeconds, WindowRTTSeconds + "_sum", WindowRTTSeconds + "_count":
			i, ok := at[key]
			if ok && c.rows[i].add(name, metric, value) {
				continue
			}
			// The first line of a row, or one that the row has already: then
			// another row for the same peer begins.
			if err := c.take(); err != nil {
				return err
			}
			row := newRawRow(key)
			row.add(name, metric, value)
			at[key] = len(c.rows)
			c.rows = append(c.rows, row)
		}
	}
	return nil
}

// windowPrefix begins the names of all families of MatrixPath.
const windowPrefix = "netlatency_window_"

// textLine reads one line, nil when it cannot.
func textLine(parser *expfmt.TextParser, line []byte) (name string, metric *dto.Metric) {
	if len(line) > maxLineBytes || bytes.Count(line, []byte("=")) > maxLineEquals {
		return "", nil
	}
	families, err := parser.TextToMetricFamilies(bytes.NewReader(line))
	if err != nil || len(families) != 1 {
		return "", nil
	}
	for name, family := range families {
		if len(family.GetMetric()) == 1 {
			return name, family.GetMetric()[0]
		}
	}
	return "", nil
}

// add adds one line of a summary to the row. It reports false, and the row is
// as it was, when the row has such a line already.
func (r *rawRow) add(name string, metric *dto.Metric, value float64) bool {
	var at *float64
	switch name {
	case WindowRTTSeconds + "_sum":
		at = &r.sum
	case WindowRTTSeconds + "_count":
		at = &r.count
	default:
		at = r.quantile(quantileOf(metric))
	}
	if at == nil {
		return true // a quantile that we do not know
	}
	if !math.IsNaN(*at) {
		return false
	}
	*at = value
	// All lines of a summary carry its timestamp.
	switch {
	case metric.TimestampMs == nil:
		r.bad = true
	case !r.timed:
		r.timestamp, r.timed = metric.GetTimestampMs(), true
	case r.timestamp != metric.GetTimestampMs():
		r.bad = true
	}
	return true
}

// quantileOf is the quantile that a line is about, NaN when it names none.
func quantileOf(metric *dto.Metric) float64 {
	for _, l := range metric.GetLabel() {
		if l.GetName() == labelQuantile {
			if q, err := strconv.ParseFloat(l.GetValue(), 64); err == nil {
				return q
			}
		}
	}
	return math.NaN()
}
