package namespace

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// scratch is where the sandbox's own tmpfs is mounted. An IPC namespace should
// have a /dev/shm of its own anyway, and a directory that every host has leaves
// no mount point behind on it.
const scratch = "/dev/shm"

// runInit is PID 1 inside: it prepares the mounts, starts main, and reaps until
// main has ended, whose exit code it returns. The kernel then kills the rest.
func runInit() (int, error) {
	if os.Getpid() != 1 {
		return 1, fmt.Errorf("init is not PID 1: unset %s", roleVariable)
	}
	unix.CloseOnExec(signalDescriptor)
	outer := os.NewFile(signalDescriptor, "signals from outside")
	socket := os.NewFile(listenerDescriptor, "host side's listener")
	direct := notify()
	if err := mountOwn(); err != nil {
		return 1, err
	}

	main := Command(roleMain, os.Args[1:]...)
	main.Stdin, main.Stdout, main.Stderr = os.Stdin, os.Stdout, os.Stderr
	main.ExtraFiles = []*os.File{socket}
	if err := main.Start(); err != nil {
		return 1, fmt.Errorf("start the program inside the sandbox: %w", err)
	}
	socket.Close()
	go passSignals(outer, direct, main.Process.Pid)

	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 1, fmt.Errorf("wait for the program inside the sandbox: %w", err)
		case pid == main.Process.Pid:
			return exitCode(status), nil
		}
	}
}

func mountOwn() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the sandbox's mounts private: %w: %s", err, advice(os.ReadFile))
	}
	const plain = unix.MS_NOSUID | unix.MS_NODEV
	if err := unix.Mount("proc", "/proc", "proc", plain|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount the sandbox's /proc: %w: a container whose /proc is partly masked does not allow it; run the sandbox outside of it or in a privileged one", err)
	}
	if err := unix.Mount("tmpfs", scratch, "tmpfs", plain, "mode=1777"); err != nil {
		return fmt.Errorf("mount the sandbox's %s: %w: the directory must exist on the host", scratch, err)
	}
	if err := unix.Sethostname([]byte("netlatency-sandbox")); err != nil {
		return fmt.Errorf("name the sandbox's host: %w", err)
	}
	return nil
}

// sameSignal is how far apart one signal can be seen by two processes of its
// group. The delay is felt only by signals sent to the outer process alone.
const sameSignal = 200 * time.Millisecond

// passSignals gives main the signals that were sent to the outer process.
// A terminal's Ctrl-C goes to the whole process group, main included: then init
// has seen the same signal itself, and passing it on would count as a second
// one, which programs take as an order to give up at once.
func passSignals(outer io.Reader, direct <-chan os.Signal, main int) {
	seen := map[syscall.Signal]time.Time{}
	type notice struct {
		signal syscall.Signal
		at     time.Time
	}
	notices := make(chan notice)
	due := make(chan notice)
	go func() {
		defer close(notices)
		for number := make([]byte, 1); ; {
			if _, err := outer.Read(number); err != nil {
				return
			}
			notices <- notice{syscall.Signal(number[0]), time.Now()}
		}
	}()
	for {
		select {
		case s := <-direct:
			seen[s.(syscall.Signal)] = time.Now()
		case n, open := <-notices:
			if !open {
				// The outer process is gone, and its death signal may have come
				// before it was asked for: end here, and everything inside with us.
				os.Exit(1)
			}
			time.AfterFunc(sameSignal, func() { due <- n })
		case n := <-due:
			if last, ok := seen[n.signal]; ok && last.After(n.at.Add(-sameSignal)) {
				continue
			}
			// Main may have ended meanwhile, which is what the signal wanted.
			_ = syscall.Kill(main, n.signal)
		}
	}
}
