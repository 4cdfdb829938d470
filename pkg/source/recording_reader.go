package source

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"time"

	kjson "sigs.k8s.io/json"

	"github.com/netlatency/netlatency/pkg/latency"
)

// ReadRecording reads what Record wrote, packed by gzip or not. It is strict:
// an unknown field, an impossible number, a pair given twice and a file that
// is cut short are errors, which name the line. It takes at most 512 MiB and
// two million pairs, which is ErrRecordingTooLarge.
func ReadRecording(r io.Reader) (*Recording, error) {
	recording, err := readRecording(r)
	if err != nil {
		return nil, fmt.Errorf("read recorded matrix: %w", err)
	}
	return recording, nil
}

// ErrRecordingTooLarge is wrapped by the error of ReadRecording when the
// recording exceeds its limits.
var ErrRecordingTooLarge = errors.New("the recording is too large")

func readRecording(r io.Reader) (*Recording, error) {
	packed := bufio.NewReader(r)
	r = packed
	if magic, _ := packed.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		unpacked, err := gzip.NewReader(packed)
		if err != nil {
			return nil, fmt.Errorf("unpack: %w", err)
		}
		r = unpacked
	}
	lines := &recordingLines{Scanner: bufio.NewScanner(&bounded{r: r, left: maxRecordingBytes, err: ErrRecordingTooLarge})}
	lines.Buffer(make([]byte, 0, 4<<10), maxRecordingLine)

	var header recordingHeader
	if err := lines.next(&header, "the header"); err != nil {
		return nil, err
	}
	at, err := header.check()
	if err != nil {
		return nil, fmt.Errorf("line 1: %w", err)
	}
	// Room for what is announced, up to what costs nothing to promise.
	recording := &Recording{At: at, Origin: header.Origin, Observed: make(map[latency.Pair]latency.Distribution, min(header.Pairs, 1<<12))}
	if header.Nodes > 0 {
		recording.Groups = make(map[string]latency.NodeGroup)
	}
	for i := range header.Nodes {
		if err := lines.node(recording, fmt.Sprintf("node %d of %d", i+1, header.Nodes)); err != nil {
			return nil, err
		}
	}
	names := make(nameTable)
	for i := range header.Pairs {
		if err := lines.pair(recording, names, fmt.Sprintf("pair %d of %d", i+1, header.Pairs)); err != nil {
			return nil, err
		}
	}
	if lines.Scan() {
		return nil, fmt.Errorf("line %d: there are more lines than the %d nodes and %d pairs that the header announces", lines.number+1, header.Nodes, header.Pairs)
	}
	return recording, lines.failed()
}

func (h recordingHeader) check() (at time.Time, err error) {
	if h.Format != RecordingFormat {
		return at, fmt.Errorf("format is %q: this is not a recorded matrix, whose format is %q", h.Format, RecordingFormat)
	}
	if h.Version != RecordingVersion {
		return at, fmt.Errorf("version is %d: this program reads version %d", h.Version, RecordingVersion)
	}
	if at, err = time.Parse(time.RFC3339Nano, h.RecordedAt); err != nil {
		return at, fmt.Errorf("recorded_at is %q: want a time such as 2026-01-31T12:00:00Z", h.RecordedAt)
	}
	if h.Nodes < 0 || h.Pairs < 0 {
		return at, fmt.Errorf("%d nodes and %d pairs: want 0 or more", h.Nodes, h.Pairs)
	}
	if h.Nodes > maxRecordingNodes || h.Pairs > maxRecordingPairs {
		return at, fmt.Errorf("%w: %d nodes and %d pairs, at most %d and %d are read", ErrRecordingTooLarge, h.Nodes, h.Pairs, maxRecordingNodes, maxRecordingPairs)
	}
	return at, nil
}

// recordingLines reads a line after the other.
type recordingLines struct {
	*bufio.Scanner
	number int // of the line that was read last
}

// next reads the next line into a struct.
func (l *recordingLines) next(into any, what string) error {
	if !l.Scan() {
		if err := l.failed(); err != nil {
			return err
		}
		return fmt.Errorf("line %d: %s is missing: the file is cut short", l.number+1, what)
	}
	l.number++
	faults, err := kjson.UnmarshalStrict(l.Bytes(), into)
	if err = errors.Join(append(faults, err)...); err != nil {
		return fmt.Errorf("line %d: %s: %w", l.number, what, err)
	}
	return nil
}

// failed is why no line came, nil at the end of the file.
func (l *recordingLines) failed() error {
	err := l.Err()
	if errors.Is(err, bufio.ErrTooLong) {
		return fmt.Errorf("line %d: %w: a line has more than %d bytes", l.number+1, ErrRecordingTooLarge, maxRecordingLine)
	}
	if err != nil {
		return fmt.Errorf("line %d: %w", l.number+1, err)
	}
	return nil
}

func (l *recordingLines) node(into *Recording, what string) error {
	var n recordingNode
	if err := l.next(&n, what); err != nil {
		return err
	}
	if err := validName("node", n.Node); err != nil {
		return fmt.Errorf("line %d: %w", l.number, err)
	}
	if _, twice := into.Groups[n.Node]; twice {
		return fmt.Errorf("line %d: node %q is there twice", l.number, n.Node)
	}
	into.Groups[n.Node] = latency.NodeGroup{Provider: n.Provider, Region: n.Region, Zone: n.Zone}
	return nil
}

func (l *recordingLines) pair(into *Recording, names nameTable, what string) error {
	var p recordingPair
	if err := l.next(&p, what); err != nil {
		return err
	}
	d, err := p.distribution(into.At)
	if err != nil {
		return fmt.Errorf("line %d: %w", l.number, err)
	}
	pair := latency.Pair{Node: names.shared(p.Node), Peer: names.shared(p.Peer)}
	if _, twice := into.Observed[pair]; twice {
		return fmt.Errorf("line %d: pair %q to %q is there twice", l.number, p.Node, p.Peer)
	}
	d.Method = names.shared(d.Method)
	into.Observed[pair] = d
	return nil
}

// distribution is what p says, recorded at the time at.
func (p recordingPair) distribution(at time.Time) (latency.Distribution, error) {
	d, err := p.check(at)
	if err != nil {
		return d, fmt.Errorf("pair %q to %q: %w", p.Node, p.Peer, err)
	}
	return d, nil
}

func (p recordingPair) check(at time.Time) (latency.Distribution, error) {
	var errs []error
	for _, number := range []struct {
		name  string
		value *int64
	}{{"mean_ns", p.Mean}, {"p50_ns", p.P50}, {"p90_ns", p.P90}, {"p99_ns", p.P99}, {"min_ns", p.Min}, {"samples", p.Samples}, {"age_ns", p.Age}} {
		if number.value == nil {
			errs = append(errs, fmt.Errorf("%s is missing: want a whole number", number.name))
		}
	}
	if len(errs) > 0 {
		return latency.Distribution{}, errors.Join(errs...)
	}
	d := latency.Distribution{
		Mean: time.Duration(*p.Mean), P50: time.Duration(*p.P50), P90: time.Duration(*p.P90), P99: time.Duration(*p.P99), Min: time.Duration(*p.Min),
		Samples: int(*p.Samples), Sent: int(p.Sent), Lost: int(p.Lost), Newest: at.Add(-time.Duration(*p.Age)), Method: p.Method,
	}
	errs = append(errs, validName("node", p.Node), validName("peer", p.Peer), d.Validate())
	if p.Node == p.Peer {
		errs = append(errs, errors.New("a node has no pair with itself"))
	}
	if age := time.Duration(*p.Age); age < 0 || age > maxAge {
		errs = append(errs, fmt.Errorf("age_ns is %d: want 0 to %d, a year", *p.Age, maxAge))
	}
	if len(p.Method) > maxMethodBytes {
		errs = append(errs, fmt.Errorf("method has %d bytes: want at most %d", len(p.Method), maxMethodBytes))
	}
	return d, errors.Join(errs...)
}
