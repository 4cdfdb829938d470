package wan

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netlatency/netlatency/test/sandbox/namespace"
)

// Options say what a WAN connects.
type Options struct {
	Nodes   []*namespace.Node
	Links   []Link
	LogPath string // made anew; "" for no log
	Seed    uint64 // of the jitter and the loss of every link
}

// WAN is a running hub. Its methods may be called from any goroutine.
type WAN struct {
	nodes map[string]bool

	mu       sync.Mutex // one request at a time
	conn     net.Conn
	requests *json.Encoder
	answers  *json.Decoder

	process *os.Process
	closing sync.Once
	done    chan struct{}
	err     error // set before done is closed
}

// stopGrace is how long the hub's process may take to write the rest of its log.
const stopGrace = 2 * time.Second

// Start starts the hub's process and returns when it carries packets. The
// process ends with ctx, with Close, and with this process.
func Start(ctx context.Context, o Options) (*WAN, error) {
	w, err := start(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("start the WAN: %w", err)
	}
	return w, nil
}

func start(ctx context.Context, o Options) (*WAN, error) {
	if namespace.WAN() == nil {
		return nil, errors.New("not in a sandbox: call namespace.Enter first in main or TestMain")
	}
	first, err := o.setup()
	if err != nil {
		return nil, err
	}
	w := &WAN{nodes: map[string]bool{}, done: make(chan struct{})}
	for _, n := range o.Nodes {
		w.nodes[n.Name] = true
	}
	if err := w.check(o.Links); err != nil {
		return nil, err
	}

	cmd, err := w.launch(o.LogPath)
	if err != nil {
		return nil, err
	}
	w.process = cmd.Process
	w.requests, w.answers = json.NewEncoder(w.conn), json.NewDecoder(w.conn)
	stop := context.AfterFunc(ctx, func() { w.Close() })
	go func() {
		defer stop()
		defer close(w.done)
		if err := cmd.Wait(); err != nil {
			w.err = fmt.Errorf("the WAN's process: %w", err)
		}
	}()

	_, err = w.ask(request{Setup: &first})
	if err == nil {
		_, err = w.ask(request{Links: o.Links})
	}
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

func (o Options) setup() (setup, error) {
	s := setup{Seed: o.Seed, Log: o.LogPath != ""}
	for _, n := range o.Nodes {
		if n.Index < 0 || n.Index > math.MaxUint16 {
			return setup{}, fmt.Errorf("index %d of node %q does not fit a record", n.Index, n.Name)
		}
		s.Nodes = append(s.Nodes, nodeSetup{Name: n.Name, Index: uint16(n.Index), Interface: n.WANInterface, Address: n.WAN.As4()})
	}
	return s, nil
}

// launch starts the process, with its end of the control connection and the log.
func (w *WAN) launch(logPath string) (*exec.Cmd, error) {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make the control connection: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(ends[0]), "control connection"), os.NewFile(uintptr(ends[1]), "control connection")
	defer ours.Close()
	defer theirs.Close()

	cmd := namespace.Command(role)
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{theirs}
	// A Ctrl-C is for those who use the WAN; it ends when they close it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// A spare thread of the Go scheduler is always free when the hub's returns from a wait.
	cmd.Env = append(cmd.Env, "GOMAXPROCS=4")
	if logPath != "" {
		log, err := os.Create(logPath)
		if err != nil {
			return nil, fmt.Errorf("make the log: %w", err)
		}
		defer log.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, log)
	}
	if w.conn, err = net.FileConn(ours); err != nil {
		return nil, fmt.Errorf("make the control connection: %w", err)
	}
	if err := namespace.WAN().Start(cmd); err != nil {
		w.conn.Close()
		return nil, fmt.Errorf("start the process: %w", err)
	}
	return cmd, nil
}

// check reports every fault of the links.
func (w *WAN) check(links []Link) error {
	var faults []error
	for _, l := range links {
		fault := func(err error) {
			faults = append(faults, fmt.Errorf("link from %q to %q: %w", l.From, l.To, err))
		}
		for _, name := range []string{l.From, l.To} {
			if !w.nodes[name] {
				fault(fmt.Errorf("the WAN has no node %q", name))
			}
		}
		if l.From == l.To {
			fault(errors.New("a node is not linked to itself"))
		}
		if err := l.Validate(); err != nil {
			fault(err)
		}
	}
	return errors.Join(faults...)
}

// Set changes links, for the packets that arrive from now on; those on their
// way keep their deadlines. Links that are not given stay as they are. Either
// all are set or, with an error, none.
func (w *WAN) Set(links []Link) error {
	if err := w.check(links); err != nil {
		return fmt.Errorf("set links: %w", err)
	}
	if _, err := w.ask(request{Links: links}); err != nil {
		return fmt.Errorf("set links: %w", err)
	}
	return nil
}

// Counters reports what the WAN has done so far.
func (w *WAN) Counters() (Counters, error) {
	answer, err := w.ask(request{Counters: true})
	if err != nil {
		return Counters{}, fmt.Errorf("read the WAN's counters: %w", err)
	}
	return answer.Counters, nil
}

func (w *WAN) ask(r request) (response, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.requests.Encode(r); err != nil {
		return response{}, w.gone(err)
	}
	var answer response
	if err := w.answers.Decode(&answer); err != nil {
		return response{}, w.gone(err)
	}
	if answer.Error != "" {
		return response{}, errors.New(answer.Error)
	}
	return answer, nil
}

// gone prefers the reason for which the process ended to a broken connection's.
func (w *WAN) gone(err error) error {
	select {
	case <-w.done:
		if w.err != nil {
			return w.err
		}
	case <-time.After(stopGrace):
	}
	return fmt.Errorf("the WAN's process does not answer: %w", err)
}

// Done is closed when the hub's process has ended.
func (w *WAN) Done() <-chan struct{} { return w.done }

// Close ends the hub's process after it has written its whole log. Packets on
// their way are lost. It returns the error with which the process ended, also
// when it had ended before.
func (w *WAN) Close() error {
	w.closing.Do(func() {
		w.conn.Close()
		select {
		case <-w.done:
		case <-time.After(stopGrace):
			_ = w.process.Kill() // an error means that it has ended after all
		}
	})
	<-w.done
	return w.err
}
