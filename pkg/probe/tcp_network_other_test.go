//go:build !linux

package probe

import (
	"net/netip"
	"testing"
)

// inOwnNetwork says that the test is to run: on other systems than Linux it
// does so in the host's own network.
func inOwnNetwork(*testing.T) bool { return true }

// prohibited is an address that cannot be probed.
func prohibited(*testing.T) netip.Addr { return netip.Addr{} }
