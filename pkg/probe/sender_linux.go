package probe

import (
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// openSender makes a second socket with the address of rx, for sending.
//
// The reason is accuracy. A transmit stamp wakes whoever waits for its socket,
// even one that waits for packets only (POLLERR cannot be masked), and the
// kernel does that between taking the stamp and passing the packet on: what it
// costs to wake another CPU is then in the round trip. Nobody waits for the
// second socket; its stamps are read when a packet arrives that needs them.
//
// rx was bound alone, so that a port in use is still an error. Then the two
// become a group (SO_REUSEPORT) with a filter that gives all that arrives to
// its first member, which is rx.
func openSender(rx, domain int, addr unix.Sockaddr) (tx int, err error) {
	tx, err = unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	defer func() {
		if err != nil {
			unix.Close(tx)
			_ = unix.SetsockoptInt(rx, unix.SOL_SOCKET, unix.SO_REUSEPORT, 0)
		}
	}()
	if domain == unix.AF_INET6 {
		if err := unix.SetsockoptInt(tx, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return -1, err
		}
	}
	// Stamps wait in the receive buffer.
	_ = unix.SetsockoptInt(tx, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	if err := unix.SetsockoptInt(tx, unix.SOL_SOCKET, unix.SO_TIMESTAMPING, stampFlags); err != nil {
		return -1, err
	}
	for _, fd := range []int{rx, tx} {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return -1, err
		}
	}
	if err := unix.Bind(tx, addr); err != nil {
		return -1, err
	}
	first := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0}
	if err := unix.SetsockoptSockFprog(rx, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, &unix.SockFprog{Len: 1, Filter: &first}); err != nil {
		return -1, err
	}
	// What came before the filter would take the place of stamps for ever.
	for {
		if _, _, err := unix.Recvfrom(tx, nil, unix.MSG_DONTWAIT); err != nil {
			return tx, nil
		}
	}
}

// sender holds what sendmsg needs, so that nothing is allocated.
type sender struct {
	header  unix.Msghdr
	vector  unix.Iovec
	control [128]byte             // before name, to be aligned
	name    unix.RawSockaddrInet6 // also holds the smaller RawSockaddrInet4
}

func (s *sender) init() {
	s.header = unix.Msghdr{Name: (*byte)(unsafe.Pointer(&s.name)), Iov: &s.vector}
	s.header.SetIovlen(1)
}

func (s *sender) sendmsg(fd int, b []byte, to netip.AddrPort, from netip.Addr, id uint32, explicit bool) error {
	s.header.Namelen = putName(&s.name, to)
	s.vector.Base = &b[0]
	s.vector.SetLen(len(b))
	control := s.control[:0]
	if from.IsValid() {
		control = appendSource(control, from)
	}
	if explicit {
		control = appendNumber(control, id)
	}
	s.header.Control = nil
	if len(control) > 0 {
		s.header.Control = &s.control[0]
	}
	s.header.SetControllen(len(control))
	_, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&s.header)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	s.vector.Base = nil
	if errno != 0 {
		return errno
	}
	return nil
}
