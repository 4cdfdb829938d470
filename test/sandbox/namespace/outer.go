package namespace

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// forwarded are the signals that people and their tools send to end a program:
// terminals, shells, init systems, and go test, which asks for a dump of all
// goroutines with SIGQUIT when a test binary takes too long.
var forwarded = []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT}

// runOuter makes the namespaces, starts init in them, and stays behind as the
// process that the caller knows. It returns the code to exit with.
func runOuter() (int, error) {
	// The parent death signal follows the thread that forked, not the process
	// (prctl(2)), so this thread must not end before init does.
	runtime.LockOSThread()

	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 1, fmt.Errorf("open the host side's listener: %w", err)
	}
	socket, err := listener.(*net.TCPListener).File()
	if err != nil {
		return 1, fmt.Errorf("pass the host side's listener on: %w", err)
	}
	signals, pipe, err := os.Pipe()
	if err != nil {
		return 1, fmt.Errorf("make a pipe for signals: %w", err)
	}
	notices := notify()

	init, err := startInit(socket, signals)
	if err != nil {
		return 1, err
	}
	// Only the inside holds the port: it is free again the moment the sandbox is gone.
	listener.Close()
	socket.Close()
	signals.Close()

	go func() {
		for s := range notices {
			// A failed write means that init is gone, which Wait reports.
			_, _ = pipe.Write([]byte{byte(s.(syscall.Signal))})
		}
	}()

	err = init.Wait()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		return 1, fmt.Errorf("wait for the sandbox: %w", err)
	}
	return exitCode(init.ProcessState.Sys().(syscall.WaitStatus)), nil
}

// startInit starts this program as PID 1 of new namespaces. Root keeps its real
// identity, which realtime scheduling needs; everybody else, and root without
// CAP_SYS_ADMIN, becomes root of a new user namespace.
func startInit(socket, signals *os.File) (*exec.Cmd, error) {
	const flags = unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
	command := func() *exec.Cmd {
		cmd := Command(roleInit, os.Args[1:]...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.ExtraFiles = []*os.File{socket, signals}
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: syscall.SIGKILL}
		return cmd
	}
	if os.Geteuid() == 0 {
		cmd := command()
		err := cmd.Start()
		if err == nil {
			return cmd, nil
		}
		if !errors.Is(err, unix.EPERM) {
			return nil, fmt.Errorf("start in new namespaces: %w", err)
		}
	}
	cmd := command()
	cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
	cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
	// An unprivileged process may map a group only after giving up setgroups (user_namespaces(7)).
	cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	cmd.SysProcAttr.GidMappingsEnableSetgroups = false
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start in a new user namespace: %w: %s", err, advice(os.ReadFile))
	}
	return cmd, nil
}

func notify() chan os.Signal {
	notices := make(chan os.Signal, 16)
	for _, s := range forwarded {
		// Under nohup SIGHUP is ignored and has to stay so.
		if !signal.Ignored(s) {
			signal.Notify(notices, s)
		}
	}
	return notices
}

// exitCode is a shell's view of how a process ended.
func exitCode(status syscall.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}
