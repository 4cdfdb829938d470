package probe

import (
	"errors"
	"os"
	"testing"

	"github.com/netlatency/netlatency/test/machine"
)

func TestOpenPortableFailsWhereEchoesAreNotPermitted(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	// The kernel's default, which a user namespace without a group 1 has no
	// way to return to.
	forbidden := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("1 0"), 0)
	prober, err := OpenPortable(t.Context(), loopback4.Addr(), PortableOptions{Timeout: 1})
	if err == nil {
		prober.Close()
	}
	switch {
	case err == nil && forbidden != nil:
		machine.Lacks(t, "echoes cannot be forbidden here: %v", forbidden)
	case !errors.Is(err, os.ErrPermission):
		t.Errorf("error %v, want %v", err, os.ErrPermission)
	}
}

func TestNoDescriptorOfAnEchoIsLeft(t *testing.T) {
	if !inNetworkWithEchoes(t) {
		return
	}
	before := 0
	for _, silent := range []bool{false, false, true} {
		if silent {
			silence(t)
		}
		prober := startPortable(t, loopback4.Addr(), PortableOptions{})
		for i := range uint64(20) {
			prober.send(t, echoPeer, i)
		}
		prober.stop()
		// The runtime opens descriptors of its own in the first round.
		if after := descriptors(t); before == 0 {
			before = after
		} else if after != before {
			t.Errorf("%d descriptors are open, want %d as before", after, before)
		}
	}
}
