package probe

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// stampFlags asks for software stamps of both directions, without any
// privilege; hardware stamps need CAP_NET_ADMIN. The transmit stamp comes on
// the socket's error queue with the number of the packet (OPT_ID) and without
// its payload (OPT_TSONLY).
const stampFlags = unix.SOF_TIMESTAMPING_SOFTWARE |
	unix.SOF_TIMESTAMPING_TX_SOFTWARE | unix.SOF_TIMESTAMPING_RX_SOFTWARE |
	unix.SOF_TIMESTAMPING_OPT_ID | unix.SOF_TIMESTAMPING_OPT_TSONLY | unix.SOF_TIMESTAMPING_OPT_CMSG

// receiveBuffer holds what a few hundred agents send at once; the kernel's
// default is good for about 250 packets, and transmit stamps share it.
const receiveBuffer = 1 << 20

// errFull is a send buffer that is full: the network device takes less than
// is sent.
var errFull = errors.New("the send buffer of the socket is full")

// socket is one UDP socket with kernel stamps, used by system calls and not
// through the runtime's poller: that takes an event which is only an error
// (POLLERR, a transmit stamp) for a broken descriptor when the send buffer is
// full (runtime/netpoll_epoll.go, setEventErr).
type socket struct {
	fd        int // receives
	tx        int // sends, from the same address; it is fd where openSender failed
	event     int // an eventfd that ends a poll
	local     netip.AddrPort
	unstamped error // why the kernel does not stamp; nil if it does
	wildcard  bool  // bound to no address, so that replies must name theirs

	in, stamps *messages // of receive
	datagrams  [batch]datagram
	transmits  [batch]transmitStamp

	out numbering
	sender
}

// listen opens the socket on the calling thread, and so in its network
// namespace.
func listen(_ context.Context, addr netip.AddrPort) (*socket, error) {
	if !addr.IsValid() {
		return nil, errors.New("address is not valid")
	}
	domain := unix.AF_INET6
	if addr.Addr().Is4() {
		domain = unix.AF_INET
	}
	fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	s := &socket{fd: fd, tx: fd, event: -1, wildcard: addr.Addr().IsUnspecified(), in: newMessages(MaxSize + 1), stamps: newMessages(1)}
	s.sender.init()
	if err := s.setUp(domain, addr); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *socket) setUp(domain int, addr netip.AddrPort) (err error) {
	if s.event, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	// A smaller buffer than asked for only loses packets earlier.
	_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)

	var name unix.Sockaddr = &unix.SockaddrInet4{Port: int(addr.Port()), Addr: as4(addr.Addr())}
	level, option := unix.IPPROTO_IP, unix.IP_PKTINFO
	if domain == unix.AF_INET6 {
		if err := unix.SetsockoptInt(s.fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return fmt.Errorf("set IPV6_V6ONLY: %w", err)
		}
		name = &unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()}
		level, option = unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO
	}
	if s.wildcard {
		if err := unix.SetsockoptInt(s.fd, level, option, 1); err != nil {
			return fmt.Errorf("ask for the destination of packets: %w", err)
		}
	}
	// Before bind, so that no packet comes without its stamp. Once on, it
	// stays on: the kernel stamps what arrives only while some socket asks.
	if s.unstamped = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPING, stampFlags); s.unstamped != nil {
		s.unstamped = fmt.Errorf("set SO_TIMESTAMPING: %w", s.unstamped)
	}
	s.out.explicit = s.unstamped == nil
	if err := unix.Bind(s.fd, name); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	bound, err := unix.Getsockname(s.fd)
	if err != nil {
		return fmt.Errorf("getsockname: %w", err)
	}
	switch b := bound.(type) {
	case *unix.SockaddrInet4:
		s.local = netip.AddrPortFrom(netip.AddrFrom4(b.Addr), uint16(b.Port))
	case *unix.SockaddrInet6:
		s.local = netip.AddrPortFrom(netip.AddrFrom16(b.Addr), uint16(b.Port))
	}
	if s.unstamped == nil {
		if tx, err := openSender(s.fd, domain, bound); err == nil {
			s.tx = tx
		}
	}
	return nil
}

// as4 is the address if it is IPv4, else zeros.
func as4(a netip.Addr) [4]byte {
	if a.Is4() {
		return a.As4()
	}
	return [4]byte{}
}

// receive waits for packets or transmit stamps, at most for the given time,
// and hands over all packets there are, if any. It returns nil when the time
// is up or on wake.
func (s *socket) receive(wait time.Duration, handle func([]datagram, reading)) error {
	fds := [2]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}, {Fd: int32(s.event), Events: unix.POLLIN}}
	milliseconds := int(max(0, (wait+time.Millisecond-1)/time.Millisecond))
	if _, err := unix.Poll(fds[:], milliseconds); err != nil && err != unix.EINTR {
		return fmt.Errorf("poll: %w", err)
	}
	// A flood must not keep the caller from its other duties for ever.
	for range 64 {
		packets, err := s.in.receive(s.fd, 0)
		now := read()
		if err != nil {
			return err
		}
		for i := range packets {
			d := &s.datagrams[i]
			d.payload, d.truncated = s.in.payloadOf(i)
			d.from = s.in.sourceOf(i)
			d.stamp, d.to = arrivalOf(s.in.controlOf(i))
		}
		handle(s.datagrams[:packets], now)
		if packets < batch {
			break
		}
	}
	return nil
}

// transmitted reads transmit stamps that are there, without waiting; none is
// left if it returns fewer than batch. They are valid until the next call.
func (s *socket) transmitted() []transmitStamp {
	n, _ := s.stamps.receive(s.tx, unix.MSG_ERRQUEUE) // receive sees the same error
	stamps := s.transmits[:0]
	for i := range n {
		if t, ok := transmitStampOf(s.stamps.controlOf(i)); ok {
			stamps = append(stamps, t)
		}
	}
	return stamps
}

// wake ends a receive that waits.
func (s *socket) wake() {
	one := [8]byte{1}
	_, _ = unix.Write(s.event, one[:])
}

func (s *socket) close() error {
	if s.event >= 0 {
		unix.Close(s.event)
	}
	if s.tx != s.fd {
		unix.Close(s.tx)
	}
	return unix.Close(s.fd)
}

// send sends b and returns the number that its transmit stamp will have after
// number. from is the source address for a socket that is bound to none, if
// it is valid. After an error recount must be called.
func (s *socket) send(b []byte, to netip.AddrPort, from netip.Addr) (uint32, error) {
	if !s.wildcard {
		from = netip.Addr{}
	}
	id, explicit := s.out.next, s.out.explicit
	err := s.sender.sendmsg(s.tx, b, to, from, id, explicit)
	if explicit && errors.Is(err, unix.EINVAL) {
		// Kernels before 6.13 do not know the control message that gives a
		// packet its number, and refuse it before they do anything. EINVAL
		// without it too is for another reason.
		explicit = false
		if err = s.sender.sendmsg(s.tx, b, to, from, id, explicit); err == nil {
			s.out.explicit, s.out.base = false, id
		}
	}
	if errors.Is(err, unix.EAGAIN) {
		err = errFull
	}
	if err != nil {
		return 0, err
	}
	s.out.next++
	return id, nil
}

// numbering keeps the numbers of transmit stamps unique. Where the kernel
// takes them from us (SCM_TS_OPT_ID) they are simply ours. Older kernels count
// packets themselves, and some count one that then could not be sent: after
// each failure counting is started anew.
type numbering struct {
	explicit bool   // true until the kernel has refused it
	next     uint32 // the number of the next packet
	base     uint32 // next when the kernel's own count was last zero
}

// number is the number of a packet whose transmit stamp has the given id.
func (s *socket) number(id uint32) uint32 {
	if s.out.explicit {
		return id
	}
	return s.out.base + id
}

// recount sets the kernel's count to zero, which it does when OPT_ID is
// switched on. The other flags stay on, so that no stamp is missed.
func (s *socket) recount() {
	if s.unstamped != nil || s.out.explicit && s.out.next > 0 {
		return
	}
	_ = unix.SetsockoptInt(s.tx, unix.SOL_SOCKET, unix.SO_TIMESTAMPING, stampFlags&^unix.SOF_TIMESTAMPING_OPT_ID)
	_ = unix.SetsockoptInt(s.tx, unix.SOL_SOCKET, unix.SO_TIMESTAMPING, stampFlags)
	s.out.base = s.out.next
}
