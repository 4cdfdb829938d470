package wan

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func someRecords() []Record {
	return []Record{
		{Kind: KindProbe, From: 1, To: 2, Session: 1 << 63, Seq: 1<<32 - 1, Received: 1_790_000_000_000_000_000, Due: 1_790_000_000_000_090_000, Released: 1_790_000_000_000_100_000, Size: 92},
		{Kind: KindProbe, Reply: true, From: 2, To: 1, Session: 3, Seq: 4, Received: 1, Due: 1, Released: 2, Size: 65535},
		{Kind: KindApplication, Dropped: true, From: 65535, To: 0, Received: 5},
	}
}

func encode(records ...Record) []byte {
	var data []byte
	for _, r := range records {
		data = r.append(data)
	}
	return data
}

func TestReadLog(t *testing.T) {
	records := someRecords()
	whole := encode(records...)
	damaged := bytes.Clone(whole)
	damaged[recordSize] = 9 // the second one's kind
	tests := []struct {
		name    string
		data    []byte
		from    int64
		want    []Record
		next    int64
		wantErr error
	}{
		{"from the beginning", whole, 0, records, 3 * recordSize, nil},
		{"from the middle", whole, recordSize, records[1:], 3 * recordSize, nil},
		{"from the end", whole, 3 * recordSize, nil, 3 * recordSize, nil},
		{"with the last record half written", whole[:3*recordSize-1], 0, records[:2], 2 * recordSize, nil},
		{"up to a damaged record", damaged, 0, records[:1], recordSize, errRecord},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "wan.log")
			if err := os.WriteFile(path, test.data, 0o600); err != nil {
				t.Fatal(err)
			}
			got, next, err := ReadLog(path, test.from)
			if !errors.Is(err, test.wantErr) || next != test.next {
				t.Errorf("next offset %d, error %v, want %d, %v", next, err, test.next, test.wantErr)
			}
			if len(got) != len(test.want) || len(got) > 0 && !cmp.Equal(test.want, got) {
				t.Errorf("records (-want +got):\n%s", cmp.Diff(test.want, got))
			}
		})
	}
	t.Run("that is not there", func(t *testing.T) {
		if _, next, err := ReadLog(filepath.Join(t.TempDir(), "none"), 80); !errors.Is(err, os.ErrNotExist) || next != 80 {
			t.Errorf("next offset %d, error %v", next, err)
		}
	})
}

func FuzzDecodeRecords(f *testing.F) {
	f.Add(encode(someRecords()...))
	f.Add(encode(someRecords()...)[:recordSize+7])
	f.Add(make([]byte, recordSize))
	f.Fuzz(func(t *testing.T, data []byte) {
		records, err := decodeRecords(data)
		read := len(records) * recordSize
		if !bytes.Equal(encode(records...), data[:read]) {
			t.Errorf("%d records do not encode to the bytes they were read from", len(records))
		}
		if err == nil && len(data)-read >= recordSize {
			t.Errorf("%d bytes left without an error", len(data)-read)
		}
	})
}
