package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/netlatency/netlatency/test/sandbox/namespace"
)

// Starter starts containers in one network namespace.
//
// It owns a thread that has joined the namespace and that lives as long as
// the Starter's context: children inherit the namespace of the thread that
// forks them, and PDEATHSIG, by which the kernel kills them when this process
// dies however it dies, follows that thread too.
type Starter struct {
	tasks chan func()
	gone  <-chan struct{}
}

// NewStarter joins the network namespace at the path netns, for instance a
// node's Path. Containers die with ctx.
func NewStarter(ctx context.Context, netns string) (*Starter, error) {
	s := &Starter{tasks: make(chan func()), gone: ctx.Done()}
	joined := make(chan error, 1)
	go func() {
		// Never unlocked: a thread that has changed its namespace must not be
		// used for anything else, and ends with the goroutine.
		runtime.LockOSThread()
		err := join(netns)
		joined <- err
		for err == nil {
			select {
			case task := <-s.tasks:
				task()
			case <-ctx.Done():
				return
			}
		}
	}()
	if err := <-joined; err != nil {
		return nil, fmt.Errorf("join network namespace %s: %w", netns, err)
	}
	return s, nil
}

func join(netns string) error {
	fd, err := unix.Open(netns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Setns(fd, unix.CLONE_NEWNET)
}

// Do runs f on the Starter's thread, so that sockets it opens and files it
// writes below /proc/sys/net belong to the network namespace.
func (s *Starter) Do(f func() error) error {
	result := make(chan error, 1)
	select {
	case s.tasks <- func() { result <- f() }:
		return <-result
	case <-s.gone:
		return errors.New("the sandbox is stopping")
	}
}

// Start starts a container that writes its output to log. It returns when the
// container's program runs, or with the reason why it does not.
func (s *Starter) Start(spec Spec, log *os.File) (*Process, error) {
	var process *Process
	err := s.Do(func() (err error) {
		process, err = start(spec, log)
		return err
	})
	return process, err
}

func start(spec Spec, log *os.File) (*Process, error) {
	specRead, specWrite, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer specRead.Close()
	defer specWrite.Close()
	faultRead, faultWrite, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer faultRead.Close()
	defer faultWrite.Close()

	child := namespace.Command(role)
	child.Stdout, child.Stderr = log, log
	child.ExtraFiles = []*os.File{specRead, faultWrite}
	child.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		Pdeathsig:  unix.SIGKILL,
		// A session of its own: Ctrl-C at the terminal is for the sandbox,
		// which then stops its pods in order.
		Setsid: true,
	}
	nested, err := needsUserNamespace(spec.UID, spec.GID)
	if err != nil {
		return nil, err
	}
	if nested {
		child.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		child.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: spec.UID, HostID: 0, Size: 1}}
		child.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: spec.GID, HostID: 0, Size: 1}}
		// The child is not user 0 in there, so exec would take the
		// capabilities of the new namespace that it builds the root with.
		child.SysProcAttr.AmbientCaps = []uintptr{
			unix.CAP_SYS_ADMIN, unix.CAP_SETPCAP, unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER,
		}
	}
	if err := child.Start(); err != nil {
		return nil, fmt.Errorf("fork the container: %w", err)
	}
	specRead.Close()
	faultWrite.Close()
	// A child that died early fails the write; its fault says more.
	writeErr := json.NewEncoder(specWrite).Encode(launch{Spec: spec, Nested: nested})
	fault, err := io.ReadAll(io.LimitReader(faultRead, 4096))
	if err = errors.Join(writeErr, err); len(fault) > 0 {
		err = errors.New(string(fault))
	}
	if err != nil {
		// It has failed already; this leaves nothing of it.
		_ = child.Process.Kill()
		_ = child.Wait()
		return nil, err
	}
	return supervise(child), nil
}
