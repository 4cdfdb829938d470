package probe

import (
	"encoding/binary"
	"errors"
)

const (
	// MinSize is the size of the header, and with it of the smallest packet,
	// in octets of UDP payload.
	MinSize = 64
	// MaxSize is the largest packet in octets of UDP payload: what fits an
	// Ethernet frame under IPv4 (1500 less 20 less 8).
	MaxSize = 1472
)

const (
	magic   = "NLP1"
	version = 1

	// flagKernelReceive says that t2 is a stamp of the kernel.
	flagKernelReceive = 1 << 0
	// flagPreviousSent says that prevT3 is there.
	flagPreviousSent = 1 << 0
)

// Kind is what a packet is for.
type Kind uint8

const (
	// Request asks a reflector for a Reply.
	Request Kind = 1
	// Reply answers a Request, and is never answered.
	Reply Kind = 2
)

// Header is the first MinSize octets of a packet; the rest is zero padding.
// The times are unix nanoseconds on the reflector's clock. In a Request all
// that follows Seq is zero.
type Header struct {
	Kind    Kind
	Session uint64 // random, one per peer and start of the prober
	Seq     uint32 // counts from 1 in a session

	T2       int64 // when the request was received
	KernelT2 bool  // T2 is the kernel's stamp, not the reflector's user clock
	T3       int64 // the reflector's user clock just before it sent the reply

	// PrevSeq is the request of the same session that the reflector answered
	// before this one, 0 if it knows of none. PrevT3 is the kernel's transmit
	// stamp of that answer and has no meaning unless PrevSent is set.
	PrevSeq  uint32
	PrevSent bool
	PrevT3   int64
}

// What Decode refuses. They are values, because a packet of a stranger must
// not cost an allocation.
var (
	errSize     = errors.New("packet is smaller than 64 or larger than 1472 octets")
	errMagic    = errors.New("packet does not start with NLP1")
	errVersion  = errors.New("packet has an unknown version or flag")
	errKind     = errors.New("packet is neither request nor reply")
	errReserved = errors.New("packet has content where there must be zeros")
	errStamp    = errors.New("reply lacks a time of its reflector, or has an impossible one")
)

// Decode reads a whole packet. It is strict: there is one encoding of each
// Header, anything else is an error, padding that is not zero included (a
// reflector must not carry what others put there).
func Decode(b []byte) (Header, error) {
	if len(b) < MinSize || len(b) > MaxSize {
		return Header{}, errSize
	}
	if string(b[:4]) != magic {
		return Header{}, errMagic
	}
	h := Header{
		Kind:    Kind(b[4]),
		Session: binary.BigEndian.Uint64(b[8:]),
		Seq:     binary.BigEndian.Uint32(b[16:]),
		T2:      int64(binary.BigEndian.Uint64(b[24:])),
		T3:      int64(binary.BigEndian.Uint64(b[32:])),
		PrevSeq: binary.BigEndian.Uint32(b[40:]),
		PrevT3:  int64(binary.BigEndian.Uint64(b[48:])),
	}
	flags := binary.BigEndian.Uint16(b[6:])
	previous := binary.BigEndian.Uint32(b[44:])
	h.KernelT2 = flags&flagKernelReceive != 0
	h.PrevSent = previous&flagPreviousSent != 0

	if b[5] != version || flags&^flagKernelReceive != 0 || previous&^flagPreviousSent != 0 {
		return Header{}, errVersion
	}
	if binary.BigEndian.Uint32(b[20:]) != 0 || !zero(b[56:]) {
		return Header{}, errReserved
	}
	switch h.Kind {
	case Request:
		if h != (Header{Kind: Request, Session: h.Session, Seq: h.Seq}) {
			return Header{}, errReserved
		}
	case Reply:
		// Times before 1970 do not occur, and without them no difference of
		// two stamps can overflow.
		if h.T2 <= 0 || h.T3 <= 0 || h.PrevSent != (h.PrevT3 > 0) || h.PrevT3 < 0 {
			return Header{}, errStamp
		}
	default:
		return Header{}, errKind
	}
	return h, nil
}

// Encode writes h into b[:MinSize]; it panics if b is shorter. What follows
// in b is left as it is and must be zero.
func (h Header) Encode(b []byte) {
	_ = b[MinSize-1]
	var flags uint16
	var previous uint32
	if h.KernelT2 {
		flags |= flagKernelReceive
	}
	if h.PrevSent {
		previous |= flagPreviousSent
	}
	copy(b, magic)
	b[4], b[5] = byte(h.Kind), version
	binary.BigEndian.PutUint16(b[6:], flags)
	binary.BigEndian.PutUint64(b[8:], h.Session)
	binary.BigEndian.PutUint32(b[16:], h.Seq)
	binary.BigEndian.PutUint32(b[20:], 0)
	binary.BigEndian.PutUint64(b[24:], uint64(h.T2))
	binary.BigEndian.PutUint64(b[32:], uint64(h.T3))
	binary.BigEndian.PutUint32(b[40:], h.PrevSeq)
	binary.BigEndian.PutUint32(b[44:], previous)
	binary.BigEndian.PutUint64(b[48:], uint64(h.PrevT3))
	binary.BigEndian.PutUint64(b[56:], 0)
}

func zero(b []byte) bool {
	for _, octet := range b {
		if octet != 0 {
			return false
		}
	}
	return true
}
