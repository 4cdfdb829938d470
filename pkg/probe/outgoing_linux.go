package probe

import (
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// outgoing is what sendmmsg(2) sends, made once.
type outgoing struct {
	headers  [batch]messageHeader
	vectors  [batch]unix.Iovec
	names    [batch]unix.RawSockaddrInet6 // they also hold the smaller RawSockaddrInet4
	controls [batch]outgoingControl
}

// outgoingControl has room for the source address and the number of a packet.
type outgoingControl struct {
	_        [0]uint64 // aligns octets
	octets   [96]byte
	plain    int // octets in use without the number of the transmit stamp
	numbered int // and with it
}

func newOutgoing() *outgoing {
	o := new(outgoing)
	for i := range o.headers {
		h := &o.headers[i]
		h.Name = (*byte)(unsafe.Pointer(&o.names[i]))
		h.Iov = &o.vectors[i]
		h.SetIovlen(1)
	}
	return o
}

// put makes b packet i. from is its source address, if valid, and id the
// number that its transmit stamp is to have.
func (o *outgoing) put(i int, b []byte, to netip.AddrPort, from netip.Addr, id uint32) {
	o.headers[i].Namelen = putName(&o.names[i], to)
	o.vectors[i].Base = &b[0]
	o.vectors[i].SetLen(len(b))
	c := &o.controls[i]
	control := c.octets[:0]
	if from.IsValid() {
		control = appendSource(control, from)
	}
	c.plain = len(control)
	c.numbered = len(appendNumber(control, id))
}

// send sends packets first to end-1, with their numbers or without, and says
// how many. An error is the first packet's.
func (o *outgoing) send(fd, first, end int, explicit bool) (int, error) {
	for i := first; i < end; i++ {
		c := &o.controls[i]
		n := c.plain
		if explicit {
			n = c.numbered
		}
		o.headers[i].Control = nil
		if n > 0 {
			o.headers[i].Control = &c.octets[0]
		}
		o.headers[i].SetControllen(n)
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&o.headers[first])), uintptr(end-first), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
