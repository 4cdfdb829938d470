package probe

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// waiter waits for descriptors. Its epoll(7) instance is itself one descriptor of
// the runtime's poller, for two reasons.
//
// A goroutine that waits in poll(2) keeps a processor of the runtime, which the
// runtime's monitor then looks after every 20 µs to 10 ms: that cost as much as
// all packets to and from 1000 peers together. Other system calls here do not
// block, and do without telling the runtime (RawSyscall), which would wake the
// monitor as well.
//
// And the runtime takes an event of a socket which is only an error (POLLERR, a
// transmit stamp) for a broken descriptor when the send buffer is full
// (runtime/netpoll_epoll.go, setEventErr). An epoll instance has no such event.
type waiter struct {
	file  *os.File // of the epoll instance
	raw   syscall.RawConn
	event int // an eventfd that ends a wait
	epoll int
	look  func(fd uintptr) bool // whether there is something

	deadline time.Time
	events   []unix.EpollEvent
	fired    []unix.EpollEvent // at the front of events
	failure  unix.Errno        // of look
}

// woken is the Fd of the event of wake.
const woken = -1

// newWaiter makes a waiter that looks for so many events at once.
func newWaiter(room int) (*waiter, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create: %w", err)
	}
	if err := unix.SetNonblock(epoll, true); err != nil {
		unix.Close(epoll)
		return nil, fmt.Errorf("set an epoll descriptor to non-blocking: %w", err)
	}
	w := &waiter{
		file:   os.NewFile(uintptr(epoll), "epoll"), // which is polled since it does not block
		event:  -1,
		epoll:  epoll,
		events: make([]unix.EpollEvent, room+1),
	}
	if err := w.setUp(); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *waiter) setUp() (err error) {
	if err := w.file.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("have an epoll descriptor polled: %w", err)
	}
	if w.raw, err = w.file.SyscallConn(); err != nil {
		return err
	}
	if w.event, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	w.look = func(fd uintptr) bool {
		var n uintptr
		n, _, w.failure = unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, fd, uintptr(unsafe.Pointer(&w.events[0])), uintptr(len(w.events)), 0, 0, 0)
		if w.failure != 0 {
			n = 0
		}
		w.fired = w.events[:n]
		return n > 0 || w.failure != 0
	}
	return w.watch(w.event, unix.EpollEvent{Events: unix.EPOLLIN, Fd: woken})
}

// watch begins to wait for a descriptor. Pad of the event and, from 0 on, Fd
// are the caller's own.
func (w *waiter) watch(fd int, event unix.EpollEvent) error {
	return w.control(unix.EPOLL_CTL_ADD, fd, event)
}

// again goes on to wait for one that is reported once.
func (w *waiter) again(fd int, event unix.EpollEvent) error {
	return w.control(unix.EPOLL_CTL_MOD, fd, event)
}

func (w *waiter) control(operation, fd int, event unix.EpollEvent) error {
	if err := unix.EpollCtl(w.epoll, operation, fd, &event); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}

// wait returns when a descriptor has something, at the deadline, or on wake;
// never before it has looked. The events are valid until the next call; that of
// wake is among them.
func (w *waiter) wait(deadline time.Time) ([]unix.EpollEvent, error) {
	if !deadline.Equal(w.deadline) {
		w.deadline = deadline
		if err := w.file.SetReadDeadline(deadline); err != nil {
			return nil, fmt.Errorf("set deadline: %w", err)
		}
	}
	err := w.raw.Read(w.look)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		// What came before the deadline was in time, also for a process that
		// was stopped until after it.
		w.look(uintptr(w.epoll))
		err = nil
	}
	if err == nil && w.failure != 0 {
		err = fmt.Errorf("epoll_pwait: %w", w.failure)
	}
	if err != nil {
		return nil, fmt.Errorf("wait for sockets: %w", err)
	}
	return w.fired, nil
}

// wake ends a wait, and all that come after. It may be called at any time
// before close.
func (w *waiter) wake() {
	one := [8]byte{1}
	_, _ = unix.Write(w.event, one[:])
}

func (w *waiter) close() {
	if w.event >= 0 {
		unix.Close(w.event)
	}
	w.file.Close()
}
