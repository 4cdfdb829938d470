package namespace

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The sandbox's address plan.
var (
	// Control is the address of the control side, as nodes see it.
	Control = netip.MustParseAddr("10.251.0.1")
	// Pods holds the addresses of simulated pods. All of them are local to the
	// control side: whatever listens there on any address answers for them.
	Pods = netip.MustParsePrefix("10.244.0.0/16")

	wanNetwork        = netip.MustParsePrefix("10.250.0.0/16")
	managementNetwork = netip.MustParsePrefix("10.251.0.0/16")
)

const bridge = "mgmt"

// sandbox is what main has of its surroundings. It is set once, by Enter.
type sandbox struct {
	listener net.Listener
	wan      *Network
}

var inside *sandbox

// errOutside is the answer to using the sandbox without being in it.
var errOutside = errors.New("not in a sandbox: call namespace.Enter first in main or TestMain")

// openSandbox takes over what init has left for main and builds the control
// side's network, in which main's own threads already are.
func openSandbox() (*sandbox, error) {
	socket := os.NewFile(listenerDescriptor, "host side's listener")
	listener, err := net.FileListener(socket)
	if err != nil {
		return nil, fmt.Errorf("take over the host side's listener: %w: unset %s", err, roleVariable)
	}
	socket.Close()
	if err := settle(); err != nil {
		return nil, err
	}
	if err := buildControl(); err != nil {
		return nil, fmt.Errorf("build the control side's network: %w", err)
	}
	wan, err := newNetwork()
	if err != nil {
		return nil, fmt.Errorf("build the WAN's network: %w", err)
	}
	return &sandbox{listener: listener, wan: wan}, nil
}

func buildControl() error {
	link := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
	link.Name = bridge
	if err := netlink.LinkAdd(link); err != nil {
		return fmt.Errorf("add bridge %s (the kernel needs its bridge module): %w", bridge, err)
	}
	if err := netlink.AddrAdd(link, address(Control, managementNetwork)); err != nil {
		return fmt.Errorf("add address %s: %w", Control, err)
	}
	if err := linkUp(bridge); err != nil {
		return err
	}
	// AnyIP: a local route for a whole prefix lets one listener answer for every address in it.
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find the loopback: %w", err)
	}
	route := &netlink.Route{
		LinkIndex: lo.Attrs().Index,
		Dst:       ipNet(Pods),
		Type:      unix.RTN_LOCAL,
		Table:     unix.RT_TABLE_LOCAL,
		Scope:     netlink.SCOPE_HOST,
	}
	if err := netlink.RouteAdd(route); err != nil {
		return fmt.Errorf("add local route %s: %w", Pods, err)
	}
	return nil
}

// Scratch is a directory on a tmpfs of the sandbox's own, empty at first. What
// is put there is invisible to the host and gone with the sandbox, however it ends.
func Scratch() string { return scratch }

// WAN is the network namespace of the far ends of the nodes' WAN links, where
// the process that carries their packets runs. Nil outside a sandbox.
func WAN() *Network {
	if inside == nil {
		return nil
	}
	return inside.wan
}

// linkUp brings an interface of the calling thread's namespace up.
func linkUp(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", name, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring interface %s up: %w", name, err)
	}
	return nil
}

func address(a netip.Addr, within netip.Prefix) *netlink.Addr {
	return &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(within.Bits(), a.BitLen())}}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
