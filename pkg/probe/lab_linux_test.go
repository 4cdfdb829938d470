package probe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/netlatency/netlatency/test/machine"
)

// The tests run in a network namespace of their own, in which the sysctl
// net.ipv4.ping_group_range lets them have ICMP sockets. That needs root or a
// user namespace; where neither is to be had they run in the namespace of the
// caller, and those of ICMP may be skipped.
//
// A process that a test starts is this program in another role.
const (
	roleVariable   = "NETLATENCY_PROBE_TEST_ROLE"
	configVariable = "NETLATENCY_PROBE_TEST_CONFIG"

	roleTests = "tests"
)

// roles are what processes of tests do. They have their configuration as JSON
// and write results as lines of JSON.
var roles = map[string]func(config []byte, results *json.Encoder) error{
	"far": beFar,
}

func inLab(run func() int) int {
	switch role := os.Getenv(roleVariable); role {
	case "":
		code, err := enterLab()
		if err != nil {
			fmt.Fprintln(os.Stderr, "No network namespace for the tests:", err)
			return run()
		}
		return code
	case roleTests:
		if err := setUpLab(); err != nil {
			fmt.Fprintln(os.Stderr, "Set up network namespace of the tests:", err)
		}
		return run()
	default:
		if err := roles[role]([]byte(os.Getenv(configVariable)), json.NewEncoder(os.Stdout)); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", role, err)
			return 1
		}
		return 0
	}
}

// enterLab runs this program in a new network namespace and returns the code
// it ended with.
func enterLab() (int, error) {
	runtime.LockOSThread() // the parent death signal is of the thread that forks
	command := func(flags uintptr) *exec.Cmd {
		c := exec.Command("/proc/self/exe", os.Args[1:]...)
		c.Env = append(os.Environ(), roleVariable+"="+roleTests)
		c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
		c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: syscall.SIGKILL}
		return c
	}
	c := command(unix.CLONE_NEWNET)
	if err := c.Start(); err != nil {
		c = command(unix.CLONE_NEWNET | unix.CLONE_NEWUSER)
		c.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		c.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
		if err := c.Start(); err != nil {
			return 0, err
		}
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGQUIT)
	go func() {
		for s := range signals {
			_ = c.Process.Signal(s)
		}
	}()
	if err := c.Wait(); err != nil {
		var ended *exec.ExitError
		if !errors.As(err, &ended) {
			return 0, err
		}
		return max(1, ended.ExitCode()), nil
	}
	return 0, nil
}

func setUpLab() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	// A link's own address is tentative for a second otherwise, and answers
	// nobody. Without IPv6 there is no such setting.
	_ = sysctl("ipv6/conf/default/dad_transmits", "0")
	return permitPing("0 0")
}

func permitPing(groups string) error { return sysctl("ipv4/ping_group_range", groups) }

func sysctl(name, value string) error {
	return os.WriteFile("/proc/sys/net/"+name, []byte(value), 0o644)
}

// ownNamespace ends a test where it must not change the network.
func ownNamespace(tb testing.TB) {
	tb.Helper()
	if os.Getenv(roleVariable) != roleTests {
		machine.Lacks(tb, "this test needs a network namespace of its own, so root or a user namespace")
	}
}

// process is one that a test started.
type process struct {
	*exec.Cmd
	results *json.Decoder
}

// startRole starts this program in another role. It ends with the test at the
// latest, or with this process.
func startRole(tb testing.TB, role string, config any, attr *syscall.SysProcAttr) *process {
	tb.Helper()
	data, err := json.Marshal(config)
	if err != nil {
		tb.Fatal(err)
	}
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), roleVariable+"="+role, configVariable+"="+string(data))
	c.Stderr = os.Stderr
	c.SysProcAttr = attr
	stdin, err := c.StdinPipe() // whose end the process waits for
	if err != nil {
		tb.Fatal(err)
	}
	stdout, err := c.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := c.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		stdin.Close()
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	return &process{c, json.NewDecoder(stdout)}
}

// result reads the next result.
func (p *process) result(tb testing.TB, v any) {
	tb.Helper()
	if err := p.results.Decode(v); err != nil {
		tb.Fatalf("result of another process: %v", err)
	}
}

// exitWithParent ends this process when the one that started it has gone.
func exitWithParent() {
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// The link between the tests' namespace and the far one. All of the far
// networks are addresses of the far namespace, so that one process there can be
// a thousand peers; the lost networks it has no way to, and says so.
var (
	near4, near6 = netip.MustParsePrefix("10.77.0.1/24"), netip.MustParsePrefix("fd77::1/64")
	far4, far6   = netip.MustParsePrefix("10.77.0.2/24"), netip.MustParsePrefix("fd77::2/64")
	farNetworks  = []netip.Prefix{netip.MustParsePrefix("10.78.0.0/16"), netip.MustParsePrefix("fd78::/64")}
	lostNetworks = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("2001:db8::/64")}
)

const (
	farPort     = 9465
	farHTTPPort = 8080
)

// farConfig is what a far process does beside answering.
type farConfig struct {
	// Target is sent PerSecond requests from the addresses of as many peers.
	Target    netip.AddrPort
	PerSecond int
	HTTP      bool // answer GET /ping
}

// startFar makes the far namespace, with a process that reflects probes of all
// kinds there, and a link to it.
func startFar(tb testing.TB, config farConfig) *process {
	tb.Helper()
	ownNamespace(tb)
	p := startRole(tb, "far", config, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET})
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "near0"}, PeerName: "far0", PeerNamespace: netlink.NsPid(p.Process.Pid)}
	if err := netlink.LinkAdd(pair); err != nil {
		tb.Fatalf("make a link between two network namespaces: %v", err)
	}
	tb.Cleanup(func() { _ = netlink.LinkDel(pair) })
	if err := setUpLink("near0", near4, near6); err != nil {
		tb.Fatal(err)
	}
	for _, to := range slices.Concat(farNetworks, lostNetworks) {
		if err := addRoute(pair, to); err != nil {
			tb.Fatal(err)
		}
	}
	var ready bool
	p.result(tb, &ready)
	for _, addrs := range [][2]netip.Addr{{near4.Addr(), far4.Addr()}, {near6.Addr(), far6.Addr()}} {
		untilAnswered(tb, netip.AddrPortFrom(addrs[0], 0), netip.AddrPortFrom(addrs[1], farPort))
	}
	return p
}

// untilAnswered waits for the link and for neighbours to know each other.
func untilAnswered(tb testing.TB, from, to netip.AddrPort) {
	tb.Helper()
	u := start(tb, from, UDPOptions{Timeout: 100 * time.Millisecond})
	for range 100 {
		u.send(tb, to, 0)
		if o := u.next(tb); !o.Lost {
			u.stop()
			return
		}
	}
	tb.Fatalf("no answer from %v", to)
}

func setUpLink(name string, addresses ...netip.Prefix) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	for _, a := range addresses {
		n := &net.IPNet{IP: a.Addr().AsSlice(), Mask: net.CIDRMask(a.Bits(), a.Addr().BitLen())}
		if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: n, Flags: unix.IFA_F_NODAD}); err != nil {
			return fmt.Errorf("address %v of %s: %w", a, name, err)
		}
	}
	return netlink.LinkSetUp(link)
}

func addRoute(link netlink.Link, to netip.Prefix) error {
	via := far4.Addr()
	if to.Addr().Is6() {
		via = far6.Addr()
	}
	n := &net.IPNet{IP: to.Addr().AsSlice(), Mask: net.CIDRMask(to.Bits(), to.Addr().BitLen())}
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: n, Gw: via.AsSlice()}); err != nil {
		return fmt.Errorf("route to %v: %w", to, err)
	}
	return nil
}

func beFar(data []byte, results *json.Encoder) error {
	go exitWithParent()
	var config farConfig
	if err := json.Unmarshal(data, &config); err != nil {
		return err
	}
	if err := setUpLab(); err != nil {
		return err
	}
	for { // until this process has its end of the link
		if _, err := netlink.LinkByName("far0"); err == nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if err := setUpLink("far0", far4, far6); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	for _, name := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		if err := sysctl(name, "1"); err != nil {
			return err
		}
	}
	for i := range farNetworks {
		network := func(p netip.Prefix) *net.IPNet {
			return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
		}
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: network(farNetworks[i]), Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST}); err != nil {
			return fmt.Errorf("far network: %w", err)
		}
		if err := netlink.RouteAdd(&netlink.Route{Dst: network(lostNetworks[i]), Type: unix.RTN_UNREACHABLE}); err != nil {
			return fmt.Errorf("lost network: %w", err)
		}
	}
	for _, any := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		u, err := ListenUDP(context.Background(), netip.AddrPortFrom(any, farPort), UDPOptions{Timeout: time.Second, Reflector: unlimited()})
		if err != nil {
			return err
		}
		go u.Run(context.Background())
	}
	if config.HTTP {
		listener, err := net.Listen("tcp", fmt.Sprintf(":%d", farHTTPPort))
		if err != nil {
			return err
		}
		go http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"boot_time":"2026-01-01T00:00:00.000Z"}`)
		}))
	}
	if err := results.Encode(true); err != nil {
		return err
	}
	if config.PerSecond > 0 {
		return sendRequests(config)
	}
	select {}
}

// farPeer is the address of a peer behind the link.
func farPeer(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 78, byte(i >> 8), byte(i)}), farPort)
}

// sendRequests sends what the agents of other nodes would.
func sendRequests(config farConfig) error {
	s, err := newSocket(overUDP, netip.AddrPortFrom(netip.IPv4Unspecified(), 0))
	if err != nil {
		return err
	}
	b := make([]byte, MinSize)
	begin := time.Now()
	for i := 0; ; i++ {
		time.Sleep(time.Until(begin.Add(time.Duration(i) * time.Second / time.Duration(config.PerSecond))))
		peer := i % config.PerSecond
		Header{Kind: Request, Session: uint64(peer + 1), Seq: uint32(i/config.PerSecond + 1)}.Encode(b)
		s.put(0, b, config.Target, farPeer(peer).Addr())
		_, _, _ = s.send(0, 1) // the link goes before this process does
		drain(s.fd)
		s.transmitted()
	}
}

// hasICMP ends a test where ICMP sockets are not to be had.
func hasICMP(tb testing.TB) {
	tb.Helper()
	fd, err := openSocket(overICMP, unix.AF_INET)
	if errors.Is(err, unix.EACCES) {
		machine.Lacks(tb, "this test needs root, a user namespace or a sysctl: %v", err)
	}
	unix.Close(fd)
}
