package wan

import "encoding/binary"

// Kind says whose packet a Record is about.
const (
	KindProbe       uint8 = 1 // magic "NLP1" in a UDP payload
	KindApplication uint8 = 2 // magic "NLS1" in a UDP or TCP payload
)

// identity is what the log needs to know a packet again, from the first 20
// bytes of its payload: magic, type (1 request, 2 reply), version, flags,
// session, sequence number.
type identity struct {
	kind    uint8
	reply   bool
	session uint64
	seq     uint32
}

const (
	magicProbe       = 0x4e4c5031 // "NLP1"
	magicApplication = 0x4e4c5331 // "NLS1"
)

const (
	ethernetHeader = 14
	protocolICMP   = 1
	protocolTCP    = 6
	protocolUDP    = 17
)

// destination is the IPv4 destination of an Ethernet frame and the packet's
// total length; ok is false for anything else.
func destination(frame []byte) (to [4]byte, length uint16, ok bool) {
	if len(frame) < ethernetHeader+20 || binary.BigEndian.Uint16(frame[12:]) != 0x0800 || frame[14]>>4 != 4 {
		return to, 0, false
	}
	return [4]byte(frame[30:34]), binary.BigEndian.Uint16(frame[16:]), true
}

// identify finds the identity in a frame for which destination was ok. It is
// false for every packet that is none of the sandbox's own, among them all but
// the first fragment of one.
func identify(frame []byte) (id identity, ok bool) {
	ip := frame[ethernetHeader:]
	header := int(ip[0]&0x0f) * 4
	const fragmentOffset = 0x1fff
	if header < 20 || binary.BigEndian.Uint16(ip[6:])&fragmentOffset != 0 || len(ip) < header+20 {
		return id, false
	}
	segment := ip[header:]
	var payload []byte
	switch ip[9] {
	case protocolUDP:
		payload = segment[8:]
	case protocolTCP:
		offset := int(segment[12]>>4) * 4
		if offset < 20 || len(segment) < offset {
			return id, false
		}
		payload = segment[offset:]
	}
	const version = 1
	if len(payload) < 20 || payload[5] != version {
		return id, false
	}
	switch magic := binary.BigEndian.Uint32(payload); {
	case magic == magicProbe && ip[9] == protocolUDP:
		id.kind = KindProbe
	case magic == magicApplication:
		id.kind = KindApplication
	default:
		return identity{}, false
	}
	const request, reply = 1, 2
	if payload[4] != request && payload[4] != reply {
		return identity{}, false
	}
	id.reply = payload[4] == reply
	id.session = binary.BigEndian.Uint64(payload[8:])
	id.seq = binary.BigEndian.Uint32(payload[16:])
	return id, true
}
