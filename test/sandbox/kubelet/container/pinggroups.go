package container

import "fmt"

// PingGroupRange is what to write for a container's sysctl
// net.ipv4.ping_group_range in its network namespace, whose group ids are
// those of this process's user namespace. Where only one is mapped, the whole
// range becomes that one when it holds the container's group, else nobody.
func PingGroupRange(value string, uid, gid int) (string, error) {
	_, hostGID, err := HostIDs(uid, gid)
	if err != nil {
		return "", err
	}
	return pingGroupRange(value, gid, hostGID)
}

func pingGroupRange(value string, gid, hostGID int) (string, error) {
	var low, high int
	if _, err := fmt.Sscan(value, &low, &high); err != nil {
		return "", fmt.Errorf("value %q is not two group ids", value)
	}
	switch {
	case gid == hostGID:
		return fmt.Sprintf("%d %d", low, high), nil
	case low <= gid && gid <= high:
		return fmt.Sprintf("%d %d", hostGID, hostGID), nil
	default:
		return "1 0", nil // the kernel's default: nobody
	}
}
