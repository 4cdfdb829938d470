package source_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/source"
)

// recordedAt is when the matrices of these tests were recorded.
var recordedAt = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// recordedMatrix has a pair that lost something and one without a method.
func recordedMatrix() *latency.Matrix {
	return latency.NewMatrix(recordedAt, map[latency.Pair]latency.Distribution{
		{Node: "b", Peer: "a"}: {Mean: 2 * ms, P50: 2 * ms, P90: 3 * ms, P99: 9 * ms, Min: 1*ms + 1, Samples: 120, Newest: recordedAt.Add(-4 * time.Second)},
		{Node: "a", Peer: "b"}: {Mean: 2 * ms, P50: 1 * ms, P90: 3 * ms, P99: 8 * ms, Min: 1 * ms, Samples: 119, Sent: 720, Lost: 3, Newest: recordedAt.Add(-90 * time.Second), Method: "udp"},
	})
}

var recordedGroups = map[string]latency.NodeGroup{
	"a": {Provider: "hcloud", Region: "fsn1", Zone: "fsn1-dc14"},
	"b": {Zone: "1"},
}

const recordedText = `{"format":"netlatency-matrix","version":1,"recorded_at":"2026-03-01T12:00:00Z","origin":"a test","nodes":2,"pairs":2}
{"node":"a","provider":"hcloud","region":"fsn1","zone":"fsn1-dc14"}
{"node":"b","zone":"1"}
{"node":"a","peer":"b","mean_ns":2000000,"p50_ns":1000000,"p90_ns":3000000,"p99_ns":8000000,"min_ns":1000000,"samples":119,"sent":720,"lost":3,"age_ns":90000000000,"method":"udp"}
{"node":"b","peer":"a","mean_ns":2000000,"p50_ns":2000000,"p90_ns":3000000,"p99_ns":9000000,"min_ns":1000001,"samples":120,"age_ns":4000000000}
`

func TestAMatrixIsRecordedAsLinesOfJSON(t *testing.T) {
	var out bytes.Buffer
	if err := source.Record(&out, recordedMatrix(), recordedGroups, "a test", recordedAt); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(recordedText, out.String()); diff != "" {
		t.Errorf("recording (-want +got):\n%s", diff)
	}
}

func TestARecordingIsReadAsItWasRecorded(t *testing.T) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write([]byte(recordedText)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{"plain": recordedText, "packed": packed.String()} {
		t.Run(name, func(t *testing.T) {
			got, err := source.ReadRecording(strings.NewReader(data))
			if err != nil {
				t.Fatal(err)
			}
			want := &source.Recording{At: recordedAt, Origin: "a test", Groups: recordedGroups, Observed: maps.Collect(recordedMatrix().All())}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("recording (-want +got):\n%s", diff)
			}
			now := recordedAt.Add(1000 * time.Hour)
			matrix := got.Matrix(now)
			d, _ := matrix.Measured("a", "b")
			if age := now.Sub(d.Newest); age != 90*time.Second || !matrix.Taken().Equal(now) {
				t.Errorf("at %v a pair is %v old in a matrix of %v, want the age of 1m30s that it had", now, age, matrix.Taken())
			}
		})
	}
}

func TestAnEmptyMatrixCanBeRecorded(t *testing.T) {
	var out bytes.Buffer
	if err := source.Record(&out, nil, nil, "", recordedAt); err != nil {
		t.Fatal(err)
	}
	got, err := source.ReadRecording(&out)
	if err != nil || got.Matrix(recordedAt).Pairs() != 0 || got.Groups != nil {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestWhatCouldNotBeReadIsNotRecorded(t *testing.T) {
	for _, c := range []struct {
		name   string
		d      latency.Distribution
		groups map[string]latency.NodeGroup
		want   string
	}{
		{"an impossible latency", latency.Distribution{Mean: -1, Samples: 1}, nil, `pair "a" to "b": mean is -1ns: want 0 to 10s`},
		{"a method without end", latency.Distribution{Samples: 1, Method: strings.Repeat("m", 64)}, nil, `pair "a" to "b": method has 64 bytes: want at most 63`},
		{"a group of nobody", latency.Distribution{Samples: 1}, map[string]latency.NodeGroup{"": {Zone: "1"}}, "node is empty: want the name of a node"},
	} {
		t.Run(c.name, func(t *testing.T) {
			matrix := latency.NewMatrix(recordedAt, map[latency.Pair]latency.Distribution{{Node: "a", Peer: "b"}: c.d})
			err := source.Record(&bytes.Buffer{}, matrix, c.groups, "", recordedAt)
			if want := "record matrix: " + c.want; err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("got error %v, want %s", err, want)
			}
		})
	}
}

func TestMistakesInARecordingAreNamedWithTheirLine(t *testing.T) {
	const first, pair = "line 1: ", `line 4: pair "a" to "b": `
	for _, c := range []struct{ name, old, new, want string }{
		{"nothing", recordedText, "", "line 1: the header is missing: the file is cut short"},
		{"something else", recordedText, "apiVersion: v1\n", first + "the header: invalid character 'a' looking for beginning of value"},
		{"other JSON", `"netlatency-matrix"`, `"a-matrix"`, first + `format is "a-matrix": this is not a recorded matrix, whose format is "netlatency-matrix"`},
		{"a later version", `"version":1`, `"version":2`, first + "version is 2: this program reads version 1"},
		{"no time", `"2026-03-01T12:00:00Z"`, `"yesterday"`, first + `recorded_at is "yesterday": want a time such as 2026-01-31T12:00:00Z`},
		{"fewer than none", `"pairs":2`, `"pairs":-2`, first + "2 nodes and -2 pairs: want 0 or more"},
		{"more than is read", `"pairs":2`, `"pairs":3000000`, first + "the recording is too large: 2 nodes and 3000000 pairs, at most 65536 and 2097152 are read"},
		{"cut short between lines", `{"node":"b","peer":"a"`, "\x00", `line 5: pair 2 of 2: invalid character '\x00' looking for beginning of value`},
		{"a pair less than announced", `"pairs":2`, `"pairs":3`, "line 6: pair 3 of 3 is missing: the file is cut short"},
		{"a pair more than announced", `"pairs":2`, `"pairs":1`, "line 5: there are more lines than the 2 nodes and 1 pairs that the header announces"},
		{"an unknown field", `"method"`, `"via"`, `line 4: pair 1 of 2: unknown field "via"`},
		{"a field of another case", `"mean_ns":2000000,"p50_ns":1`, `"Mean_ns":2000000,"p50_ns":1`, `line 4: pair 1 of 2: unknown field "Mean_ns"`},
		{"a field twice", `"lost":3`, `"lost":3,"lost":4`, `line 4: pair 1 of 2: duplicate field "lost"`},
		{"a number as text", `"lost":3`, `"lost":"3"`, "line 4: pair 1 of 2: json: cannot unmarshal string into Go struct field recordingPair.lost of type int64"},
		{"half a nanosecond", `"p50_ns":1000000`, `"p50_ns":0.5`, "line 4: pair 1 of 2: json: cannot unmarshal number 0.5 into Go struct field recordingPair.p50_ns of type int64"},
		{"no age", `"age_ns":90000000000,`, "", pair + "age_ns is missing: want a whole number"},
		{"an age to come", `"age_ns":90000000000`, `"age_ns":-1`, pair + "age_ns is -1: want 0 to 31536000000000000, a year"},
		{"falling quantiles", `"p90_ns":3000000,"p99_ns":8`, `"p90_ns":9000000,"p99_ns":8`, pair + "quantiles fall: min 1ms, p50 1ms, p90 9ms, p99 8ms"},
		{"an absurd latency", `"p99_ns":8000000`, `"p99_ns":80000000000`, pair + "p99 is 1m20s: want 0 to 10s"},
		{"more lost than sent", `"lost":3`, `"lost":721`, pair + "lost is 721 of 720 sent"},
		{"a node without name", `{"node":"b","zone"`, `{"node":"","zone"`, "line 3: node is empty: want the name of a node"},
		{"a node twice", `{"node":"b","zone"`, `{"node":"a","zone"`, `line 3: node "a" is there twice`},
		{"a pair of one node", `"peer":"b"`, `"peer":"a"`, `line 4: pair "a" to "a": a node has no pair with itself`},
		{"a pair twice", `{"node":"b","peer":"a"`, `{"node":"a","peer":"b"`, `line 5: pair "a" to "b" is there twice`},
		{"a long name", `"peer":"b"`, `"peer":"` + strings.Repeat("b", 254) + `"`, "peer has 254 bytes: the name of a node has at most 253"},
		{"an endless line", `"origin":"a test"`, `"origin":"` + strings.Repeat("a", 70_000) + `"`, "line 1: the recording is too large: a line has more than 65536 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			data := strings.Replace(recordedText, c.old, c.new, 1)
			if data == recordedText {
				t.Fatal("the test changes nothing")
			}
			_, err := source.ReadRecording(strings.NewReader(data))
			if err == nil || !strings.HasPrefix(err.Error(), "read recorded matrix: ") || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got error %v\nwant one with   %s", err, c.want)
			}
			if large := strings.Contains(c.want, "too large"); errors.Is(err, source.ErrRecordingTooLarge) != large {
				t.Errorf("the error tells wrongly whether it is a matter of size: %v", err)
			}
		})
	}
}

// Whatever is read is possible, and the same when it is recorded and read
// again.
func FuzzReadRecording(f *testing.F) {
	f.Add([]byte(recordedText))
	f.Add([]byte(strings.ReplaceAll(recordedText, `"nodes":2`, `"nodes":9`)))
	f.Add([]byte(`{"format":"netlatency-matrix","version":1,"recorded_at":"0001-01-01T00:00:00Z","nodes":0,"pairs":2097152}`))
	f.Add([]byte{0x1f, 0x8b, 8})
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := source.ReadRecording(bytes.NewReader(data))
		if err != nil {
			return
		}
		var out bytes.Buffer
		if err := source.Record(&out, latency.NewMatrix(r.At, r.Observed), r.Groups, r.Origin, r.At); err != nil {
			t.Fatalf("what was read cannot be recorded: %v", err)
		}
		again, err := source.ReadRecording(&out)
		if err != nil {
			t.Fatalf("what was recorded cannot be read: %v", err)
		}
		if fmt.Sprint(again.At.UTC()) != fmt.Sprint(r.At.UTC()) || len(again.Observed) != len(r.Observed) {
			t.Errorf("%d pairs of %v became %d of %v", len(r.Observed), r.At, len(again.Observed), again.At)
		}
	})
}
