package probe

import (
	"encoding/binary"
	"errors"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	aRequest = Header{Kind: Request, Session: 0xfeedface_12345678, Seq: 7}
	aReply   = Header{
		Kind: Reply, Session: 0xfeedface_12345678, Seq: 7,
		T2: 1_800_000_000_000_000_001, KernelT2: true, T3: 1_800_000_000_000_000_002,
		PrevSeq: 6, PrevSent: true, PrevT3: 1_799_999_999_000_000_000,
	}
)

func encoded(h Header, size int) []byte {
	b := make([]byte, size)
	h.Encode(b)
	return b
}

func TestDecodeReturnsWhatWasEncoded(t *testing.T) {
	for name, h := range map[string]Header{
		"request":                              aRequest,
		"reply with all stamps":                aReply,
		"first reply of a session":             {Kind: Reply, Session: 1, Seq: 1, T2: 1, T3: 1},
		"reply whose predecessor has no stamp": {Kind: Reply, Session: 1, Seq: 2, T2: 1, T3: 1, PrevSeq: 1},
		"largest values": {
			Kind: Reply, Session: math.MaxUint64, Seq: math.MaxUint32, T2: math.MaxInt64, T3: math.MaxInt64,
			PrevSeq: math.MaxUint32, PrevSent: true, PrevT3: math.MaxInt64,
		},
	} {
		for _, size := range []int{MinSize, 65, 1200, MaxSize} {
			got, err := Decode(encoded(h, size))
			if err != nil {
				t.Fatalf("%s of %d octets: %v", name, size, err)
			}
			if diff := cmp.Diff(h, got); diff != "" {
				t.Errorf("%s of %d octets (-want +got):\n%s", name, size, diff)
			}
		}
	}
}

// The sandbox's WAN reads the same octets without this package.
func TestTheFirstTwentyOctetsIdentifyAPacket(t *testing.T) {
	want := append([]byte("NLP1\x02\x01\x00\x01"), 0xfe, 0xed, 0xfa, 0xce, 0x12, 0x34, 0x56, 0x78, 0, 0, 0, 7)
	if diff := cmp.Diff(want, encoded(aReply, MinSize)[:20]); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestDecodeRefuses(t *testing.T) {
	set := func(at int, octets ...byte) func([]byte) []byte {
		return func(b []byte) []byte { copy(b[at:], octets); return b }
	}
	negative := binary.BigEndian.AppendUint64(nil, 1<<63)
	for _, test := range []struct {
		name   string
		from   Header
		change func([]byte) []byte
		want   error
	}{
		{"nothing", aRequest, func([]byte) []byte { return nil }, errSize},
		{"a header that is cut short", aRequest, func(b []byte) []byte { return b[:63] }, errSize},
		{"more than fits a packet", aRequest, func(b []byte) []byte { return append(b, make([]byte, MaxSize)...) }, errSize},
		{"another protocol", aRequest, set(0, 'X'), errMagic},
		{"application traffic of the sandbox", aRequest, set(2, 'S'), errMagic},
		{"kind 0", aRequest, set(4, 0), errKind},
		{"kind 3", aReply, set(4, 3), errKind},
		{"another version", aRequest, set(5, 2), errVersion},
		{"a flag that is not defined", aReply, set(6, 0x80), errVersion},
		{"a flag of the previous reply that is not defined", aReply, set(44, 1), errVersion},
		{"reserved octets in use", aRequest, set(23, 1), errReserved},
		{"the last octets of the header in use", aRequest, set(63, 1), errReserved},
		{"padding that carries something", aRequest, set(99, 1), errReserved},
		{"a request with a time", aRequest, set(31, 1), errReserved},
		{"a request with a flag", aRequest, set(7, 1), errReserved},
		{"a reply without t2", aReply, set(24, make([]byte, 8)...), errStamp},
		{"a reply without t3", aReply, set(32, make([]byte, 8)...), errStamp},
		{"a negative t2", aReply, set(24, negative...), errStamp},
		{"a negative t3", aReply, set(32, negative...), errStamp},
		{"a negative t3 of the previous reply", aReply, set(48, negative...), errStamp},
		{"a t3 of the previous reply that is said not to be there", aReply, set(44, 0, 0, 0, 0), errStamp},
		{"a t3 of the previous reply that is said to be there", aReply, set(48, make([]byte, 8)...), errStamp},
	} {
		if got, err := Decode(test.change(encoded(test.from, 100))); !errors.Is(err, test.want) {
			t.Errorf("%s: got %+v and error %v, want error %v", test.name, got, err, test.want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(encoded(aRequest, MinSize))
	f.Add(encoded(aReply, 1400))
	f.Add(encoded(Header{Kind: Reply, Session: 1, Seq: 1, T2: 1, T3: 1}, 65))
	f.Add([]byte("NLP1"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := Decode(b)
		if err != nil {
			return
		}
		// There is one encoding of each header, so a packet is either refused
		// or understood in full.
		if diff := cmp.Diff(b, encoded(h, len(b))); diff != "" {
			t.Errorf("%+v is encoded differently (-decoded +encoded):\n%s", h, diff)
		}
	})
}
