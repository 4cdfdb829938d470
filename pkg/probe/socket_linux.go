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

// sockets is what one engine receives on. They are used by system calls and
// not through the runtime's poller; see waiter.
type sockets struct {
	*waiter
	all   []*socket
	fired []unix.EpollEvent // by the last wait

	in        *messages
	datagrams [batch]datagram
}

// socket is an address with kernel stamps.
type socket struct {
	fd        int            // receives
	tx        int            // sends, from the same address; it is fd where a second socket was not to be had
	local     netip.AddrPort // the port of ICMP is the identifier of echo requests
	unstamped error          // why the kernel does not stamp; nil if it does
	wildcard  bool           // bound to no address, so that replies must name theirs

	stamps    *messages // of transmitted
	transmits [batch]transmitStamp

	out numbering
	*outgoing
}

// listen opens a socket at addr, and others with the same address and ports of
// the kernel's choice, on the calling thread and so in its network namespace.
func listen(_ context.Context, over transport, addr netip.AddrPort, ports int) (*sockets, error) {
	if !addr.IsValid() {
		return nil, errors.New("address is not valid")
	}
	w, err := newWaiter(ports)
	if err != nil {
		return nil, err
	}
	s := &sockets{waiter: w, in: newMessages(packetRoom + 1)}
	for i := range ports {
		one, err := newSocket(over, addr)
		if err == nil {
			s.all = append(s.all, one)
			err = s.watch(one.fd, unix.EpollEvent{Events: once, Fd: int32(i)})
		}
		if err != nil {
			s.close()
			return nil, err
		}
		addr = netip.AddrPortFrom(addr.Addr(), 0)
	}
	return s, nil
}

// once is a wait for packets: a socket that has some is reported once, until it
// is asked for again, so that those that come while the engine rests wake
// nobody.
const once = unix.EPOLLIN | unix.EPOLLONESHOT

func newSocket(over transport, addr netip.AddrPort) (*socket, error) {
	domain := unix.AF_INET6
	if addr.Addr().Is4() {
		domain = unix.AF_INET
	}
	fd, err := openSocket(over, domain)
	if err != nil {
		return nil, err
	}
	s := &socket{fd: fd, tx: fd, wildcard: addr.Addr().IsUnspecified(), stamps: newMessages(1), outgoing: newOutgoing()}
	if err := s.setUp(over, domain, addr); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// openSocket makes a socket for packets of one family.
func openSocket(over transport, domain int) (int, error) {
	protocol := 0
	switch {
	case over == overICMP && domain == unix.AF_INET:
		protocol = unix.IPPROTO_ICMP
	case over == overICMP:
		protocol = unix.IPPROTO_ICMPV6
	}
	fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		if over == overICMP && errors.Is(err, unix.EACCES) {
			return -1, fmt.Errorf("socket: %w: the sysctl net.ipv4.ping_group_range of this network namespace, which rules IPv6 too, must include group %d; netlatency's chart sets it in the agent's pod", err, unix.Getegid())
		}
		return -1, fmt.Errorf("socket: %w", err)
	}
	if over == overUDP && domain == unix.AF_INET6 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("set IPV6_V6ONLY: %w", err)
		}
	}
	// A smaller buffer than asked for only loses packets, or stamps, earlier.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	return fd, nil
}

func (s *socket) setUp(over transport, domain int, addr netip.AddrPort) error {
	var name unix.Sockaddr = &unix.SockaddrInet4{Port: int(addr.Port()), Addr: as4(addr.Addr())}
	level, option := unix.IPPROTO_IP, unix.IP_PKTINFO
	if domain == unix.AF_INET6 {
		name = &unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()}
		level, option = unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO
	}
	if s.wildcard && over == overUDP {
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
		s.pair(over, domain, bound)
	}
	return nil
}

// pair opens the second of the two sockets if it can.
func (s *socket) pair(over transport, domain int, bound unix.Sockaddr) {
	switch over {
	case overUDP:
		if tx, err := openSender(s.fd, domain, bound); err == nil {
			s.tx = tx
		}
	case overICMP:
		if rx, err := openEchoReceiver(s.fd, domain, bound); err == nil {
			s.fd = rx
		}
	}
}

// as4 is the address if it is IPv4, else zeros.
func as4(a netip.Addr) [4]byte {
	if a.Is4() {
		return a.As4()
	}
	return [4]byte{}
}

// receive waits for packets until the deadline, hands over all that there are,
// and says how many. It returns none when the time is up or on wake.
func (s *sockets) receive(deadline time.Time, handle func(*socket, []datagram, reading)) (packets int, err error) {
	for _, e := range s.fired {
		if e.Fd == woken {
			continue
		}
		if err := s.again(s.all[e.Fd].fd, unix.EpollEvent{Events: once, Fd: e.Fd}); err != nil {
			return 0, err
		}
	}
	if s.fired, err = s.wait(deadline); err != nil {
		return 0, err
	}
	for _, e := range s.fired {
		if e.Fd == woken {
			continue
		}
		n, err := s.read(s.all[e.Fd], handle)
		if err != nil {
			return 0, err
		}
		packets += n
	}
	return packets, nil
}

func (s *sockets) read(one *socket, handle func(*socket, []datagram, reading)) (packets int, err error) {
	// A flood must not keep the caller from its other duties for ever.
	for range 64 {
		n, err := s.in.receive(one.fd, 0)
		now := read()
		if err != nil {
			return 0, err
		}
		for i := range n {
			d := &s.datagrams[i]
			d.payload, d.truncated = s.in.payloadOf(i)
			d.from = s.in.sourceOf(i)
			d.stamp, d.to = arrivalOf(s.in.controlOf(i))
		}
		handle(one, s.datagrams[:n], now)
		packets += n
		if n < batch {
			break
		}
	}
	return packets, nil
}

func (s *sockets) close() error {
	s.waiter.close()
	var err error
	for _, one := range s.all {
		err = errors.Join(err, one.close())
	}
	return err
}

func (s *socket) close() error {
	if s.tx != s.fd {
		unix.Close(s.tx)
	}
	return unix.Close(s.fd)
}

// transmitted reads transmit stamps that are there, without waiting, and says
// whether there may be more. They are valid until the next call.
func (s *socket) transmitted() (stamps []transmitStamp, more bool) {
	n, _ := s.stamps.receive(s.tx, unix.MSG_ERRQUEUE) // receiving sees the same error
	stamps = s.transmits[:0]
	for i := range n {
		if t, ok := transmitStampOf(s.stamps.controlOf(i)); ok {
			stamps = append(stamps, t)
		}
	}
	return stamps, n == batch
}

// put makes b packet i of those that send will send. from is the source address
// for a socket that is bound to none, if it is valid. b must stay as it is, and
// all packets from 0 to the last must be put before the first is sent.
func (s *socket) put(i int, b []byte, to netip.AddrPort, from netip.Addr) {
	if !s.wildcard {
		from = netip.Addr{}
	}
	s.outgoing.put(i, b, to, from, s.out.next+uint32(i))
}

// send sends packets first to end-1, or some of them, and returns how many and
// the number that the first one's transmit stamp will have after number; the
// others' follow. An error is of the first packet, and means that none was
// sent; the others can still be. After an error recount must be called.
func (s *socket) send(first, end int) (sent int, id uint32, err error) {
	sent, err = s.outgoing.send(s.tx, first, end, s.out.explicit)
	if s.out.explicit && errors.Is(err, unix.EINVAL) {
		// Kernels before 6.13 do not know the control message that gives a
		// packet its number, and refuse it before they do anything. EINVAL
		// without it too is for another reason.
		s.restart()
		if sent, err = s.outgoing.send(s.tx, first, end, false); err == nil {
			s.out.explicit, s.out.base = false, s.out.next
		}
	}
	if err != nil {
		if errors.Is(err, unix.EAGAIN) {
			err = errFull
		}
		if s.out.explicit {
			s.out.next++ // the packets after it have their numbers already
		}
		return 0, 0, err
	}
	id = s.out.next
	s.out.next += uint32(sent)
	return sent, id, nil
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

// recount sets the kernel's count to zero where it is the one that counts.
func (s *socket) recount() {
	if s.unstamped != nil || s.out.explicit {
		return
	}
	s.restart()
	s.out.base = s.out.next
}

// restart sets the kernel's count to zero, which it does when OPT_ID is
// switched on. The other flags stay on, so that no stamp is missed.
func (s *socket) restart() {
	_ = unix.SetsockoptInt(s.tx, unix.SOL_SOCKET, unix.SO_TIMESTAMPING, stampFlags&^unix.SOF_TIMESTAMPING_OPT_ID)
	_ = unix.SetsockoptInt(s.tx, unix.SOL_SOCKET, unix.SO_TIMESTAMPING, stampFlags)
}
