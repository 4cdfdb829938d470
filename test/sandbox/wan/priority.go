package wan

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// prioritize puts the process before all ordinary ones, under SCHED_FIFO, and
// reports whether that was permitted; in a user namespace it is not.
//
// It is all of the process's threads, those of the Go scheduler too, since the
// hub's thread now and then waits for one of them; later ones inherit it.
func prioritize() (permitted bool) {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return false
	}
	attributes := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}
	for _, t := range threads {
		id, err := strconv.Atoi(t.Name())
		if err != nil || unix.SchedSetAttr(id, &attributes, 0) != nil {
			return false
		}
	}
	return true
}
