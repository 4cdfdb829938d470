package wan

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// Record is what happened to one packet that carries an identity. A TCP segment
// sent again makes a second record with the same identity.
type Record struct {
	Kind     uint8  // KindProbe or KindApplication
	Reply    bool   // of the message's type
	From, To uint16 // node indexes
	Session  uint64
	Seq      uint32
	Received int64 // Unix nanoseconds, the kernel's stamp when the packet reached the WAN
	Due      int64 // Unix nanoseconds, when the link's delay was over; 0 if Dropped
	Released int64 // Unix nanoseconds, the kernel's stamp when the packet left the WAN; 0 if Dropped
	Dropped  bool
	Size     uint16 // bytes of the IP packet
}

// recordSize is fixed, so that an offset into the log says how many records
// came before it. Big endian: kind 1, flags 1, from 2, to 2, size 2, session 8,
// seq 4, zero 4, received 8, due 8, released 8.
const recordSize = 48

const (
	flagReply   = 1 << 0
	flagDropped = 1 << 1
)

func (r Record) append(b []byte) []byte {
	var flags uint8
	if r.Reply {
		flags |= flagReply
	}
	if r.Dropped {
		flags |= flagDropped
	}
	b = append(b, r.Kind, flags)
	b = binary.BigEndian.AppendUint16(b, r.From)
	b = binary.BigEndian.AppendUint16(b, r.To)
	b = binary.BigEndian.AppendUint16(b, r.Size)
	b = binary.BigEndian.AppendUint64(b, r.Session)
	b = binary.BigEndian.AppendUint32(b, r.Seq)
	b = binary.BigEndian.AppendUint32(b, 0)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Received))
	b = binary.BigEndian.AppendUint64(b, uint64(r.Due))
	return binary.BigEndian.AppendUint64(b, uint64(r.Released))
}

// errRecord is a record that the WAN cannot have written.
var errRecord = errors.New("not a record")

func decodeRecord(b []byte) (Record, error) {
	r := Record{
		Kind:     b[0],
		Reply:    b[1]&flagReply != 0,
		Dropped:  b[1]&flagDropped != 0,
		From:     binary.BigEndian.Uint16(b[2:]),
		To:       binary.BigEndian.Uint16(b[4:]),
		Size:     binary.BigEndian.Uint16(b[6:]),
		Session:  binary.BigEndian.Uint64(b[8:]),
		Seq:      binary.BigEndian.Uint32(b[16:]),
		Received: int64(binary.BigEndian.Uint64(b[24:])),
		Due:      int64(binary.BigEndian.Uint64(b[32:])),
		Released: int64(binary.BigEndian.Uint64(b[40:])),
	}
	valid := (r.Kind == KindProbe || r.Kind == KindApplication) &&
		b[1]&^(flagReply|flagDropped) == 0 &&
		binary.BigEndian.Uint32(b[20:]) == 0 &&
		r.Received > 0 &&
		r.Dropped == (r.Released == 0) && r.Released >= 0 &&
		r.Dropped == (r.Due == 0) && (r.Dropped || r.Due >= r.Received)
	if !valid {
		return Record{}, errRecord
	}
	return r, nil
}

// ReadLog reads the records of the log at path that begin at byte offset from,
// which is 0 or a next offset of an earlier call, and returns the offset at
// which the following ones will begin. The last record may still be in the
// writing; it is left for the next call. At a damaged record it stops with
// those before it, the damaged one's offset, and an error.
func ReadLog(path string, from int64) (records []Record, next int64, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, from, fmt.Errorf("open the WAN's log: %w", err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.NewSectionReader(file, from, 1<<62))
	if err != nil {
		return nil, from, fmt.Errorf("read the WAN's log %s from byte %d: %w", path, from, err)
	}
	records, err = decodeRecords(data)
	next = from + int64(len(records)*recordSize)
	if err != nil {
		return records, next, fmt.Errorf("read the WAN's log %s at byte %d: %w", path, next, err)
	}
	return records, next, nil
}

func decodeRecords(data []byte) ([]Record, error) {
	records := make([]Record, 0, len(data)/recordSize)
	for len(data) >= recordSize {
		r, err := decodeRecord(data)
		if err != nil {
			return records, err
		}
		records = append(records, r)
		data = data[recordSize:]
	}
	return records, nil
}
