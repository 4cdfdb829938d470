package wan

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// virtioHeader precedes every frame (PACKET_VNET_HDR). It carries the state of a
// checksum that the sender's stack left to the interface; without it such
// packets would arrive with garbage in their place (packet(7)).
const virtioHeader = 10

// slotSize holds a frame of the usual MTU of 1500 with its headers.
const slotSize = 2048

// controlSize is room for a stamp and the reports that come with it.
const controlSize = 256

// socket is an AF_PACKET socket over all interfaces of the WAN's namespace,
// with the system calls made by hand: package net and x/sys allocate on each.
type socket struct {
	fd      int
	message unix.Msghdr
	vector  unix.Iovec
	name    unix.RawSockaddrLinklayer
	control [controlSize / 8]uint64 // of control messages, which are aligned
}

// openReceiver receives every IPv4 packet that comes in on any interface, with
// the kernel's receive stamp. The stack takes no notice of these packets: their
// destination is none of the namespace's own link addresses.
func openReceiver() (*socket, error) {
	s, err := openSocket()
	if err != nil {
		return nil, err
	}
	if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
		return nil, fmt.Errorf("ask for receive stamps: %w", err)
	}
	// Room for bursts. Only root of the machine may go beyond net.core.rmem_max.
	const room = 16 << 20
	if unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, room) != nil {
		if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, room); err != nil {
			return nil, fmt.Errorf("enlarge the receive buffer: %w", err)
		}
	}
	if err := unix.Bind(s.fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_IP)}); err != nil {
		return nil, fmt.Errorf("bind: %w", err)
	}
	return s, nil
}

// openSender receives nothing, and reports transmit stamps for the frames that
// are sent with a request for one.
func openSender() (*socket, error) {
	s, err := openSocket()
	if err != nil {
		return nil, err
	}
	const report = unix.SOF_TIMESTAMPING_SOFTWARE | unix.SOF_TIMESTAMPING_OPT_TSONLY
	if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPING, report); err != nil {
		return nil, fmt.Errorf("ask for transmit stamps: %w", err)
	}
	// A veth pair has no queue to bypass, only the way there.
	if err := unix.SetsockoptInt(s.fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
		return nil, fmt.Errorf("bypass the queueing discipline: %w", err)
	}
	return s, nil
}

func openSocket() (*socket, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open a packet socket: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
		return nil, fmt.Errorf("ask for virtio headers: %w", err)
	}
	return &socket{fd: fd}, nil
}

func networkOrder(protocol uint16) uint16 { return protocol<<8 | protocol>>8 }

// receive reads a frame with its virtio header into buffer. The stamp is Unix
// nanoseconds, 0 if the kernel gave none. A frame longer than the buffer has its
// full length returned, and only its beginning is there.
func (s *socket) receive(buffer []byte) (length int, device int32, stamp int64, errno unix.Errno) {
	length, errno = s.call(unix.SYS_RECVMSG, buffer, controlSize, unix.MSG_DONTWAIT|unix.MSG_TRUNC)
	if errno != 0 {
		return 0, 0, 0, errno
	}
	if at := s.find(unix.SOL_SOCKET, unix.SCM_TIMESTAMPNS); at != nil {
		stamp = (*unix.Timespec)(at).Nano()
	}
	return length, s.name.Ifindex, stamp, 0
}

// send sends a frame with its virtio header to a device. With stamped it returns
// the kernel's transmit stamp in Unix nanoseconds, 0 if there is none: a veth
// device transmits within the system call, so that the stamp is there already.
func (s *socket) send(frame []byte, device int32, stamped bool) (stamp int64, errno unix.Errno) {
	s.name = unix.RawSockaddrLinklayer{Family: unix.AF_PACKET, Ifindex: device}
	control := 0
	if stamped {
		header := (*unix.Cmsghdr)(unsafe.Pointer(&s.control))
		header.Level, header.Type = unix.SOL_SOCKET, unix.SO_TIMESTAMPING
		header.SetLen(unix.CmsgLen(4))
		*(*uint32)(unsafe.Add(unsafe.Pointer(&s.control), unix.CmsgLen(0))) = unix.SOF_TIMESTAMPING_TX_SOFTWARE
		control = unix.CmsgSpace(4)
	}
	if _, errno := s.call(unix.SYS_SENDMSG, frame, control, unix.MSG_DONTWAIT); errno != 0 || !stamped {
		return 0, errno
	}
	// The last report is of this frame, were an earlier one to have come late.
	for {
		if _, errno := s.call(unix.SYS_RECVMSG, nil, controlSize, unix.MSG_DONTWAIT|unix.MSG_ERRQUEUE); errno != 0 {
			return stamp, 0
		}
		if at := s.find(unix.SOL_SOCKET, unix.SCM_TIMESTAMPING); at != nil {
			stamp = (*unix.Timespec)(at).Nano()
		}
	}
}

// call makes sendmsg or recvmsg with the socket's name and the first bytes of
// its control buffer. None of them blocks, so the Go scheduler is not told.
func (s *socket) call(number uintptr, data []byte, control int, flags uintptr) (int, unix.Errno) {
	s.vector = unix.Iovec{}
	if len(data) > 0 {
		s.vector.Base = &data[0]
		s.vector.SetLen(len(data))
	}
	s.message = unix.Msghdr{Name: (*byte)(unsafe.Pointer(&s.name)), Namelen: unix.SizeofSockaddrLinklayer, Iov: &s.vector}
	s.message.SetIovlen(1)
	if control > 0 {
		s.message.Control = (*byte)(unsafe.Pointer(&s.control))
		s.message.SetControllen(control)
	}
	n, _, errno := unix.RawSyscall(number, uintptr(s.fd), uintptr(unsafe.Pointer(&s.message)), flags)
	return int(n), errno
}

// find returns the data of a control message that the last call received, or nil.
func (s *socket) find(level, kind int32) unsafe.Pointer {
	end := int(s.message.Controllen)
	for at := 0; at+unix.CmsgLen(0) <= end; {
		header := (*unix.Cmsghdr)(unsafe.Add(unsafe.Pointer(&s.control), at))
		size := int(header.Len)
		if size < unix.CmsgLen(0) || at+size > end {
			return nil
		}
		if header.Level == level && header.Type == kind && size >= unix.CmsgLen(int(unsafe.Sizeof(unix.Timespec{}))) {
			return unsafe.Add(unsafe.Pointer(&s.control), at+unix.CmsgLen(0))
		}
		at += unix.CmsgSpace(size - unix.CmsgLen(0))
	}
	return nil
}

// wait returns when the socket has something to receive or after the given
// nanoseconds; below 0 it waits for ever. It may return early.
//
// The Go scheduler is not told that this blocks. If it were, the thread would
// have to ask for its place back each time: on a machine with both cores busy
// that made packets late by more than 0.2 ms ten times as often. What it costs
// is an interruption each 10 ms, when the scheduler finds the thread running.
func (s *socket) wait(nanoseconds int64) {
	poll := unix.PollFd{Fd: int32(s.fd), Events: unix.POLLIN}
	var timeout *unix.Timespec
	if nanoseconds >= 0 {
		t := unix.NsecToTimespec(nanoseconds)
		timeout = &t
	}
	_, _, _ = unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&poll)), 1, uintptr(unsafe.Pointer(timeout)), 0, 0, 0)
}

// overruns is how many packets the kernel dropped since the last call because
// the receive buffer was full.
func (s *socket) overruns() uint64 {
	stats, err := unix.GetsockoptTpacketStats(s.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return 0
	}
	return uint64(stats.Drops)
}
