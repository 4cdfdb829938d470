package namespace

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// Network is a network namespace. It lives as long as this process or until it
// is closed and no process or socket is left in it. Its methods may be called
// from any goroutine.
type Network struct {
	file *os.File
}

// newNetwork makes an empty network namespace with its loopback up, IPv6 off
// (nothing in the sandbox speaks it, and its discovery would be noise on the
// WAN), and none of the host's routing settings, which it would inherit
// (ip-sysctl: devconf_inherit_init_net).
func newNetwork() (*Network, error) {
	runtime.LockOSThread()
	home, err := threadNetwork()
	if err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	defer home.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	file, err := threadNetwork()
	returnTo(home)
	if err != nil {
		return nil, err
	}
	n := &Network{file: file}
	if err := n.Do(settle); err != nil {
		n.file.Close()
		return nil, err
	}
	return n, nil
}

// threadNetwork opens the network namespace of the calling thread.
func threadNetwork() (*os.File, error) {
	file, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("open the thread's network namespace: %w", err)
	}
	return file, nil
}

// returnTo ends what LockOSThread began. A thread that cannot go home would
// quietly open other goroutines' sockets in the wrong namespace.
func returnTo(home *os.File) {
	if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
		panic(fmt.Sprintf("namespace: return to the former network namespace: %v", err))
	}
	runtime.UnlockOSThread()
}

// Do runs fn on a thread inside the namespace, in the calling goroutine, and
// returns its error. Sockets made and processes started by fn belong to the
// namespace; goroutines started by it do not. Files below /proc/sys/net, opened
// by fn, are the namespace's; /proc/net is not.
func (n *Network) Do(fn func() error) error {
	runtime.LockOSThread()
	home, err := threadNetwork()
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer home.Close()
	if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace %s: %w", n.Path(), err)
	}
	defer returnTo(home)
	return fn()
}

// Start starts cmd in the namespace. Any Cloneflags in cmd.SysProcAttr apply on
// top of it. A Pdeathsig there follows this process, since its threads go on.
func (n *Network) Start(cmd *exec.Cmd) error {
	return n.Do(cmd.Start)
}

// Path names the namespace for other processes of the sandbox that see the same
// /proc and run as its root; it is good for setns and nsenter as long as this
// process lives.
func (n *Network) Path() string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.file.Fd())
}

// Listen opens a stream listener in the namespace, usable anywhere. The address
// must be numeric: names are resolved outside the namespace.
func (n *Network) Listen(network, address string) (listener net.Listener, err error) {
	err = n.Do(func() error {
		listener, err = net.Listen(network, address)
		return err
	})
	return listener, err
}

// ListenPacket is Listen for datagrams.
func (n *Network) ListenPacket(network, address string) (conn net.PacketConn, err error) {
	err = n.Do(func() error {
		conn, err = net.ListenPacket(network, address)
		return err
	})
	return conn, err
}

// Dial connects from inside the namespace; the connection is usable anywhere.
// The address must be numeric.
func (n *Network) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = n.Do(func() error {
		conn, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// settings of every network namespace of the sandbox, below /proc/sys/net.
// A node's WAN address is reached through its management interface, which a
// reverse path filter would take for a forged source.
var settings = []struct{ file, value string }{
	{"ipv6/conf/all/disable_ipv6", "1"},
	{"ipv6/conf/default/disable_ipv6", "1"},
	{"ipv4/conf/all/rp_filter", "0"},
	{"ipv4/conf/default/rp_filter", "0"},
	{"ipv4/ip_forward", "0"},
}

// settle gives the calling thread's new namespace its settings and its loopback.
func settle() error {
	for _, s := range settings {
		err := os.WriteFile("/proc/sys/net/"+s.file, []byte(s.value), 0)
		// A kernel booted without IPv6 lacks the files.
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("configure a network namespace: %w", err)
		}
	}
	return linkUp("lo")
}
