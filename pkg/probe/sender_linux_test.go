package probe

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// One that stayed would take its share of what arrives at the port.
func TestASecondSocketThatCannotBeHadIsClosed(t *testing.T) {
	rx, err := newSocket(overUDP, loopback4)
	if err != nil {
		t.Fatal(err)
	}
	defer rx.close()
	bound, err := unix.Getsockname(rx.fd)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptInt(rx.fd, unix.SOL_SOCKET, unix.SO_LOCK_FILTER, 1); err != nil {
		t.Fatal(err)
	}
	before := descriptors(t)
	if _, err := openSender(rx.fd, unix.AF_INET, bound); !errors.Is(err, unix.EPERM) {
		t.Errorf("error %v, want %v: filters are locked", err, unix.EPERM)
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors are open, want %d as before", after, before)
	}
}

func TestASecondEchoSocketThatCannotBeHadIsClosed(t *testing.T) {
	hasICMP(t)
	before := descriptors(t)
	if _, err := openEchoReceiver(-1, unix.AF_INET, &unix.SockaddrInet4{}); !errors.Is(err, unix.EBADF) {
		t.Errorf("error %v, want %v", err, unix.EBADF)
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors are open, want %d as before", after, before)
	}
}

// A broadcast reaches every socket of a port. In one that nobody reads it would
// take the place of transmit stamps for ever.
func TestTheSendingSocketKeepsNoPackets(t *testing.T) {
	u := open(t, netip.MustParseAddrPort("0.0.0.0:0"), UDPOptions{})
	stranger, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(loopback4)) // with SO_BROADCAST
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	everyone := netip.AddrPortFrom(netip.MustParseAddr("127.255.255.255"), u.LocalAddr().Port())
	if _, err := stranger.WriteToUDPAddrPort([]byte("hello"), everyone); err != nil {
		t.Fatal(err)
	}
	p := u.ports[0]
	if n, _, err := unix.Recvfrom(p.fd, make([]byte, 9), unix.MSG_DONTWAIT); n != 5 {
		t.Errorf("the receiving socket has %d octets, error %v, want the 5 of the broadcast", n, err)
	}
	if n, _, err := unix.Recvfrom(p.tx, make([]byte, 9), unix.MSG_DONTWAIT); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("the sending socket has %d octets, error %v, want nothing", n, err)
	}
}
