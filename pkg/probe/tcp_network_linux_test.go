package probe

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/netlatency/netlatency/test/machine"
)

// networkVariable names the test that a copy of this program is to run in a
// network of its own.
const networkVariable = "NETLATENCY_TEST_NETWORK"

// inOwnNetwork says whether the test is in a network of its own, where nothing
// but it has connections. If not, it runs the test
// again in a copy of the program that is, and the caller has to return.
func inOwnNetwork(t *testing.T) bool {
	t.Helper()
	if os.Getenv(networkVariable) == t.Name() {
		if err := setUpNetwork(); err != nil {
			t.Fatalf("set up the network: %v", err)
		}
		return true
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	// The race detector would let each copy sleep for a second.
	cmd.Env = append(os.Environ(), networkVariable+"="+t.Name(), "GORACE=atexit_sleep_ms=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if uid, gid := os.Geteuid(), os.Getegid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: gid, Size: 1}}
	}
	var output strings.Builder
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		machine.Lacks(t, "this machine gives no network of its own: %v", err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("in a network of its own: %v\n%s", err, &output)
	}
	switch ran := output.String(); {
	case strings.Contains(ran, "--- SKIP: "): // a part that was skipped there is one here
		machine.Lacks(t, "not all was run in a network of its own:\n%s", ran)
	case !strings.Contains(ran, "--- PASS: "+t.Name()+" "):
		t.Fatalf("nothing was run in a network of its own:\n%s", ran)
	}
	return false
}

func setUpNetwork() error {
	loopback, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := netlink.LinkSetUp(loopback); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}

// inNetworkWithEchoes is inOwnNetwork where echoes are permitted, which they
// are not in a new one.
func inNetworkWithEchoes(t *testing.T) bool {
	t.Helper()
	if !inOwnNetwork(t) {
		return false
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 0"), 0); err != nil {
		t.Fatal(err)
	}
	return true
}

// silence makes the kernel answer no echoes.
func silence(t *testing.T) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/net/ipv4/icmp_echo_ignore_all", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
}

// prohibited is an address that a route prohibits.
func prohibited(t *testing.T) netip.Addr {
	t.Helper()
	addr := netip.MustParseAddr("198.51.100.1")
	route := &netlink.Route{Dst: &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(32, 32)}, Type: unix.RTN_PROHIBIT}
	if err := netlink.RouteAdd(route); err != nil {
		t.Fatal(err)
	}
	return addr
}
