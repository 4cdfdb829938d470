package wan

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestJournalWritesEveryRecordInOrder(t *testing.T) {
	j := newJournal()
	stop, written := make(chan struct{}), make(chan error, 1)
	var out bytes.Buffer
	go func() { written <- j.write(&out, stop) }()
	var want []Record
	for seq := range uint32(journalCapacity / 2) {
		r := Record{Kind: KindProbe, Seq: seq, Received: 1, Due: 2, Released: 2}
		j.add(r)
		want = append(want, r)
	}
	close(stop)
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	got, err := decodeRecords(out.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestJournalNeverWaitsForItsWriter(t *testing.T) {
	j := newJournal()
	for seq := range uint32(journalCapacity + 3) {
		j.add(Record{Kind: KindProbe, Seq: seq, Received: 1, Due: 2, Released: 2})
	}
	if got := j.dropped.Load(); got != 3 {
		t.Errorf("%d records counted as dropped, want 3", got)
	}
	drained, err := decodeRecords(j.drain(nil))
	if err != nil {
		t.Fatal(err)
	}
	if len(drained) != journalCapacity || drained[0].Seq != 0 {
		t.Errorf("drained %d records from number %d on, want %d from 0 on", len(drained), drained[0].Seq, journalCapacity)
	}
	j.add(Record{Kind: KindProbe, Seq: 77, Received: 1, Due: 2, Released: 2})
	if after := j.drain(nil); len(after) != recordSize {
		t.Errorf("%d bytes drained after that, want one record", len(after))
	}
}

func TestJournalReportsThatItCannotWrite(t *testing.T) {
	j := newJournal()
	j.add(Record{Kind: KindProbe, Received: 1, Due: 2, Released: 2})
	full := errors.New("disk full")
	if err := j.write(failing{full}, make(chan struct{})); !errors.Is(err, full) {
		t.Errorf("got error %v, want %v", err, full)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
