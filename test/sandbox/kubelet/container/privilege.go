package container

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// dropPrivileges makes the calling thread the container's user with no more
// than its capabilities. The thread must be the one that calls exec.
func dropPrivileges(l launch) error {
	// First, while CAP_SETPCAP is there to do it with. The kernel may know
	// capabilities that have no name here; they go as well.
	for number := uintptr(0); ; number++ {
		if int(number) < len(names) && slices.Contains(l.Capabilities, names[number]) {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, number, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) && int(number) >= len(names) {
			break
		}
		if err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("drop capability %d: %w", number, err)
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clear ambient capabilities: %w", err)
	}
	if !l.Nested {
		if err := unix.Setgroups(l.Groups); err != nil && len(l.Groups) > 0 {
			return fmt.Errorf("set groups %v: %w", l.Groups, err)
		}
		if err := unix.Setresgid(l.GID, l.GID, l.GID); err != nil {
			return fmt.Errorf("become group %d: %w", l.GID, err)
		}
		if err := unix.Setresuid(l.UID, l.UID, l.UID); err != nil {
			return fmt.Errorf("become user %d: %w", l.UID, err)
		}
	}
	if err := clearCapabilities(l.UID != 0); err != nil {
		return fmt.Errorf("clear capabilities: %w", err)
	}
	if l.NoNewPrivileges {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("set no_new_privs: %w", err)
		}
	}
	return nil
}

// clearCapabilities empties the inheritable set, and for a user other than 0
// the others. For user 0 exec fills those from the bounding set.
func clearCapabilities(all bool) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if !all {
		if err := unix.Capget(&header, &sets[0]); err != nil {
			return err
		}
	}
	for i := range sets {
		sets[i].Inheritable = 0
	}
	return unix.Capset(&header, &sets[0])
}
