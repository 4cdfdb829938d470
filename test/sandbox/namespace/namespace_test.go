package namespace

import (
	"bufio"
	"bytes"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func init() {
	// Prints the addresses of the network namespace that the process is in.
	Role("addresses", func() int {
		addresses, err := net.InterfaceAddrs()
		if err != nil {
			return 1
		}
		for _, a := range addresses {
			os.Stdout.WriteString(a.String() + "\n")
		}
		return 0
	})
	// Leaves a child behind that ends later than its parent.
	Role("orphan", func() int {
		if exec.Command("sleep", "0.1").Start() != nil {
			return 1
		}
		return 0
	})
}

func TestMain(m *testing.M) {
	Enter()
	os.Exit(m.Run())
}

func newNode(t *testing.T, name string, index int) *Node {
	t.Helper()
	node, err := NewNode(name, index)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := node.Close(); err != nil {
			t.Error(err)
		}
	})
	return node
}

// echo answers every connection with what it sends.
func echo(t *testing.T, listener net.Listener) {
	t.Helper()
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go pour(conn, conn)
		}
	}()
}

// answers says whether an echo is heard over a connection.
func answers(conn net.Conn, err error) bool {
	if err != nil {
		return false
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := conn.Write([]byte("hello\n")); err != nil {
		return false
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	return err == nil && line == "hello\n"
}

func TestEnterGivesTheProgramAMachineOfItsOwn(t *testing.T) {
	t.Run("with few processes", func(t *testing.T) {
		if os.Getppid() != 1 {
			t.Errorf("the parent of main is %d, want PID 1 of the sandbox", os.Getppid())
		}
	})
	t.Run("as root", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Errorf("running as uid %d, want 0", os.Geteuid())
		}
	})
	t.Run("with a scratch directory in memory", func(t *testing.T) {
		var stat unix.Statfs_t
		if err := unix.Statfs(Scratch(), &stat); err != nil || stat.Type != unix.TMPFS_MAGIC {
			t.Errorf("Scratch %s is on a file system of type %#x (%v), want tmpfs", Scratch(), stat.Type, err)
		}
	})
	t.Run("that does not show in its environment", func(t *testing.T) {
		if role, ok := os.LookupEnv(roleVariable); ok {
			t.Errorf("%s=%s is passed on", roleVariable, role)
		}
	})
}

func TestNewNode(t *testing.T) {
	t.Run("takes its addresses from its index", func(t *testing.T) {
		node := newNode(t, "last", MaxNodes-1)
		type addresses struct{ WAN, Management string }
		got := addresses{node.WAN.String(), node.Management.String()}
		if diff := cmp.Diff(addresses{"10.250.3.232", "10.251.3.233"}, got); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("refuses an index that is taken", func(t *testing.T) {
		newNode(t, "first", 7)
		if _, err := NewNode("second", 7); !errors.Is(err, fs.ErrExist) && !errors.Is(err, unix.EEXIST) {
			t.Errorf("got %v, want that it exists", err)
		}
	})
	t.Run("refuses an index without an address", func(t *testing.T) {
		for _, index := range []int{-1, MaxNodes} {
			if _, err := NewNode("n", index); err == nil {
				t.Errorf("made a node with index %d", index)
			}
		}
	})
	t.Run("can use the index of a closed node", func(t *testing.T) {
		for range 2 {
			node, err := NewNode("n", 3)
			if err != nil {
				t.Fatal(err)
			}
			if err := node.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestNodesAndControlSideReachEachOther(t *testing.T) {
	a, b := newNode(t, "a", 0), newNode(t, "b", 1)
	listen := func(listener net.Listener, err error) net.Listener {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		echo(t, listener)
		return listener
	}
	listen(a.Listen("tcp4", "0.0.0.0:80"))
	listen(net.Listen("tcp4", Control.String()+":6443"))
	listen(net.Listen("tcp4", "0.0.0.0:8265"))

	at := func(a netip.Addr, port uint16) string { return netip.AddrPortFrom(a, port).String() }
	tests := []struct {
		name string
		conn func() (net.Conn, error)
		want bool
	}{
		{"a node reaches the control side", func() (net.Conn, error) { return a.Dial(t.Context(), "tcp", at(Control, 6443)) }, true},
		{"the control side reaches a node's management address", func() (net.Conn, error) { return net.Dial("tcp", at(a.Management, 80)) }, true},
		{"the control side reaches a node's WAN address past the WAN", func() (net.Conn, error) { return net.Dial("tcp", at(a.WAN, 80)) }, true},
		{"a node reaches its own WAN address", func() (net.Conn, error) { return a.Dial(t.Context(), "tcp", at(a.WAN, 80)) }, true},
		{"the control side answers for every simulated pod", func() (net.Conn, error) { return net.Dial("tcp", "10.244.17.4:8265") }, true},
		{"a node reaches simulated pods", func() (net.Conn, error) { return a.Dial(t.Context(), "tcp", "10.244.0.9:8265") }, true},
		{"a node does not reach another one's WAN address without a WAN", func() (net.Conn, error) {
			var conn net.Conn
			err := b.Do(func() (err error) {
				conn, err = net.DialTimeout("tcp", at(a.WAN, 80), 300*time.Millisecond)
				return err
			})
			return conn, err
		}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			conn, err := test.conn()
			if got := answers(conn, err); got != test.want {
				t.Errorf("answered: %v, want %v (dial: %v)", got, test.want, err)
			}
		})
	}
}

func TestNetwork(t *testing.T) {
	node := newNode(t, "n", 4)
	want := []string{"10.250.0.5/16", "10.251.0.6/16", "127.0.0.1/8"}

	t.Run("Start puts a process into the namespace", func(t *testing.T) {
		cmd := Command("addresses")
		var out bytes.Buffer
		cmd.Stdout = &out
		if err := errors.Join(node.Start(cmd), cmd.Wait()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, slices.Sorted(slices.Values(strings.Fields(out.String())))); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("Start lets a process live on that ends with its parent", func(t *testing.T) {
		cmd := exec.Command("sleep", "60")
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := node.Start(cmd); err != nil {
			t.Fatal(err)
		}
		for range 50 { // gives the thread that forked every reason to end
			_ = node.Do(func() error { return nil })
		}
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if _ = cmd.Wait(); cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
			t.Errorf("it ended by %v, want the SIGTERM that it was sent", cmd.ProcessState)
		}
	})
	t.Run("Path leads other processes there", func(t *testing.T) {
		target, err := os.Stat(node.Path())
		if err != nil {
			t.Fatal(err)
		}
		var there os.FileInfo
		if err := node.Do(func() (err error) {
			there, err = os.Stat("/proc/thread-self/ns/net")
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if !os.SameFile(target, there) {
			t.Errorf("%s is not the node's namespace", node.Path())
		}
	})
	t.Run("Do comes home", func(t *testing.T) {
		failure := errors.New("as it was")
		if err := node.Do(func() error { return failure }); !errors.Is(err, failure) {
			t.Errorf("got error %v, want the function's", err)
		}
		if _, err := netlink.LinkByName(bridge); err != nil {
			t.Errorf("the caller is not on the control side any more: %v", err)
		}
	})
	t.Run("Do nests", func(t *testing.T) {
		other := newNode(t, "other", 5)
		err := node.Do(func() error {
			if err := other.Do(func() error { return nil }); err != nil {
				return err
			}
			_, err := netlink.LinkByName("eth0")
			return err
		})
		if err != nil {
			t.Errorf("the inner Do did not return to the outer one's namespace: %v", err)
		}
	})
	t.Run("every eth0 has the same address, which nobody asks for", func(t *testing.T) {
		var eth0 netlink.Link
		if err := node.Do(func() (err error) {
			eth0, err = netlink.LinkByName("eth0")
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(nodeMAC, eth0.Attrs().HardwareAddr); diff != "" {
			t.Error(diff)
		}
		if eth0.Attrs().RawFlags&unix.IFF_NOARP == 0 {
			t.Error("eth0 uses ARP")
		}
	})
}

func TestOrphansAreReaped(t *testing.T) {
	if err := Command("orphan").Run(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if len(childrenOfInit(t)) == 1 { // main
			return
		}
	}
	t.Errorf("still there, beside main: %q", childrenOfInit(t))
}

// childrenOfInit are the stat lines of PID 1's children, zombies included.
func childrenOfInit(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err != nil {
			continue // ended meanwhile
		}
		afterName := strings.Fields(string(line[bytes.LastIndexByte(line, ')')+1:]))
		if afterName[1] == "1" {
			lines = append(lines, string(line))
		}
	}
	return lines
}
