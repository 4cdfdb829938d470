//go:build !linux

package probe

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"
	"time"
)

// sockets is one UDP socket without kernel stamps, for development on systems
// that agents do not run on.
type sockets struct {
	all       []*socket
	woken     atomic.Bool
	buffer    [packetRoom + 1]byte
	datagrams [1]datagram
}

type socket struct {
	conn      *net.UDPConn
	local     netip.AddrPort
	unstamped error
	out       [batch]struct {
		b  []byte
		to netip.AddrPort
	}
}

func listen(ctx context.Context, over transport, addr netip.AddrPort, _ int) (*sockets, error) {
	if over == overICMP {
		return nil, errors.New("ICMP is implemented for Linux only, this is " + runtime.GOOS)
	}
	network := "udp6"
	if addr.Addr().Is4() {
		network = "udp4"
	}
	conn, err := new(net.ListenConfig).ListenPacket(ctx, network, addr.String())
	if err != nil {
		return nil, err
	}
	udp := conn.(*net.UDPConn)
	return &sockets{all: []*socket{{
		conn:      udp,
		local:     key(udp.LocalAddr().(*net.UDPAddr).AddrPort()),
		unstamped: errors.New("kernel stamps are implemented for Linux only"),
	}}}, nil
}

func (s *sockets) receive(deadline time.Time, handle func(*socket, []datagram, reading)) (int, error) {
	conn := s.all[0].conn
	if err := conn.SetReadDeadline(deadline); err != nil {
		return 0, err
	}
	if s.woken.Load() {
		return 0, nil
	}
	n, from, err := conn.ReadFromUDPAddrPort(s.buffer[:])
	now := read()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	s.datagrams[0] = datagram{payload: s.buffer[:n], from: key(from)}
	handle(s.all[0], s.datagrams[:], now)
	return 1, nil
}

func (s *sockets) wake() {
	s.woken.Store(true)
	_ = s.all[0].conn.SetReadDeadline(time.Now())
}

func (s *sockets) close() error { return s.all[0].conn.Close() }

func (s *socket) put(i int, b []byte, to netip.AddrPort, _ netip.Addr) {
	s.out[i].b, s.out[i].to = b, to
}

func (s *socket) send(first, _ int) (int, uint32, error) {
	if _, err := s.conn.WriteToUDPAddrPort(s.out[first].b, s.out[first].to); err != nil {
		return 0, 0, err
	}
	return 1, 0, nil
}

func (s *socket) transmitted() ([]transmitStamp, bool) { return nil, false }

func (s *socket) recount() {}

func (s *socket) number(id uint32) uint32 { return id }
