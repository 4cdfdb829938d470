package container

// Spec is what a container is started from.
type Spec struct {
	// Hostname is the container's own, the pod's name.
	Hostname string
	// Args is the program and its arguments. The program is looked up inside
	// the container's root, along Env's PATH when it has no slash.
	Args []string
	// Env is the whole environment: nothing is inherited.
	Env []string
	// WorkingDir is a path in the container's root; empty is "/".
	WorkingDir string
	// Root is an existing empty folder on which the container's root is
	// mounted. Only the container sees what is in it.
	Root string
	// ReadOnlyRoot makes the root read-only; Mounts decide for themselves.
	ReadOnlyRoot bool
	// Mounts are bound into the root, parents before children. /proc and a
	// minimal /dev are always there.
	Mounts []Mount
	// Links are symbolic links in the root: path to target.
	Links map[string]string
	// Files are small files in the root, readable by everyone: path to
	// content.
	Files map[string]string
	// UID, GID and Groups are the container's user, as the container sees
	// them. Groups are left out where the ids are not mapped (see HostIDs):
	// an ordinary user cannot hand them out.
	UID, GID int
	Groups   []int
	// Capabilities is the bounding set, names without CAP_. A user other than
	// 0 has no effective capability whatever it says, as in Kubernetes.
	Capabilities []string
	// NoNewPrivileges sets the process attribute of that name.
	NoNewPrivileges bool
}

// Mount binds a file or folder of this machine to a path in the container.
type Mount struct {
	Source, Target string
	ReadOnly       bool
}
