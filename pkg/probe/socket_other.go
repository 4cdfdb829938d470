//go:build !linux

package probe

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"
)

// socket is a UDP socket without kernel stamps, for development on systems
// that agents do not run on.
type socket struct {
	conn      *net.UDPConn
	local     netip.AddrPort
	unstamped error
	woken     atomic.Bool
	buffer    [MaxSize + 1]byte
	datagrams [1]datagram
}

func listen(ctx context.Context, addr netip.AddrPort) (*socket, error) {
	network := "udp6"
	if addr.Addr().Is4() {
		network = "udp4"
	}
	conn, err := new(net.ListenConfig).ListenPacket(ctx, network, addr.String())
	if err != nil {
		return nil, err
	}
	udp := conn.(*net.UDPConn)
	return &socket{
		conn:      udp,
		local:     key(udp.LocalAddr().(*net.UDPAddr).AddrPort()),
		unstamped: errors.New("kernel stamps are implemented for Linux only"),
	}, nil
}

func (s *socket) receive(wait time.Duration, handle func([]datagram, reading)) error {
	if err := s.conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return err
	}
	if s.woken.Load() {
		return nil
	}
	n, from, err := s.conn.ReadFromUDPAddrPort(s.buffer[:])
	now := read()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	if err != nil {
		return err
	}
	s.datagrams[0] = datagram{payload: s.buffer[:n], from: key(from)}
	handle(s.datagrams[:], now)
	return nil
}

func (s *socket) wake() {
	s.woken.Store(true)
	_ = s.conn.SetReadDeadline(time.Now())
}

func (s *socket) close() error { return s.conn.Close() }

func (s *socket) send(b []byte, to netip.AddrPort, _ netip.Addr) (uint32, error) {
	_, err := s.conn.WriteToUDPAddrPort(b, to)
	return 0, err
}

func (s *socket) transmitted() []transmitStamp { return nil }

func (s *socket) recount() {}

func (s *socket) number(id uint32) uint32 { return id }
