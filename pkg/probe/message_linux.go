package probe

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// controlSize holds a stamp (64 octets), an extended error with its address
// (16+16+28) and packet information (40), with room to spare.
const controlSize = 256

// messages is what recvmmsg(2) fills, made once.
type messages struct {
	headers  [batch]messageHeader
	vectors  [batch]unix.Iovec
	names    [batch]unix.RawSockaddrInet6
	controls [batch][controlSize]byte
	payloads [batch][]byte
}

// messageHeader is struct mmsghdr.
type messageHeader struct {
	unix.Msghdr
	length uint32
}

func newMessages(size int) *messages {
	m := new(messages)
	for i := range m.headers {
		m.payloads[i] = make([]byte, size)
		m.vectors[i].Base = &m.payloads[i][0]
		m.vectors[i].SetLen(size)
		h := &m.headers[i]
		h.Name = (*byte)(unsafe.Pointer(&m.names[i]))
		h.Iov = &m.vectors[i]
		h.SetIovlen(1)
		h.Control = &m.controls[i][0]
	}
	return m
}

// receive reads what is there, without waiting, and says how many. An error
// means that the descriptor is of no use any more.
func (m *messages) receive(fd, flags int) (int, error) {
	for i := range m.headers {
		m.headers[i].Namelen = unix.SizeofSockaddrInet6
		m.headers[i].SetControllen(controlSize)
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&m.headers[0])), batch, uintptr(flags|unix.MSG_DONTWAIT), 0, 0)
	switch errno {
	case 0:
		return int(n), nil
	case unix.EBADF, unix.ENOTSOCK, unix.EFAULT, unix.EINVAL, unix.EOPNOTSUPP, unix.ENOSYS:
		return 0, fmt.Errorf("recvmmsg: %w", errno)
	}
	// Nothing there, or an error of the network that reading has cleared.
	return 0, nil
}

func (m *messages) payloadOf(i int) (b []byte, truncated bool) {
	h := &m.headers[i]
	return m.payloads[i][:h.length], h.Flags&unix.MSG_TRUNC != 0
}

func (m *messages) controlOf(i int) []byte {
	return m.controls[i][:m.headers[i].Controllen]
}

// sourceOf is the address that a packet came from, without a zone: link-local
// addresses are not probed.
func (m *messages) sourceOf(i int) netip.AddrPort {
	name := &m.names[i]
	switch name.Family {
	case unix.AF_INET:
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), networkOrder(v4.Port))
	case unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16(name.Addr), networkOrder(name.Port))
	}
	return netip.AddrPort{}
}

// putName writes a socket address and returns its length.
func putName(name *unix.RawSockaddrInet6, addr netip.AddrPort) uint32 {
	if addr.Addr().Is4() {
		*(*unix.RawSockaddrInet4)(unsafe.Pointer(name)) = unix.RawSockaddrInet4{
			Family: unix.AF_INET, Port: networkOrder(addr.Port()), Addr: addr.Addr().As4(),
		}
		return unix.SizeofSockaddrInet4
	}
	*name = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: networkOrder(addr.Port()), Addr: addr.Addr().As16()}
	return unix.SizeofSockaddrInet6
}

// networkOrder turns a port as the kernel has it in memory into a number, and
// back.
func networkOrder(port uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], port)
	return binary.BigEndian.Uint16(b[:])
}

// arrivalOf reads the kernel's receive stamp, 0 if there is none, and the
// local address, if it is there, of a packet that was received.
func arrivalOf(control []byte) (stamp int64, to netip.Addr) {
	for len(control) > 0 {
		h, data, rest, err := unix.ParseOneSocketControlMessage(control)
		if err != nil {
			break
		}
		control = rest
		switch {
		case h.Level == unix.SOL_SOCKET && h.Type == unix.SCM_TIMESTAMPING:
			stamp = softwareStamp(data)
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			to = netip.AddrFrom4((*unix.Inet4Pktinfo)(unsafe.Pointer(&data[0])).Spec_dst)
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			to = netip.AddrFrom16((*unix.Inet6Pktinfo)(unsafe.Pointer(&data[0])).Addr)
		}
	}
	return stamp, to
}

// transmitStampOf reads a message of the error queue. ok is false for an error
// that is not a transmit stamp.
func transmitStampOf(control []byte) (t transmitStamp, ok bool) {
	for len(control) > 0 {
		h, data, rest, err := unix.ParseOneSocketControlMessage(control)
		if err != nil {
			break
		}
		control = rest
		switch {
		case h.Level == unix.SOL_SOCKET && h.Type == unix.SCM_TIMESTAMPING:
			t.stamp = softwareStamp(data)
		case (h.Level == unix.IPPROTO_IP && h.Type == unix.IP_RECVERR || h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_RECVERR) &&
			len(data) >= int(unsafe.Sizeof(unix.SockExtendedErr{})):
			e := (*unix.SockExtendedErr)(unsafe.Pointer(&data[0]))
			t.id = e.Data
			ok = e.Origin == unix.SO_EE_ORIGIN_TIMESTAMPING && e.Info == unix.SCM_TSTAMP_SND
		}
	}
	return t, ok && t.stamp != 0
}

// softwareStamp is the first of the three stamps in a control message.
func softwareStamp(data []byte) int64 {
	if len(data) < int(unsafe.Sizeof(unix.ScmTimestamping{})) {
		return 0
	}
	return (*unix.ScmTimestamping)(unsafe.Pointer(&data[0])).Ts[0].Nano()
}

// appendNumber appends the control message that gives a packet the number of
// its transmit stamp.
func appendNumber(control []byte, id uint32) []byte {
	control, data := appendControl(control, unix.SOL_SOCKET, unix.SCM_TS_OPT_ID, 4)
	binary.NativeEndian.PutUint32(data, id)
	return control
}

// appendSource appends the control message that chooses the source address.
func appendSource(control []byte, from netip.Addr) []byte {
	if from.Is4() {
		control, data := appendControl(control, unix.IPPROTO_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
		(*unix.Inet4Pktinfo)(unsafe.Pointer(&data[0])).Spec_dst = from.As4()
		return control
	}
	control, data := appendControl(control, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
	(*unix.Inet6Pktinfo)(unsafe.Pointer(&data[0])).Addr = from.As16()
	return control
}

// appendControl appends an empty control message within the capacity of
// control and returns it with its data.
func appendControl(control []byte, level, kind int32, size int) (all, data []byte) {
	start := len(control)
	all = control[:start+unix.CmsgSpace(size)]
	clear(all[start:])
	h := (*unix.Cmsghdr)(unsafe.Pointer(&all[start]))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(size))
	data = all[start+unix.CmsgLen(0):]
	return all, data[:size]
}
