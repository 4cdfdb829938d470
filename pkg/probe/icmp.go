package probe

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// ICMPOptions configures an ICMP.
type ICMPOptions struct {
	// Timeout is when a packet without an answer is lost; it must be positive.
	Timeout time.Duration
	// Outcome is as that of UDPOptions.
	Outcome func(Outcome)
}

// ICMP probes peers with echo requests, which their kernels answer: nothing
// needs to run there. Make it with ListenICMP. All peers share one socket,
// which needs no privilege (SOCK_DGRAM) where the sysctl
// net.ipv4.ping_group_range, which is of both families, includes the group of
// the process.
//
// A peer is an address; the port of Probe.Peer means nothing and may be 0. It
// stays as it is in the Outcome, so that one name of a peer serves all
// methods. Probe.Size is the octets after the 8 of the ICMP header: the same
// size makes as long an IP packet as with UDP.
//
// The error messages of routers (ICMP's own) are no answers, and a socket like
// this one is not told of them: the packet is lost at the timeout.
type ICMP struct {
	*engine
}

// ListenICMP opens the socket at addr, whose family is the only one that can
// be probed. It may be unspecified. ctx carries the logger and is not kept. The
// ICMP must be ended, by the context of Run or by Close.
func ListenICMP(ctx context.Context, addr netip.Addr, options ICMPOptions) (*ICMP, error) {
	if options.Timeout <= 0 {
		return nil, fmt.Errorf("probe from %v: timeout is %v: want a positive one", addr, options.Timeout)
	}
	s, err := listen(ctx, overICMP, netip.AddrPortFrom(addr.Unmap(), 0), 1)
	if err != nil {
		return nil, fmt.Errorf("open ICMP socket for probes at %v: %w", addr, err)
	}
	c := new(ICMP)
	c.engine = newEngine(ctx, s, newProber(options.Timeout, 0, true), c, options.Outcome)
	return c, nil
}

func (c *ICMP) check(p Probe) error {
	return cmp.Or(p.checkSize(), p.checkPeer(c.local.Addr()))
}

func (c *ICMP) request(b *[packetRoom]byte, k *packet) []byte {
	encodeEcho(b[:], c.local.Addr().Is6(), Header{Kind: Request, Session: k.session.id, Seq: k.seq})
	return b[:echoHeader+k.Size]
}

func (c *ICMP) received(_ *port, d *datagram, now reading) {
	h, err := decodeEcho(d.payload, c.local.Addr().Is6(), c.local.Port())
	if err != nil || d.truncated {
		c.prober.counters.Ignored[Malformed]++
		return
	}
	c.prober.reply(d.from, h, len(d.payload)-echoHeader, d.stamp, now)
}

func (c *ICMP) flush(*port) {}

// echoHeader is the size of the header of an echo request or reply: type,
// code, checksum, identifier, sequence number (RFC 792, RFC 4443 section 4).
const echoHeader = 8

const (
	echoRequest4, echoReply4 = 8, 0
	echoRequest6, echoReply6 = 128, 129
)

// encodeEcho writes an echo request with h as its data. The kernel sets the
// identifier, which is the port that the socket is bound to, and the checksum.
func encodeEcho(b []byte, v6 bool, h Header) {
	clear(b[:echoHeader])
	b[0] = echoRequest4
	if v6 {
		b[0] = echoRequest6
	}
	binary.BigEndian.PutUint16(b[6:], uint16(h.Seq))
	h.Encode(b[echoHeader:])
}

var errEcho = errors.New("packet is not the echo of one of ours")

// decodeEcho reads an echo reply, whose data must be a request of ours as it
// was sent.
func decodeEcho(b []byte, v6 bool, identifier uint16) (Header, error) {
	if len(b) < echoHeader {
		return Header{}, errSize
	}
	kind := byte(echoReply4)
	if v6 {
		kind = echoReply6
	}
	h, err := Decode(b[echoHeader:])
	switch {
	case err != nil:
		return Header{}, err
	case b[0] != kind, b[1] != 0, h.Kind != Request,
		binary.BigEndian.Uint16(b[4:]) != identifier,
		binary.BigEndian.Uint16(b[6:]) != uint16(h.Seq):
		return Header{}, errEcho
	}
	return h, nil
}
