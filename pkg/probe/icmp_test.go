package probe

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// echoOf is what a kernel makes of an echo request of ours.
func echoOf(h Header, size int, v6 bool, identifier uint16) []byte {
	b := make([]byte, echoHeader+size)
	encodeEcho(b, v6, h)
	if b[0] = echoReply4; v6 {
		b[0] = echoReply6
	}
	binary.BigEndian.PutUint16(b[4:], identifier)
	return b
}

func TestEchoRequestsHaveTheTypeOfTheirFamilyAndTheNumberOfTheirData(t *testing.T) {
	for _, test := range []struct {
		v6   bool
		kind byte
	}{{false, 8}, {true, 128}} {
		b := make([]byte, echoHeader+MinSize)
		b[1], b[4] = 1, 1 // what was there before
		encodeEcho(b, test.v6, Header{Kind: Request, Session: 1, Seq: 0x12345})
		if diff := cmp.Diff([]byte{test.kind, 0, 0, 0, 0, 0, 0x23, 0x45, 'N', 'L', 'P', '1'}, b[:12]); diff != "" {
			t.Errorf("IPv6 %v (-want +got):\n%s", test.v6, diff)
		}
	}
}

func TestDecodeEchoReturnsWhatWasEncoded(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for _, size := range []int{MinSize, 1400, MaxSize} {
			got, err := decodeEcho(echoOf(aRequest, size, v6, 77), v6, 77)
			if diff := cmp.Diff(aRequest, got); err != nil || diff != "" {
				t.Errorf("IPv6 %v, %d octets: error %v (-want +got):\n%s", v6, size, err, diff)
			}
		}
	}
}

func TestDecodeEchoRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		b    []byte
		want error
	}{
		"nothing":               {nil, errSize},
		"half a header":         {make([]byte, 4), errSize},
		"an echo without data":  {make([]byte, echoHeader), errSize},
		"data of another":       {make([]byte, echoHeader+MinSize), errMagic},
		"a reply of ours":       {echoOf(aReply, MinSize, false, 77), errEcho},
		"another identifier":    {echoOf(aRequest, MinSize, false, 78), errEcho},
		"of the other family":   {echoOf(aRequest, MinSize, true, 77), errEcho},
		"more than was sent":    {echoOf(aRequest, MaxSize+1, false, 77), errSize},
		"a code that is not 0":  {append([]byte{0, 1}, echoOf(aRequest, MinSize, false, 77)[2:]...), errEcho},
		"a number of its own":   {append([]byte{0, 0, 0, 0, 0, 77, 9, 9}, encoded(aRequest, MinSize)...), errEcho},
		"a router's complaint":  {append([]byte{3, 1, 0, 0, 0, 77, 0, 7}, encoded(aRequest, MinSize)...), errEcho},
		"data that was changed": {append(echoOf(aRequest, MinSize, false, 77), 1), errReserved},
	} {
		if got, err := decodeEcho(test.b, false, 77); !errors.Is(err, test.want) {
			t.Errorf("%s: got %+v and error %v, want error %v", name, got, err, test.want)
		}
	}
}

func FuzzDecodeEcho(f *testing.F) {
	f.Add(echoOf(aRequest, MinSize, false, 77), false, uint16(77))
	f.Add(echoOf(aRequest, 1400, true, 1), true, uint16(1))
	f.Add(echoOf(aReply, MinSize, true, 1), true, uint16(1))
	f.Add([]byte{}, false, uint16(0))
	f.Fuzz(func(t *testing.T, b []byte, v6 bool, identifier uint16) {
		h, err := decodeEcho(b, v6, identifier)
		if err != nil {
			return
		}
		// The checksum is the kernel's to judge; all else is as it was sent.
		want := echoOf(h, len(b)-echoHeader, v6, identifier)
		copy(want[2:4], b[2:4])
		if diff := cmp.Diff(b, want); diff != "" {
			t.Errorf("%+v is encoded differently (-decoded +encoded):\n%s", h, diff)
		}
	})
}
