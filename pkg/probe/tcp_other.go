//go:build !linux

package probe

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// connector is Linux's only: elsewhere the round trip of a handshake would have
// to be timed by the process, and Portable does that for less.
type connector struct{}

func openConnector(netip.Addr, int) (*connector, error) {
	return nil, fmt.Errorf("round trips of handshakes are read from Linux's TCP_INFO: %w", errors.ErrUnsupported)
}

func (*connector) start(netip.AddrPort, connectID) (int, time.Time, error) {
	return -1, time.Time{}, errors.ErrUnsupported
}

func (*connector) wait(time.Time) ([]connectID, error) { return nil, errors.ErrUnsupported }

func (*connector) handshake(int) handshake { return handshake{} }

func (*connector) hangUp(int) {}

func (*connector) wake() {}

func (*connector) close() {}
