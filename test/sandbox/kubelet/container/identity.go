package container

import (
	"bufio"
	"fmt"
	"io"
	"os"
)

// HostIDs gives the ids by which this process's user namespace knows a
// container's user and group, for owners of files and for sysctls that hold
// group ids. They are the container's own where all ids are mapped, and 0, 0
// where only one is: there the container runs in a nested user namespace whose
// single id is this process's.
func HostIDs(uid, gid int) (hostUID, hostGID int, err error) {
	nested, err := needsUserNamespace(uid, gid)
	if err != nil || nested {
		return 0, 0, err
	}
	return uid, gid, nil
}

// needsUserNamespace reports whether a process of this user namespace cannot
// become uid and gid by setresuid.
func needsUserNamespace(uid, gid int) (bool, error) {
	for file, id := range map[string]int{"/proc/self/uid_map": uid, "/proc/self/gid_map": gid} {
		f, err := os.Open(file)
		if err != nil {
			return false, fmt.Errorf("read which ids are mapped: %w", err)
		}
		known, err := mapped(f, id)
		f.Close()
		if err != nil {
			return false, fmt.Errorf("read which ids are mapped: %s: %w", file, err)
		}
		if !known {
			return true, nil
		}
	}
	return false, nil
}

// mapped reports whether an id map, as in user_namespaces(7), knows the id.
func mapped(idMap io.Reader, id int) (bool, error) {
	lines := bufio.NewScanner(idMap)
	for lines.Scan() {
		var inside, outside, length int64
		if _, err := fmt.Sscan(lines.Text(), &inside, &outside, &length); err != nil {
			return false, fmt.Errorf("line %q: %w", lines.Text(), err)
		}
		if inside <= int64(id) && int64(id) < inside+length {
			return true, nil
		}
	}
	return false, lines.Err()
}
