package cluster

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
)

// process is a child with its log file. One goroutine owns it from start to
// end; done is closed after err is set.
type process struct {
	name, log string
	pid       int
	stopping  atomic.Bool
	done      chan struct{}
	err       error // how it ended; read after done
}

// niceness (nice(1)) of the control plane: on a small machine what is measured,
// and what carries its packets, goes first.
const niceness = 10

// startProcess starts a program, under the given name, with its output in
// logDir/name.log. failed is called, once, if it ends before stop.
func startProcess(name, logDir, program string, args, env []string, failed func(error)) (*process, error) {
	path := filepath.Join(logDir, name+".log")
	log, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program, args...)
	cmd.Args[0] = name
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = log, log
	// A group of its own keeps a terminal's Ctrl-C for us: we stop things in
	// order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}

	p := &process{name: name, log: path, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// Pdeathsig fires when the forking thread ends, not the program: this
		// thread is held until the child is gone, and then ends, with what
		// priority it has.
		runtime.LockOSThread()
		_ = syscall.Setpriority(syscall.PRIO_PROCESS, 0, niceness)
		err := cmd.Start()
		_ = log.Close()
		if err == nil {
			p.pid = cmd.Process.Pid
		}
		started <- err
		if err != nil {
			return
		}
		p.err = cmd.Wait()
		close(p.done)
		if !p.stopping.Load() {
			failed(p.crash())
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

// stop kills the process and waits for its end. Its data is thrown away, so
// there is nothing a graceful end would save.
func (p *process) stop() {
	p.stopping.Store(true)
	select {
	case <-p.done: // already reaped: the pid may be another's by now
	default:
		_ = syscall.Kill(p.pid, syscall.SIGKILL)
		<-p.done
	}
}

// crash describes an end nobody asked for.
func (p *process) crash() error {
	how := "exit status 0"
	if p.err != nil {
		how = p.err.Error()
	}
	return fmt.Errorf("%s ended (%s); the end of %s:\n%s", p.name, how, p.log, lastLines(p.log, 15))
}

// lastLines returns up to n lines from the end of a log.
func lastLines(path string, n int) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = f.Close() }()
	const most = 64 << 10
	if size, err := f.Seek(0, io.SeekEnd); err == nil {
		_, _ = f.Seek(max(0, size-most), io.SeekStart)
	}
	data, err := io.ReadAll(f)
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(data), []byte("\n"))
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.TrimSpace(string(bytes.Join(lines, []byte("\n"))))
}
