package probe

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// connector makes connections without waiting for them. Through package net
// each probe would cost a goroutine and two registrations with the runtime's
// poller.
type connector struct {
	*waiter
	domain int
	local  unix.Sockaddr // nil if the kernel is to choose
	ended  []connectID   // of wait
}

func openConnector(local netip.Addr, limit int) (*connector, error) {
	c := new(connector)
	switch {
	case !local.IsValid():
		return nil, errors.New("address is not valid")
	case local.Is4():
		c.domain = unix.AF_INET
	default:
		c.domain = unix.AF_INET6
	}
	if !local.IsUnspecified() {
		c.local = socketAddress(netip.AddrPortFrom(local, 0))
	}
	// An address that is not this host's is an error now, not of every probe.
	fd, err := c.socket()
	if err != nil {
		return nil, err
	}
	unix.Close(fd)
	c.waiter, err = newWaiter(limit)
	return c, err
}

// socket makes a socket that is ready to connect.
func (c *connector) socket() (int, error) {
	fd, err := unix.Socket(c.domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	if err := c.prepare(fd); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (c *connector) prepare(fd int) error {
	// A close is a RST: see hangUp.
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return fmt.Errorf("set SO_LINGER: %w", err)
	}
	if c.local == nil {
		return nil
	}
	// The port is chosen when the peer is known, so that one port may serve
	// for several peers. Without it there are fewer ports.
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	if err := unix.Bind(fd, c.local); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	return nil
}

// start begins a connect and says when it did. wait tells when it has ended;
// hangUp must be called in the end.
func (c *connector) start(to netip.AddrPort, id connectID) (fd int, sent time.Time, err error) {
	if fd, err = c.socket(); err != nil {
		return -1, time.Time{}, err
	}
	sent = time.Now()
	if err = unix.Connect(fd, socketAddress(to)); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		unix.Close(fd)
		return -1, time.Time{}, fmt.Errorf("connect: %w", err)
	}
	// Only now: epoll takes a socket that has not begun to connect for one
	// whose connection has ended.
	if err = c.watch(fd, unix.EpollEvent{Events: unix.EPOLLOUT, Fd: int32(id.slot), Pad: int32(id.seq)}); err != nil {
		unix.Close(fd)
		return -1, time.Time{}, err
	}
	return fd, sent, nil
}

// wait waits for connects to end until the deadline, and returns all that have;
// they are valid until the next wait. It returns none when the time is up or on
// wake.
func (c *connector) wait(deadline time.Time) ([]connectID, error) {
	events, err := c.waiter.wait(deadline)
	c.ended = c.ended[:0]
	for _, e := range events {
		if e.Fd != woken {
			c.ended = append(c.ended, connectID{int(e.Fd), uint32(e.Pad)})
		}
	}
	return c.ended, err
}

// handshake asks the kernel about a connect that has ended.
func (c *connector) handshake(fd int) handshake {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return handshake{} // not measured, then
	}
	h := handshake{rtt: time.Duration(info.Rtt) * time.Microsecond, retransmitted: info.Total_retrans > 0}
	if code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); err == nil && code != 0 {
		h.refused = unix.Errno(code) == unix.ECONNREFUSED
		h.failed = !h.refused
	}
	return h
}

// hangUp ends a connect in whatever state it is. An established connection is
// ended by a FIN, which is what the peer's process gets to see, and a RST
// behind it, which removes all that the kernels know of it. One that is not
// established is ended by silence.
func (c *connector) hangUp(fd int) {
	_ = unix.Shutdown(fd, unix.SHUT_WR) // ENOTCONN if it is not
	unix.Close(fd)
}

func socketAddress(addr netip.AddrPort) unix.Sockaddr {
	if addr.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()}
}
