package source

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	kjson "sigs.k8s.io/json"

	"github.com/netlatency/netlatency/pkg/latency"
)

// What the first line of a recording says it is.
const (
	RecordingFormat  = "netlatency-matrix"
	RecordingVersion = 1
)

// Bounds of what ReadRecording takes.
const (
	// maxRecordingBytes, unpacked, are two million pairs: three times the
	// cluster of 5000 nodes whose agents probe 128 peers each.
	maxRecordingBytes = 512 << 20
	maxRecordingPairs = 2 << 20
	maxRecordingNodes = 1 << 16
	// maxRecordingLine is fifty times the longest line of Record.
	maxRecordingLine = 64 << 10
)

// Recording is a matrix that was written down, with the nodes' groups as far
// as they were known.
type Recording struct {
	// At is when it was recorded.
	At time.Time
	// Origin says where the matrix came from, for a person; it may be empty.
	Origin string
	// Groups are the groups of nodes by name; nil when there are none.
	Groups map[string]latency.NodeGroup
	// Observed is the distribution of each measured pair. Newest is on the
	// clock of At.
	Observed map[latency.Pair]latency.Distribution
}

// Matrix is the recording as it was, moved in time to now: a pair is as old at
// now as it was when it was recorded.
func (r *Recording) Matrix(now time.Time) *latency.Matrix {
	return latency.NewMatrix(now, r.moved(now))
}

// moved is Observed with every age at now that it had at r.At.
func (r *Recording) moved(now time.Time) map[latency.Pair]latency.Distribution {
	moved := make(map[latency.Pair]latency.Distribution, len(r.Observed))
	for pair, d := range r.Observed {
		d.Newest = now.Add(-r.At.Sub(d.Newest))
		moved[pair] = d
	}
	return moved
}

// recordingHeader is the first line. Then come as many lines of nodes and of
// pairs as it says, so that a file that is cut short shows.
type recordingHeader struct {
	Format     string `json:"format"`
	Version    int    `json:"version"`
	RecordedAt string `json:"recorded_at"` // RFC 3339
	Origin     string `json:"origin,omitempty"`
	Nodes      int    `json:"nodes"`
	Pairs      int    `json:"pairs"`
}

type recordingNode struct {
	Node     string `json:"node"`
	Provider string `json:"provider,omitempty"`
	Region   string `json:"region,omitempty"`
	Zone     string `json:"zone,omitempty"`
}

type recordingPair struct {
	Node    string `json:"node"`
	Peer    string `json:"peer"`
	Mean    *int64 `json:"mean_ns"`
	P50     *int64 `json:"p50_ns"`
	P90     *int64 `json:"p90_ns"`
	P99     *int64 `json:"p99_ns"`
	Min     *int64 `json:"min_ns"`
	Samples *int64 `json:"samples"`
	Sent    int64  `json:"sent,omitempty"`
	Lost    int64  `json:"lost,omitempty"`
	// Age is that of the newest sample when the matrix was recorded. It is not
	// a time: the clocks of who records and who reads need not agree.
	Age    *int64 `json:"age_ns"`
	Method string `json:"method,omitempty"`
}

// Record writes matrix, as it is at the time at, in the format that
// ReadRecording reads: lines of JSON, the same bytes for the same matrix.
// groups, which may be nil, are the groups of nodes by name; origin says where
// the matrix came from. An error is one of w, or says which pair cannot be
// recorded because it is impossible.
func Record(w io.Writer, matrix *latency.Matrix, groups map[string]latency.NodeGroup, origin string, at time.Time) error {
	out := bufio.NewWriter(w)
	lines := json.NewEncoder(out)
	if err := lines.Encode(recordingHeader{
		Format: RecordingFormat, Version: RecordingVersion, RecordedAt: at.UTC().Format(time.RFC3339Nano),
		Origin: origin, Nodes: len(groups), Pairs: matrix.Pairs(),
	}); err != nil {
		return fmt.Errorf("record matrix: %w", err)
	}
	for _, node := range slices.Sorted(maps.Keys(groups)) {
		group := groups[node]
		if err := lines.Encode(recordingNode{Node: node, Provider: group.Provider, Region: group.Region, Zone: group.Zone}); err != nil {
			return fmt.Errorf("record matrix: %w", err)
		}
	}
	observed := maps.Collect(matrix.All())
	for _, pair := range slices.SortedFunc(maps.Keys(observed), comparePairs) {
		d := observed[pair]
		if err := errors.Join(validName("node", pair.Node), validName("peer", pair.Peer), d.Validate()); err != nil {
			return fmt.Errorf("record matrix: pair %q to %q: %w", pair.Node, pair.Peer, err)
		}
		if err := lines.Encode(recordingPair{
			Node: pair.Node, Peer: pair.Peer,
			Mean: new(int64(d.Mean)), P50: new(int64(d.P50)), P90: new(int64(d.P90)), P99: new(int64(d.P99)), Min: new(int64(d.Min)),
			Samples: new(int64(d.Samples)), Sent: int64(d.Sent), Lost: int64(d.Lost),
			Age: new(int64(min(max(at.Sub(d.Newest), 0), maxAge))), Method: d.Method,
		}); err != nil {
			return fmt.Errorf("record matrix: %w", err)
		}
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("record matrix: %w", err)
	}
	return nil
}

func comparePairs(a, b latency.Pair) int {
	return cmp.Or(strings.Compare(a.Node, b.Node), strings.Compare(a.Peer, b.Peer))
}

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
	names := make(map[string]string) // of each name one string is kept
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

func (l *recordingLines) pair(into *Recording, names map[string]string, what string) error {
	var p recordingPair
	if err := l.next(&p, what); err != nil {
		return err
	}
	d, err := p.distribution(into.At)
	if err != nil {
		return fmt.Errorf("line %d: pair %q to %q: %w", l.number, p.Node, p.Peer, err)
	}
	shared := func(name string) string {
		if one, ok := names[name]; ok {
			return one
		}
		names[name] = name
		return name
	}
	pair := latency.Pair{Node: shared(p.Node), Peer: shared(p.Peer)}
	if _, twice := into.Observed[pair]; twice {
		return fmt.Errorf("line %d: pair %q to %q is there twice", l.number, p.Node, p.Peer)
	}
	d.Method = shared(d.Method)
	into.Observed[pair] = d
	return nil
}

// distribution is what p says, recorded at the time at.
func (p recordingPair) distribution(at time.Time) (latency.Distribution, error) {
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

const (
	// maxAge bounds ages: older is a fault, and would overflow elsewhere.
	maxAge = 365 * 24 * time.Hour
	// maxNameBytes is the longest name that Kubernetes gives a node.
	maxNameBytes = 253
	// maxMethodBytes is far more than any method's name.
	maxMethodBytes = 63
)

// validName says what is wrong with the name of a node.
func validName(field, name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%s is empty: want the name of a node", field)
	case len(name) > maxNameBytes:
		return fmt.Errorf("%s has %d bytes: the name of a node has at most %d", field, len(name), maxNameBytes)
	case !utf8.ValidString(name):
		return fmt.Errorf("%s is not UTF-8", field)
	}
	return nil
}

// bounded reads from r and fails with err, unlike io.LimitReader, beyond left
// bytes.
type bounded struct {
	r    io.Reader
	left int64
	err  error
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p[:min(int64(len(p)), b.left+1)])
	if b.left -= int64(n); b.left < 0 {
		return 0, b.err
	}
	return n, err
}
