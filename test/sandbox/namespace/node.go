package namespace

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// MaxNodes is how many nodes one sandbox can have: a Linux bridge has at most
// 1024 ports (BR_MAX_PORTS).
const MaxNodes = 1000

// Node is a node of the sandbox's cluster: a network namespace with eth0 on the
// WAN and mgmt0 on the control side's bridge. It also is that namespace: Do,
// Start, Listen, Dial and Path come from Network. Its fields do not change.
type Node struct {
	*Network
	Name       string
	Index      int
	WAN        netip.Addr // of eth0, 10.250.0.(Index+1); the node's InternalIP
	Management netip.Addr // of mgmt0, 10.251.0.(Index+2)
	// WANInterface is the far end of eth0's link, in the namespace WAN().
	WANInterface string
}

// nodeMAC is the address of every node's eth0. With ARP off, Linux sends to the
// interface's own address, so that frames arrive at any node unchanged: the WAN
// rewrites nothing, and no packet waits for a neighbour to be resolved.
var nodeMAC = net.HardwareAddr{0x02, 0, 0x0a, 0xfa, 0, 0x01}

// NewNode makes a node. The index gives it its addresses and must be free, 0 to
// MaxNodes-1; the name is only a name. Packets between nodes' eth0 go nowhere
// until package wan carries them.
func NewNode(name string, index int) (*Node, error) {
	if inside == nil {
		return nil, fmt.Errorf("make node %q: %w", name, errOutside)
	}
	if index < 0 || index >= MaxNodes {
		return nil, fmt.Errorf("make node %q: index %d is not in 0..%d", name, index, MaxNodes-1)
	}
	network, err := newNetwork()
	if err != nil {
		return nil, fmt.Errorf("make node %q: %w", name, err)
	}
	node := &Node{
		Network:      network,
		Name:         name,
		Index:        index,
		WAN:          host(wanNetwork, index+1),
		Management:   host(managementNetwork, index+2),
		WANInterface: fmt.Sprintf("wan%d", index),
	}
	if err := node.connect(); err != nil {
		node.Close()
		return nil, fmt.Errorf("make node %q: %w", name, err)
	}
	return node, nil
}

// Close takes the node off the network and frees its index. Processes still in
// it keep a namespace with nothing but a loopback.
func (n *Node) Close() error {
	unplug := func(name string) error {
		link, err := netlink.LinkByName(name)
		if errors.As(err, &netlink.LinkNotFoundError{}) {
			return nil // never plugged in, or closed before
		}
		if err != nil {
			return err
		}
		return netlink.LinkDel(link) // takes its peer along
	}
	err := inside.wan.Do(func() error { return unplug(n.WANInterface) })
	if second := unplug(n.bridgePort()); err == nil {
		err = second
	}
	if err != nil {
		return fmt.Errorf("close node %q: %w", n.Name, err)
	}
	n.file.Close()
	return nil
}

func (n *Node) bridgePort() string { return fmt.Sprintf("mgmt%d", n.Index) }

func (n *Node) connect() error {
	if err := inside.wan.Do(func() error { return n.plug(n.WANInterface, "eth0", nodeMAC) }); err != nil {
		return err
	}
	if err := n.plug(n.bridgePort(), "mgmt0", nil); err != nil {
		return err
	}
	if err := n.joinBridge(); err != nil {
		return err
	}
	return n.Do(n.configure)
}

// plug makes a veth pair from the calling thread's namespace into the node's.
func (n *Node) plug(here, there string, mac net.HardwareAddr) error {
	pair := &netlink.Veth{
		LinkAttrs:        netlink.NewLinkAttrs(),
		PeerName:         there,
		PeerHardwareAddr: mac,
		PeerNamespace:    netlink.NsFd(int(n.file.Fd())),
	}
	pair.Name = here
	if err := netlink.LinkAdd(pair); err != nil {
		return fmt.Errorf("add interface %s with peer %s: %w", here, there, err)
	}
	return linkUp(here)
}

func (n *Node) joinBridge() error {
	port, err := netlink.LinkByName(n.bridgePort())
	if err != nil {
		return fmt.Errorf("find interface %s: %w", n.bridgePort(), err)
	}
	master, err := netlink.LinkByName(bridge)
	if err != nil {
		return fmt.Errorf("find bridge %s: %w", bridge, err)
	}
	if err := netlink.LinkSetMaster(port, master); err != nil {
		return fmt.Errorf("add interface %s to bridge %s: %w", n.bridgePort(), bridge, err)
	}
	// The control side reaches the node's WAN address past the WAN, as an API
	// server's proxy and a kubelet's probes do.
	route := &netlink.Route{
		LinkIndex: master.Attrs().Index,
		Dst:       ipNet(netip.PrefixFrom(n.WAN, n.WAN.BitLen())),
		Gw:        n.Management.AsSlice(),
	}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("add route to %s: %w", n.WAN, err)
	}
	return nil
}

// configure runs inside the node.
func (n *Node) configure() error {
	eth0, err := netlink.LinkByName("eth0")
	if err != nil {
		return fmt.Errorf("find interface eth0: %w", err)
	}
	if err := netlink.LinkSetARPOff(eth0); err != nil {
		return fmt.Errorf("turn ARP off on eth0: %w", err)
	}
	// One segment a frame: the WAN delays packets of the size that a wire would
	// carry, not bundles of them that an interface card would cut up later.
	if err := netlink.LinkSetGSOMaxSegs(eth0, 1); err != nil {
		return fmt.Errorf("turn segmentation offload off on eth0: %w", err)
	}
	if err := netlink.AddrAdd(eth0, address(n.WAN, wanNetwork)); err != nil {
		return fmt.Errorf("add address %s: %w", n.WAN, err)
	}
	if err := netlink.LinkSetUp(eth0); err != nil {
		return fmt.Errorf("bring interface eth0 up: %w", err)
	}
	mgmt0, err := netlink.LinkByName("mgmt0")
	if err != nil {
		return fmt.Errorf("find interface mgmt0: %w", err)
	}
	if err := netlink.AddrAdd(mgmt0, address(n.Management, managementNetwork)); err != nil {
		return fmt.Errorf("add address %s: %w", n.Management, err)
	}
	if err := netlink.LinkSetUp(mgmt0); err != nil {
		return fmt.Errorf("bring interface mgmt0 up: %w", err)
	}
	route := &netlink.Route{LinkIndex: mgmt0.Attrs().Index, Dst: ipNet(Pods), Gw: Control.AsSlice()}
	if err := netlink.RouteAdd(route); err != nil {
		return fmt.Errorf("add route to %s: %w", Pods, err)
	}
	return nil
}

// host is the n-th address of a /16.
func host(p netip.Prefix, n int) netip.Addr {
	b := p.Addr().As4()
	b[2], b[3] = byte(n>>8), byte(n)
	return netip.AddrFrom4(b)
}
