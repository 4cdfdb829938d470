// Package lifetime tests a sandbox from the outside: these tests run on the
// host, and the test binary in a sandbox is the program that they watch.
package lifetime

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/netlatency/netlatency/test/sandbox/namespace"
)

// leftover is a file name that nothing else on the host has.
const leftover = "netlatency-lifetime-leftover"

// actVariable makes the test binary a sandboxed program.
const actVariable = "NETLATENCY_LIFETIME_ACT"

func TestMain(m *testing.M) {
	act := os.Getenv(actVariable)
	if act == "" {
		os.Exit(m.Run())
	}
	namespace.Enter()
	if err := acts[act](); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

var acts = map[string]func() error{
	"echo arguments and input": func() error {
		input, err := io.ReadAll(os.Stdin)
		fmt.Printf("%q %q", os.Args[1:], input)
		if err == nil {
			os.Exit(7)
		}
		return err
	},
	"die of a signal": func() error {
		return unix.Kill(os.Getpid(), unix.SIGKILL)
	},
	"count signals": func() error {
		signals := make(chan os.Signal, 10)
		signal.Notify(signals, unix.SIGINT, unix.SIGTERM)
		fmt.Println("ready")
		got := []os.Signal{<-signals}
		// Longer than a duplicate would take to come.
		for timeout := time.After(time.Second); ; {
			select {
			case s := <-signals:
				got = append(got, s)
			case <-timeout:
				fmt.Println(got)
				return nil
			}
		}
	},
	"serve the host": func() error {
		if _, err := namespace.NewNode("node", 0); err != nil {
			return err
		}
		target, err := net.Listen("tcp", namespace.Control.String()+":6443")
		if err != nil {
			return err
		}
		go func() {
			for {
				conn, err := target.Accept()
				if err != nil {
					return
				}
				fmt.Fprintf(conn, "hello from %s", os.Getenv("NAME"))
				conn.Close()
			}
		}()
		fmt.Println(namespace.HostListener().Addr())
		return namespace.Forward(context.Background(), namespace.HostListener(), target.Addr().String())
	},
	"leave much behind": func() error {
		node, err := namespace.NewNode("node", 0)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(namespace.Scratch(), leftover), []byte("x"), 0o600); err != nil {
			return err
		}
		for range 2 {
			// A session of its own, as a daemon would have.
			daemon := exec.Command("sleep", "300")
			daemon.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
			if err := node.Start(daemon); err != nil {
				return err
			}
		}
		fmt.Println(namespace.HostListener().Addr())
		// As long as the daemons. Blocking for ever would be a deadlock to the
		// runtime, there being no other goroutine.
		time.Sleep(300 * time.Second)
		return nil
	},
}

// program makes a command that performs an act in a sandbox.
type program func(act string, args ...string) *exec.Cmd

// programs are the program as run by each kind of user that it has to work for.
func programs(t *testing.T) map[string]program {
	t.Helper()
	as := func(credential *syscall.Credential) program {
		return func(act string, args ...string) *exec.Cmd {
			// The link opens to everybody, go test's directory only to its owner.
			cmd := exec.CommandContext(t.Context(), "/proc/self/exe", args...)
			cmd.Env = append(os.Environ(), actVariable+"="+act)
			cmd.Dir = "/"
			cmd.Stderr = os.Stderr
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential, Setpgid: true}
			return cmd
		}
	}
	them := map[string]program{"as this user": as(nil)}
	if os.Geteuid() == 0 {
		const nobody = 65534
		them["as an ordinary user"] = as(&syscall.Credential{Uid: nobody, Gid: nobody})
	}
	return them
}

// start starts a program and waits for its first line of output.
func start(t *testing.T, cmd *exec.Cmd) (firstLine string, rest *bufio.Reader) {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	rest = bufio.NewReader(out)
	line, err := rest.ReadString('\n')
	if err != nil {
		t.Fatalf("read the program's first line: %v", err)
	}
	return strings.TrimSpace(line), rest
}

func TestTheProgramInsideIsTheOneThatWasStarted(t *testing.T) {
	for user, program := range programs(t) {
		t.Run(user, func(t *testing.T) {
			cmd := program("echo arguments and input", "-a", "b c")
			cmd.Stdin = strings.NewReader("typed")
			out, _ := cmd.Output()
			if diff := cmp.Diff(`["-a" "b c"] "typed"`, string(out)); diff != "" {
				t.Error(diff)
			}
			if got := cmd.ProcessState.ExitCode(); got != 7 {
				t.Errorf("exit code %d, want 7", got)
			}
		})
	}
}

func TestADeathInsideShowsOutside(t *testing.T) {
	for user, program := range programs(t) {
		t.Run(user, func(t *testing.T) {
			cmd := program("die of a signal")
			_ = cmd.Run()
			if got, want := cmd.ProcessState.ExitCode(), 128+int(unix.SIGKILL); got != want {
				t.Errorf("exit code %d, want %d", got, want)
			}
		})
	}
}

func TestASignalReachesTheProgramOnce(t *testing.T) {
	for user, program := range programs(t) {
		t.Run(user, func(t *testing.T) {
			tests := []struct {
				name   string
				signal syscall.Signal
				group  bool
			}{
				{"sent to the outer process", unix.SIGTERM, false},
				{"sent to the process group, as a terminal does", unix.SIGINT, true},
			}
			for _, test := range tests {
				t.Run(test.name, func(t *testing.T) {
					cmd := program("count signals")
					_, rest := start(t, cmd)
					to := cmd.Process.Pid
					if test.group {
						to = -to
					}
					if err := unix.Kill(to, test.signal); err != nil {
						t.Fatal(err)
					}
					got, err := rest.ReadString('\n')
					if err != nil {
						t.Fatal(err)
					}
					if diff := cmp.Diff(fmt.Sprintln([]os.Signal{test.signal}), got); diff != "" {
						t.Error(diff)
					}
				})
			}
		})
	}
}

func TestSandboxesSideBySideServeTheHost(t *testing.T) {
	for user, program := range programs(t) {
		t.Run(user, func(t *testing.T) {
			var addresses []string
			names := []string{"one", "two"}
			for _, name := range names {
				cmd := program("serve the host")
				cmd.Env = append(cmd.Env, "NAME="+name)
				address, _ := start(t, cmd)
				addresses = append(addresses, address)
			}
			for i, name := range names {
				conn, err := net.Dial("tcp", addresses[i])
				if err != nil {
					t.Fatal(err)
				}
				answer, err := io.ReadAll(conn)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff("hello from "+name, string(answer)); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
}

func TestNothingIsLeftAfterAKill(t *testing.T) {
	for user, program := range programs(t) {
		t.Run(user, func(t *testing.T) {
			for _, victim := range []string{"outer", "init", "main"} {
				t.Run("of "+victim, func(t *testing.T) {
					mounts := mountsOfHost(t)
					mark := fmt.Sprintf("NETLATENCY_LIFETIME_MARK=%d.%d", os.Getpid(), time.Now().UnixNano())
					cmd := program("leave much behind")
					cmd.Env = append(cmd.Env, mark)
					address, _ := start(t, cmd)

					alive := marked(t, mark)
					if len(alive) != 5 {
						t.Fatalf("processes %v, want outer, init, main and two daemons", alive)
					}
					outer := cmd.Process.Pid
					init := childOf(t, alive, outer)
					pid := map[string]int{"outer": outer, "init": init, "main": childOf(t, alive, init)}[victim]
					if err := unix.Kill(pid, unix.SIGKILL); err != nil {
						t.Fatal(err)
					}
					_ = cmd.Wait()

					for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
						// A process loses its environment before its sockets, so
						// no process left is not yet nobody who listens.
						left := marked(t, mark)
						listens := false
						if conn, err := net.Dial("tcp", address); err == nil {
							listens = true
							_ = conn.Close()
						}
						if len(left) == 0 && !listens {
							break
						}
						if time.Now().After(deadline) {
							t.Fatalf("processes left: %v; %s still accepts connections: %t", left, address, listens)
						}
					}
					if diff := cmp.Diff(mounts, mountsOfHost(t)); diff != "" {
						t.Errorf("the host's mounts changed:\n%s", diff)
					}
					if _, err := os.Stat(filepath.Join(namespace.Scratch(), leftover)); err == nil {
						t.Errorf("%s is on the host", leftover)
					}
				})
			}
		})
	}
}

func TestOutsideASandboxNothingIsMade(t *testing.T) {
	if _, err := namespace.NewNode("node", 0); err == nil || !strings.Contains(err.Error(), "namespace.Enter") {
		t.Errorf("got error %v, want one that names namespace.Enter", err)
	}
	if listener := namespace.HostListener(); listener != nil {
		t.Errorf("there is a host listener at %v", listener.Addr())
	}
}

// marked finds the processes whose environment has the mark, which all
// descendants of a marked process inherit.
func marked(t *testing.T, mark string) []int {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, file := range files {
		environment, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(environment), mark) {
			continue
		}
		pid, err := strconv.Atoi(strings.Split(file, "/")[2])
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

func childOf(t *testing.T, pids []int, parent int) int {
	t.Helper()
	for _, pid := range pids {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err == nil && strings.Contains(string(status), fmt.Sprintf("\nPPid:\t%d\n", parent)) {
			return pid
		}
	}
	t.Fatalf("none of %v is a child of %d", pids, parent)
	return 0
}

// mountsOfHost are the mounts at the places where a sandbox has its own.
func mountsOfHost(t *testing.T) []string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(mounts)) {
		if point := strings.Fields(line)[4]; point == "/proc" || point == namespace.Scratch() {
			found = append(found, line)
		}
	}
	return found
}
