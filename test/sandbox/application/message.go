package application

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A message is messageSize bytes, of which the first 20 are its tag: magic,
// type, version, two bytes of zero, the session and the sequence number, big
// endian. The WAN's log reads the same 20 bytes of probe packets.
const (
	magic       = "NLS1"
	messageSize = 256

	typeRequest = 1
	typeReply   = 2
	version     = 1
)

type message struct {
	kind    byte
	session uint64
	seq     uint32
}

func (m message) encode(b []byte) {
	clear(b[:messageSize])
	copy(b, magic)
	b[4], b[5] = m.kind, version
	binary.BigEndian.PutUint64(b[8:], m.session)
	binary.BigEndian.PutUint32(b[16:], m.seq)
}

var errNotAMessage = errors.New("not a message of the sandbox's applications")

func decode(b []byte) (message, error) {
	if len(b) < messageSize || string(b[:4]) != magic || b[5] != version || (b[4] != typeRequest && b[4] != typeReply) {
		return message{}, errNotAMessage
	}
	return message{b[4], binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint32(b[16:])}, nil
}

// read reads one message of the wanted kind into buffer, which is messageSize
// long.
func read(r io.Reader, buffer []byte, kind byte) (message, error) {
	if _, err := io.ReadFull(r, buffer); err != nil {
		return message{}, err
	}
	m, err := decode(buffer)
	if err == nil && m.kind != kind {
		err = fmt.Errorf("type %d: %w", m.kind, errNotAMessage)
	}
	return m, err
}
