package probe

import "golang.org/x/sys/unix"

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
	defer func() {
		if err != nil { // nobody else may share the port then
			_ = unix.SetsockoptInt(rx, unix.SOL_SOCKET, unix.SO_REUSEPORT, 0)
		}
	}()
	tx, err = openTwin(rx, overUDP, domain, unix.SO_REUSEPORT, addr)
	if err != nil {
		return -1, err
	}
	if err := alwaysZero(rx, unix.SO_ATTACH_REUSEPORT_CBPF); err != nil {
		unix.Close(tx) // which would get a part of what arrives
		return -1, err
	}
	deafen(tx)
	return tx, nil
}

// openEchoReceiver makes a second ICMP socket with the address and identifier
// of tx, for the reason of openSender. Of several with one identifier, which
// SO_REUSEADDR permits, the one that was bound last receives: the kernel looks
// for the first in a list and adds at its head (ping_lookup, ping_get_port).
func openEchoReceiver(tx, domain int, addr unix.Sockaddr) (rx int, err error) {
	rx, err = openTwin(tx, overICMP, domain, unix.SO_REUSEADDR, addr)
	if err != nil {
		return -1, err
	}
	deafen(tx)
	return rx, nil
}

// openTwin makes a second socket with stamps at the address of the first, which
// option permits where both have it.
func openTwin(first int, over transport, domain, option int, addr unix.Sockaddr) (int, error) {
	second, err := openSocket(over, domain)
	if err != nil {
		return -1, err
	}
	if err := bindTwin(first, second, option, addr); err != nil {
		unix.Close(second)
		return -1, err
	}
	return second, nil
}

func bindTwin(first, second, option int, addr unix.Sockaddr) error {
	if err := unix.SetsockoptInt(second, unix.SOL_SOCKET, unix.SO_TIMESTAMPING, stampFlags); err != nil {
		return err
	}
	for _, fd := range []int{first, second} {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, 1); err != nil {
			return err
		}
	}
	return unix.Bind(second, addr)
}

// deafen has a socket that sends keep no packets, which nobody would read: they
// would take the place of its stamps for ever. A broadcast reaches both sockets
// of a port.
func deafen(fd int) {
	_ = alwaysZero(fd, unix.SO_ATTACH_FILTER) // without it only such packets are too many
	drain(fd)
}

// alwaysZero attaches a filter that returns 0: the index of the first socket of
// a group, or how much of a packet a socket keeps.
func alwaysZero(fd, option int) error {
	zero := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, option, &unix.SockFprog{Len: 1, Filter: &zero})
}

// drain drops packets that arrived.
func drain(fd int) {
	for {
		if _, _, err := unix.Recvfrom(fd, nil, unix.MSG_DONTWAIT); err != nil {
			return
		}
	}
}
