package wan

import (
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// prioritize gives the process its place before those that it serves, and
// reports whether that is SCHED_FIFO. Rootless it cannot be: then a short slice
// at least lets it preempt a running process when it wakes up (EEVDF's
// PREEMPT_SHORT, Linux 6.12; older kernels ignore the slice).
//
// It is all of the process's threads, those of the Go scheduler too, since the
// hub's thread now and then waits for one of them; later ones inherit it.
func prioritize() (realtime bool) {
	if setAttributes(unix.SchedAttr{Policy: unix.SCHED_FIFO, Priority: 1}) {
		return true
	}
	const shortest = 100 * time.Microsecond // sched_setattr(2) clamps to it
	setAttributes(unix.SchedAttr{Policy: unix.SCHED_NORMAL, Runtime: uint64(shortest)})
	return false
}

func setAttributes(attributes unix.SchedAttr) bool {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return false
	}
	attributes.Size = unix.SizeofSchedAttr
	for _, t := range threads {
		id, err := strconv.Atoi(t.Name())
		if err != nil || unix.SchedSetAttr(id, &attributes, 0) != nil {
			return false
		}
	}
	return true
}
