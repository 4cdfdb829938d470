package exposition

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/prometheus/common/expfmt"

	"github.com/netlatency/netlatency/pkg/latency"
)

// Limits bound what Decode takes from one agent. Zero means the default.
type Limits struct {
	// Bytes of the decompressed answer; default 4 MiB, the rows of more than
	// 10,000 peers that lost something.
	Bytes int64
	// Series that are looked at; default 32768. A peer has one, or three when
	// probes to it were lost.
	Series int
}

const (
	defaultLimitBytes  = 4 << 20
	defaultLimitSeries = 1 << 15
)

// Reason says why a row was dropped, in the form of a metric label.
type Reason string

const (
	// Malformed rows lack a part that every row has, or have a number that is
	// none (NaN, Inf, a fraction of a probe) or a name that no node can have.
	// An unreadable line of the text format counts too.
	Malformed Reason = "malformed"
	// Impossible rows are refused by latency.Distribution.Validate: negative
	// or absurd latencies, falling quantiles, more lost than sent.
	Impossible Reason = "impossible"
	// Duplicate rows are for a peer that an earlier good row is for.
	Duplicate Reason = "duplicate"
	// Self rows are for the agent's own node.
	Self Reason = "self"
	// Future rows have a newest sample after the window was taken.
	Future Reason = "future"
	// Orphan rows have a count of losses but no round trips.
	Orphan Reason = "orphan"
)

// Dropped counts the rows that were dropped, by reason; nil when none was.
type Dropped map[Reason]int

// Add counts n more rows dropped for reason and makes the map when there is
// none.
func (d *Dropped) Add(reason Reason, n int) {
	if n == 0 {
		return
	}
	if *d == nil {
		*d = make(Dropped)
	}
	(*d)[reason] += n
}

// maxAge bounds the age of a row: older is a fault, and would overflow
// elsewhere.
const maxAge = 365 * 24 * time.Hour

// Decode reads the answer of an agent's MatrixPath, decompressed, in the
// format that contentType names: delimited protobuf or text. now is the time
// on the reader's clock at which the answer arrived; the rows' Newest are on
// that clock and Window.Now stays on the agent's. Rows keep the order of the
// answer.
//
// Rows that cannot be true are dropped and counted, and the others are kept.
// Families and labels that Decode does not know are ignored. It is an error
// when the answer is in neither format or broken off, when it exceeds limits,
// and when it does not say exactly once and plausibly whose window it is.
func Decode(r io.Reader, contentType string, limits Limits, now time.Time) (Window, Dropped, error) {
	if limits.Bytes <= 0 {
		limits.Bytes = defaultLimitBytes
	}
	if limits.Series <= 0 {
		limits.Series = defaultLimitSeries
	}
	var collect func(*collector, []byte) error
	format := expfmt.ResponseFormat(http.Header{"Content-Type": {contentType}})
	switch format.FormatType() {
	case expfmt.TypeProtoDelim:
		collect = (*collector).protobuf
	case expfmt.TypeTextPlain:
		collect = (*collector).text
	default:
		return Window{}, nil, fmt.Errorf("decode window: content type %q is neither delimited protobuf nor text", contentType)
	}
	// A reader of thousands of agents would otherwise throw away as many bodies
	// a round. What is decoded has its strings of its own.
	buffer := bodies.Get().(*bytes.Buffer)
	defer func() {
		if buffer.Cap() <= maxKeptBody {
			bodies.Put(buffer)
		}
	}()
	buffer.Reset()
	if _, err := buffer.ReadFrom(io.LimitReader(r, limits.Bytes+1)); err != nil {
		return Window{}, nil, fmt.Errorf("%w: %w", ErrRead, err)
	}
	body := buffer.Bytes()
	if int64(len(body)) > limits.Bytes {
		return Window{}, nil, fmt.Errorf("decode window: %w: more than %d bytes", ErrLimit, limits.Bytes)
	}
	c := collector{series: limits.Series, losses: make(map[rowKey]*loss), names: make(map[string]string)}
	if err := collect(&c, body); err != nil {
		return Window{}, nil, fmt.Errorf("decode window: %w", err)
	}
	w, err := c.window(now)
	if err != nil {
		return Window{}, nil, fmt.Errorf("decode window: %w", err)
	}
	return w, c.dropped, nil
}

// bodies are buffers for answers, none larger than maxKeptBody, which is an
// answer of two thousand peers.
var bodies = sync.Pool{New: func() any { return new(bytes.Buffer) }}

const maxKeptBody = 512 << 10

// Errors of Decode wrap one of these when the answer exceeds its limits, and
// when it cannot be read to its end.
var (
	ErrLimit = errors.New("answer exceeds its limit")
	ErrRead  = errors.New("read window")
)

// collector gathers series, of either format, until the whole answer is read:
// their order is free, and ages need WindowInfo.
type collector struct {
	series  int // how many more may be looked at
	infos   []info
	rows    []rawRow
	losses  map[rowKey]*loss
	dropped Dropped
	names   map[string]string
}

// shared is b as a string, the same string for the same bytes: a peer's name
// comes up to three times, and a method's with every row.
func (c *collector) shared(b []byte) string {
	if name, ok := c.names[string(b)]; ok {
		return name
	}
	name := string(b)
	c.names[name] = name
	return name
}

// labels are those that a Window uses; others are ignored.
type labels struct {
	rowKey
	node, version string
}

func (l *labels) set(name, value string) {
	switch name {
	case LabelPeer:
		l.peer = value
	case LabelMethod:
		l.method = value
	case LabelNode:
		l.node = value
	case LabelVersion:
		l.version = value
	}
}

type info struct {
	node, version string
	time          float64
}

type rowKey struct{ peer, method string }

// rawRow is a row as it came, absent numbers as NaN.
type rawRow struct {
	rowKey
	min, p50, p90, p99 float64
	sum, count         float64
	timestamp          int64 // ms
	timed              bool
	bad                bool // its parts do not fit together
}

// newRawRow is a row of which only the key is known.
func newRawRow(key rowKey) rawRow {
	none := math.NaN()
	return rawRow{rowKey: key, min: none, p50: none, p90: none, p99: none, sum: none, count: none}
}

// quantile is the place of quantile q, nil when it is not one that a row has.
func (r *rawRow) quantile(q float64) *float64 {
	switch q {
	case 0:
		return &r.min
	case 0.5:
		return &r.p50
	case 0.9:
		return &r.p90
	case 0.99:
		return &r.p99
	}
	return nil
}

type loss struct {
	sent, lost float64
	bad        bool
	used       bool
}

// take accounts for one more series.
func (c *collector) take() error {
	if c.series == 0 {
		return fmt.Errorf("%w: too many series", ErrLimit)
	}
	c.series--
	return nil
}

// lossOf gives the loss that is collected for key.
func (c *collector) lossOf(key rowKey) *loss {
	l, ok := c.losses[key]
	if !ok {
		l = &loss{sent: math.NaN(), lost: math.NaN()}
		c.losses[key] = l
	}
	return l
}

func (c *collector) addSent(key rowKey, value float64) {
	l := c.lossOf(key)
	l.bad = l.bad || !math.IsNaN(l.sent)
	l.sent = value
}

func (c *collector) addLost(key rowKey, value float64) {
	l := c.lossOf(key)
	l.bad = l.bad || !math.IsNaN(l.lost)
	l.lost = value
}

// window judges all that was collected.
func (c *collector) window(now time.Time) (Window, error) {
	switch {
	case len(c.infos) == 0:
		return Window{}, fmt.Errorf("no %s: this is not the %s of an agent", WindowInfo, MatrixPath)
	case len(c.infos) > 1:
		return Window{}, fmt.Errorf("%d series of %s: want one", len(c.infos), WindowInfo)
	}
	info := c.infos[0]
	if info.node == "" || len(info.node) > maxNameBytes || !utf8.ValidString(info.node) {
		return Window{}, fmt.Errorf("%s names node %.300q", WindowInfo, info.node)
	}
	// Unix seconds up to the year 2262, the end of int64 nanoseconds.
	if !(info.time >= 0 && info.time < math.MaxInt64/1e9) {
		return Window{}, fmt.Errorf("%s of node %q gives time %v", WindowInfo, info.node, info.time)
	}
	w := Window{Node: info.node, Version: strings.ToValidUTF8(info.version, "\uFFFD"), Now: time.Unix(0, int64(math.Round(info.time*1e9)))}
	if len(c.rows) > 0 {
		w.Rows = make([]Row, 0, len(c.rows))
	}
	seen := make(map[string]bool, len(c.rows))
	for _, raw := range c.rows {
		l := c.losses[raw.rowKey]
		if l != nil {
			l.used = true
		}
		row, reason := raw.row(l, info, now)
		if reason == "" && seen[row.Peer] {
			reason = Duplicate
		}
		if reason != "" {
			c.dropped.Add(reason, 1)
			continue
		}
		seen[row.Peer] = true
		w.Rows = append(w.Rows, row)
	}
	for _, l := range c.losses {
		if !l.used {
			c.dropped.Add(Orphan, 1)
		}
	}
	return w, nil
}

// row makes a Row of r and its loss, or says why it cannot.
func (r rawRow) row(l *loss, info info, now time.Time) (Row, Reason) {
	if r.bad || !r.timed {
		return Row{}, Malformed
	}
	var sent, lost int
	if l != nil {
		if l.bad || !whole(l.sent) || !whole(l.lost) {
			return Row{}, Malformed
		}
		sent, lost = int(l.sent), int(l.lost)
	}
	if !whole(r.count) {
		return Row{}, Malformed
	}
	for _, v := range []float64{r.min, r.p50, r.p90, r.p99, r.sum} {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return Row{}, Malformed
		}
	}
	age := info.time - float64(r.timestamp)/1e3
	switch {
	case age < -futureSlack:
		return Row{}, Future
	case age > maxAge.Seconds():
		return Row{}, Malformed
	}
	row := Row{Peer: r.peer, Distribution: latency.Distribution{
		Min: duration(r.min), P50: duration(r.p50), P90: duration(r.p90), P99: duration(r.p99),
		Mean:    duration(r.sum / math.Max(r.count, 1)),
		Samples: int(r.count),
		Sent:    sent,
		Lost:    lost,
		Newest:  now.Add(-duration(math.Max(age, 0))),
		Method:  r.method,
	}}
	return row, refusal(row, info.node)
}

// futureSlack, in seconds, is how much newer than the window a row may be: one
// unit of its timestamp, because senders may round.
const futureSlack = 1e-3

// whole reports whether v is a count that fits any int.
func whole(v float64) bool {
	return v == math.Trunc(v) && math.Abs(v) <= math.MaxInt32
}

// duration converts seconds, far too large ones to something that Validate
// refuses rather than to whatever overflow gives.
func duration(seconds float64) time.Duration {
	const limit = float64(math.MaxInt64 / 2)
	return time.Duration(math.Max(-limit, math.Min(limit, math.Round(seconds*1e9))))
}
