//go:build !linux

package probe

import (
	"net/netip"
	"testing"
)

// inNetworkWithEchoes says that the test is to run: on other systems than
// Linux it does so in the host's own network.
func inNetworkWithEchoes(*testing.T) bool { return true }

// silence ends a test that needs a peer that does not answer.
func silence(t *testing.T) {
	t.Helper()
	t.Skip("only Linux lets a test have a peer that does not answer echoes")
}

// prohibited is an address that cannot be probed.
func prohibited(*testing.T) netip.Addr { return netip.Addr{} }
