package wan

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"github.com/netlatency/netlatency/test/sandbox/namespace"
)

// role is the hub's process: the program again, in the WAN's network namespace.
const role = "wan"

func init() { namespace.Role(role, runProcess) }

// Descriptors that the hub's process inherits, after the standard three.
const (
	controlDescriptor = 3
	logDescriptor     = 4 // only if there is a log
)

// request is a message to the hub's process. The first one, and only the first,
// is a Setup. Each is answered by a response. Its names and delays have been
// checked by the sender.
type request struct {
	Setup    *setup `json:",omitempty"`
	Links    []Link `json:",omitempty"`
	Counters bool   `json:",omitempty"`
}

type setup struct {
	Nodes []nodeSetup
	Seed  uint64
	Log   bool
}

type nodeSetup struct {
	Name      string
	Index     uint16
	Interface string
	Address   [4]byte
}

type response struct {
	Error    string `json:",omitempty"`
	Counters Counters
}

// runProcess is the hub's process. It ends when its parent closes the control
// connection, and with the sandbox.
func runProcess() int {
	// The collector would stop the thread that must not be late. Packets cause
	// no garbage and a change of links causes little; the limit is for the
	// sandbox that runs for days.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(512 << 20)
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, "wan:", err)
		return 1
	}
	return 0
}

func serve() error {
	control := os.NewFile(controlDescriptor, "control connection")
	conn, err := net.FileConn(control)
	if err != nil {
		return fmt.Errorf("take over the control connection: %w", err)
	}
	control.Close()
	requests, responses := json.NewDecoder(conn), json.NewEncoder(conn)
	var first request
	if err := requests.Decode(&first); err != nil {
		return fmt.Errorf("read the setup: %w", err)
	}
	if first.Setup == nil {
		return errors.New("read the setup: the first request is something else")
	}
	h, err := open(*first.Setup)
	if err != nil {
		return responses.Encode(response{Error: err.Error()})
	}

	permitted := prioritize()
	stop, written := make(chan struct{}), make(chan struct{})
	go func() {
		out := io.Discard
		if first.Setup.Log {
			out = os.NewFile(logDescriptor, "log")
		}
		if err := h.journal.write(out, stop); err != nil {
			// Without the truth nothing that is measured here is worth anything.
			fmt.Fprintln(os.Stderr, "wan:", err)
			os.Exit(1)
		}
		close(written)
	}()
	go func() {
		runtime.LockOSThread()
		// Ordinary threads' timers may be 50 µs late (prctl(2)).
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
		h.run()
	}()
	var answer response
	for {
		answer.Counters.Realtime = permitted
		if err := responses.Encode(answer); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
		var next request
		err := requests.Decode(&next)
		if errors.Is(err, io.EOF) {
			// The parent has closed the connection: what is in the journal is all there will be.
			close(stop)
			<-written
			return nil
		}
		if err != nil {
			return fmt.Errorf("read a request: %w", err)
		}
		answer = h.handle(next)
	}
}

// handle is called by the control connection's goroutine, beside run.
func (h *hub) handle(r request) response {
	positions := map[string]int{}
	for i, n := range h.nodes {
		positions[n.name] = i
	}
	for _, link := range r.Links {
		h.links[positions[link.From]*len(h.nodes)+positions[link.To]].Store(&link.Delay)
	}
	if r.Counters {
		return response{Counters: h.read()}
	}
	return response{}
}

func open(s setup) (*hub, error) {
	receiver, err := openReceiver()
	if err != nil {
		return nil, fmt.Errorf("open the receiving socket: %w", err)
	}
	sender, err := openSender()
	if err != nil {
		return nil, fmt.Errorf("open the sending socket: %w", err)
	}
	var nodes []station
	for _, n := range s.Nodes {
		device, err := net.InterfaceByName(n.Interface)
		if err != nil {
			return nil, fmt.Errorf("find interface %s of node %q: %w", n.Interface, n.Name, err)
		}
		nodes = append(nodes, station{name: n.Name, index: n.Index, device: int32(device.Index), address: n.Address})
	}
	return newHub(receiver, sender, nodes, s.Seed), nil
}
