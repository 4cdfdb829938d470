package source

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

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
// the matrix came from. An error is one of w, or says what ReadRecording would
// refuse.
func Record(w io.Writer, matrix *latency.Matrix, groups map[string]latency.NodeGroup, origin string, at time.Time) error {
	if err := record(w, matrix, groups, origin, at); err != nil {
		return fmt.Errorf("record matrix: %w", err)
	}
	return nil
}

func record(w io.Writer, matrix *latency.Matrix, groups map[string]latency.NodeGroup, origin string, at time.Time) error {
	out := bufio.NewWriter(w)
	lines := json.NewEncoder(out)
	header := recordingHeader{
		Format: RecordingFormat, Version: RecordingVersion, RecordedAt: at.UTC().Format(time.RFC3339Nano),
		Origin: origin, Nodes: len(groups), Pairs: matrix.Pairs(),
	}
	if _, err := header.check(); err != nil {
		return err
	}
	if err := lines.Encode(header); err != nil {
		return err
	}
	for _, node := range slices.Sorted(maps.Keys(groups)) {
		if err := validName("node", node); err != nil {
			return err
		}
		group := groups[node]
		if err := lines.Encode(recordingNode{Node: node, Provider: group.Provider, Region: group.Region, Zone: group.Zone}); err != nil {
			return err
		}
	}
	observed := maps.Collect(matrix.All())
	for _, pair := range slices.SortedFunc(maps.Keys(observed), comparePairs) {
		d := observed[pair]
		line := recordingPair{
			Node: pair.Node, Peer: pair.Peer,
			Mean: new(int64(d.Mean)), P50: new(int64(d.P50)), P90: new(int64(d.P90)), P99: new(int64(d.P99)), Min: new(int64(d.Min)),
			Samples: new(int64(d.Samples)), Sent: int64(d.Sent), Lost: int64(d.Lost),
			Age: new(int64(min(max(at.Sub(d.Newest), 0), maxAge))), Method: d.Method,
		}
		if _, err := line.distribution(at); err != nil {
			return err
		}
		if err := lines.Encode(line); err != nil {
			return err
		}
	}
	return out.Flush()
}

func comparePairs(a, b latency.Pair) int {
	return cmp.Or(strings.Compare(a.Node, b.Node), strings.Compare(a.Peer, b.Peer))
}
