package probe

import (
	"errors"
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
