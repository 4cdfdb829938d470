package wan

import (
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// frameOf builds an Ethernet frame with an IPv4 packet around a payload.
func frameOf(protocol byte, payload []byte, change ...func(frame []byte)) []byte {
	transport := make([]byte, 8)
	if protocol == protocolTCP {
		transport = make([]byte, 32) // with 12 bytes of options, as Linux sends
		transport[12] = 8 << 4
	}
	frame := make([]byte, ethernetHeader+20, 128)
	binary.BigEndian.PutUint16(frame[12:], 0x0800)
	frame[14] = 0x45
	binary.BigEndian.PutUint16(frame[16:], uint16(20+len(transport)+len(payload)))
	frame[23] = protocol
	copy(frame[30:], []byte{10, 250, 0, 2})
	frame = append(append(frame, transport...), payload...)
	for _, c := range change {
		c(frame)
	}
	return frame
}

func payloadOf(magic string, kind byte) []byte {
	payload := make([]byte, 64)
	copy(payload, magic)
	payload[4], payload[5] = kind, 1
	binary.BigEndian.PutUint64(payload[8:], 0x0102030405060708)
	binary.BigEndian.PutUint32(payload[16:], 99)
	return payload
}

func TestIdentify(t *testing.T) {
	is := func(kind uint8, reply bool) *identity {
		return &identity{kind: kind, reply: reply, session: 0x0102030405060708, seq: 99}
	}
	set := func(at int, value byte) func([]byte) { return func(frame []byte) { frame[at] = value } }
	tests := []struct {
		name  string
		frame []byte
		want  *identity
	}{
		{"a probe's request", frameOf(protocolUDP, payloadOf("NLP1", 1)), is(KindProbe, false)},
		{"a probe's reply", frameOf(protocolUDP, payloadOf("NLP1", 2)), is(KindProbe, true)},
		{"an application's request over TCP", frameOf(protocolTCP, payloadOf("NLS1", 1)), is(KindApplication, false)},
		{"an application's reply over UDP", frameOf(protocolUDP, payloadOf("NLS1", 2)), is(KindApplication, true)},
		{"the shortest identity", frameOf(protocolUDP, payloadOf("NLP1", 1)[:20]), is(KindProbe, false)},
		{"one that is cut short", frameOf(protocolUDP, payloadOf("NLP1", 1)[:19]), nil},
		{"a probe's magic in a TCP stream", frameOf(protocolTCP, payloadOf("NLP1", 1)), nil},
		{"another magic", frameOf(protocolUDP, payloadOf("NLP2", 1)), nil},
		{"another type", frameOf(protocolUDP, payloadOf("NLP1", 3)), nil},
		{"another version", frameOf(protocolUDP, payloadOf("NLP1", 1), set(ethernetHeader+28+5, 2)), nil},
		{"another protocol", frameOf(1, payloadOf("NLP1", 1)), nil},
		{"a later fragment", frameOf(protocolUDP, payloadOf("NLP1", 1), set(ethernetHeader+7, 8)), nil},
		{"a TCP segment without data", frameOf(protocolTCP, nil), nil},
		{"a TCP header longer than the segment", frameOf(protocolTCP, nil, set(ethernetHeader+20+12, 15<<4)), nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			to, length, ok := destination(test.frame)
			if !ok || to != [4]byte{10, 250, 0, 2} || int(length) != len(test.frame)-ethernetHeader {
				t.Fatalf("destination %v, length %d, %v", to, length, ok)
			}
			var got *identity
			if id, ok := identify(test.frame); ok {
				got = &id
			}
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(identity{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestDestinationIsOfIPv4Only(t *testing.T) {
	tests := map[string]func([]byte){
		"ARP":                         func(frame []byte) { frame[13] = 0x06 },
		"version 6 under version 4's": func(frame []byte) { frame[14] = 0x65 },
	}
	for name, change := range tests {
		if to, _, ok := destination(frameOf(protocolUDP, nil, change)); ok {
			t.Errorf("%s: destination %v", name, to)
		}
	}
}

func FuzzIdentify(f *testing.F) {
	f.Add(frameOf(protocolUDP, payloadOf("NLP1", 1)))
	f.Add(frameOf(protocolTCP, payloadOf("NLS1", 2)))
	f.Add(frameOf(protocolTCP, nil))
	f.Add(frameOf(protocolUDP, nil, func(frame []byte) { frame[14] = 0x4f }))
	f.Fuzz(func(t *testing.T, frame []byte) {
		if _, _, ok := destination(frame); !ok {
			return
		}
		id, ok := identify(frame)
		if ok && id.kind != KindProbe && id.kind != KindApplication {
			t.Errorf("identified as of kind %d", id.kind)
		}
		if !ok && id != (identity{}) {
			t.Errorf("not identified, but %+v", id)
		}
	})
}
