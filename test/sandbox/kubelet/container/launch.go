package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/netlatency/netlatency/test/sandbox/namespace"
)

// role is what a copy of this program does that is to become a container. The
// copy is made inside the sandbox, where namespace.Enter hands it over.
const role = "container"

func init() { namespace.Role(role, run) }

// Descriptors that the copy inherits, after the standard three: a pipe to read
// the launch from, whose other end stays open as long as this program waits
// for the container to run, and one for the reason why it does not.
const (
	specDescriptor  = 3
	faultDescriptor = 4
)

type launch struct {
	Spec
	// Nested says that the child is already Spec's user, in a user namespace
	// of its own.
	Nested bool
}

// run is the copy's work. It returns only when it could not become a container.
func run() int {
	// Namespaces, capabilities and the parent-death signal are the thread's,
	// and exec keeps those of the thread that calls it.
	runtime.LockOSThread()
	unix.CloseOnExec(specDescriptor)
	unix.CloseOnExec(faultDescriptor)
	spec, fault := os.NewFile(specDescriptor, "spec"), os.NewFile(faultDescriptor, "fault")
	// Nobody is left to hear of it when the fault cannot be written.
	_, _ = fmt.Fprint(fault, become(spec))
	return 1
}

// become turns this process into the container and returns only if it cannot.
func become(parent *os.File) error {
	var l launch
	if err := json.NewDecoder(parent).Decode(&l); err != nil {
		return fmt.Errorf("read the container's specification: %w", err)
	}
	if len(l.Args) == 0 {
		return errors.New("the container has no command")
	}
	if err := unix.Sethostname([]byte(l.Hostname)); err != nil {
		return fmt.Errorf("set hostname %q: %w", l.Hostname, err)
	}
	if err := enterRoot(l.Spec); err != nil {
		return err
	}
	if err := dropPrivileges(l); err != nil {
		return err
	}
	if err := dieWithParent(parent); err != nil {
		return err
	}
	if err := os.Chdir(filepath.Join("/", l.WorkingDir)); err != nil {
		return fmt.Errorf("working directory: %w", err)
	}
	program, err := find(l.Args[0], l.Env)
	if err != nil {
		return err
	}
	err = unix.Exec(program, l.Args, l.Env)
	return fmt.Errorf("exec %s: %w", program, err)
}

func find(program string, env []string) (string, error) {
	const path = "PATH="
	if i := slices.IndexFunc(env, func(e string) bool { return len(e) > len(path) && e[:len(path)] == path }); i >= 0 {
		os.Setenv("PATH", env[i][len(path):])
	}
	return exec.LookPath(program)
}

// dieWithParent renews the parent-death signal, which a change of credentials
// clears. The parent may have died before: then its end of the pipe is closed.
func dieWithParent(parent *os.File) error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("set the parent-death signal: %w", err)
	}
	poll := []unix.PollFd{{Fd: int32(parent.Fd())}}
	if _, err := unix.Poll(poll, 0); err != nil {
		return fmt.Errorf("ask whether the sandbox lives: %w", err)
	}
	if poll[0].Revents&unix.POLLHUP != 0 {
		return errors.New("the sandbox has ended")
	}
	return nil
}
