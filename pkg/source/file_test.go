package source_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/netlatency/netlatency/pkg/exposition"
	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/source"
)

// looking is a source of a file that runs, by a fake clock that stands at a
// year after the recording.
type looking struct {
	*running
	source *source.File
}

func look(t *testing.T, path string, edits ...func(*source.FileOptions)) *looking {
	t.Helper()
	r, file := run(t, recordedAt.Add(365*24*time.Hour), func(r *running) (*source.File, error) {
		options := source.FileOptions{Path: path, Interval: interval, StaleAfter: staleAfter, Clock: r.clock, Publish: r.publish}
		for _, edit := range edits {
			edit(&options)
		}
		return source.NewFile(options)
	})
	return &looking{r, file}
}

// write replaces the file as one that is mounted is: by another of its name.
func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// recordingOf is a recording in which a to b takes rtt.
func recordingOf(t *testing.T, rtt time.Duration) string {
	t.Helper()
	var out bytes.Buffer
	matrix := latency.NewMatrix(recordedAt, map[latency.Pair]latency.Distribution{{Node: "a", Peer: "b"}: {
		Mean: rtt, P50: rtt, P90: rtt, P99: rtt, Min: rtt, Samples: 100, Newest: recordedAt.Add(-time.Minute),
	}})
	if err := source.Record(&out, matrix, nil, "", recordedAt); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestAFileIsReadAgainWhenItHasChanged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "matrix.jsonl")
	l := look(t, path)
	steps := []struct {
		name string
		text string // "" leaves the file as it is
		want map[string]time.Duration
	}{
		{"there is no file yet", "", map[string]time.Duration{}},
		{"a file appears", recordingOf(t, 1*ms), map[string]time.Duration{"a>b": 1 * ms}},
		{"nothing changes", "", map[string]time.Duration{"a>b": 1 * ms}},
		{"its content changes", recordingOf(t, 2*ms), map[string]time.Duration{"a>b": 2 * ms}},
		{"it breaks: what was read before stays", "{", map[string]time.Duration{"a>b": 2 * ms}},
		{"it stays broken", "", map[string]time.Duration{"a>b": 2 * ms}},
		{"it is mended", recordingOf(t, 3*ms), map[string]time.Duration{"a>b": 3 * ms}},
	}
	for i, step := range steps {
		if step.text != "" {
			write(t, path, step.text)
		}
		m := l.matrix
		if i > 0 {
			m = l.round
		}
		if diff := cmp.Diff(step.want, rtts(m())); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step.name, diff)
		}
	}
	want := source.Stats{
		LastSuccess: l.clock.Now(), Version: uint64(len(steps)), Pairs: 1,
		Failures: map[source.Failure]uint64{source.FailureRead: 1, source.FailureDecode: 2}, Dropped: map[exposition.Reason]uint64{},
	}
	if diff := cmp.Diff(want, l.source.Stats()); diff != "" {
		t.Errorf("stats (-want +got):\n%s", diff)
	}
}

func TestARecordingStaysAsFreshAsItWas(t *testing.T) {
	path := filepath.Join(t.TempDir(), "matrix.jsonl")
	write(t, path, recordingOf(t, 1*ms))
	l := look(t, path)
	l.matrix()
	m := l.after(1000 * time.Hour)
	if d, ok := m.Measured("a", "b"); !ok || l.clock.Now().Sub(d.Newest) != time.Minute {
		t.Errorf("the pair is of %v at %v, want an age of 1m as it was recorded", d.Newest, l.clock.Now())
	}
}

func TestAnAgeingRecordingGrowsStale(t *testing.T) {
	path := filepath.Join(t.TempDir(), "matrix.jsonl")
	// Recorded now, by the clock of the test.
	write(t, path, strings.Replace(recordingOf(t, 1*ms), `"2026-`, `"2027-`, 1))
	l := look(t, path, func(o *source.FileOptions) { o.Ageing = true })
	if d, ok := l.matrix().Measured("a", "b"); !ok || l.clock.Now().Sub(d.Newest) != time.Minute {
		t.Errorf("the pair is of %v at %v, want an age of 1m", d.Newest, l.clock.Now())
	}
	l.round()
	if m := l.after(staleAfter); m.Pairs() != 0 {
		t.Errorf("stale pairs count: %v", rtts(m))
	}
}

func TestOptionsOfAFileAreChecked(t *testing.T) {
	_, err := source.NewFile(source.FileOptions{Ageing: true})
	for _, want := range []string{"Path is not set", "Publish is not set", "Interval is 0s", "StaleAfter is 0s"} {
		if err == nil || !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("got error %v, want one with %s", err, want)
		}
	}
}
