package container

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// Process is a container that was started.
type Process struct {
	child *exec.Cmd
	done  chan struct{}
}

func supervise(child *exec.Cmd) *Process {
	p := &Process{child: child, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		_ = child.Wait() // how it ended is in the ProcessState
	}()
	return p
}

// Pid is the container's first process as the caller's pid namespace numbers
// it. Inside it is 1.
func (p *Process) Pid() int { return p.child.Process.Pid }

// Signal sends a signal to the container's first process; one that has ended
// is no error. A signal for which it has no handler is lost, except SIGKILL:
// it is the PID 1 of its namespace.
func (p *Process) Signal(signal syscall.Signal) error {
	if err := p.child.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// Done is closed when the container has ended, with all its processes.
func (p *Process) Done() <-chan struct{} { return p.done }

// Exit is how the container ended, valid after Done: its exit code, which is
// 128 + the signal where one ended it, and that signal or 0.
func (p *Process) Exit() (code int, signal syscall.Signal) {
	status := p.child.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return 128 + int(status.Signal()), status.Signal()
	}
	return status.ExitStatus(), 0
}
