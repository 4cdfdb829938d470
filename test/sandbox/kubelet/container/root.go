package container

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// devices of the container's /dev, bound from this machine's: a user
// namespace may not make device nodes.
var devices = []string{"null", "zero", "full", "random", "urandom"}

// Folders and files of the root belong to nobody the container may act as, as
// in an image owned by root. A nested user namespace knows only the
// container's own user, so what keeps that user from writing is the mode.
const (
	folderMode = 0o555
	fileMode   = 0o444
)

// enterRoot builds the container's root and makes it this process's, with
// nothing of this machine left to reach.
func enterRoot(spec Spec) error {
	// What is mounted from here on stays in this mount namespace.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("root", spec.Root, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0555"); err != nil {
		return fmt.Errorf("mount root on %s: %w", spec.Root, err)
	}
	r := root(spec.Root)
	if err := r.populate(spec); err != nil {
		return err
	}
	// The old root ends up on top of the new one and is taken away from there,
	// pivot_root(2) "pivot_root(".", ".")".
	if err := os.Chdir(spec.Root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("change root to %s: %w", spec.Root, err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach the machine's root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	if spec.ReadOnlyRoot {
		if err := restrict("/", 0, unix.MOUNT_ATTR_RDONLY); err != nil {
			return fmt.Errorf("make the root read-only: %w", err)
		}
	}
	return nil
}

// root is the folder on which the container's root is being built.
type root string

// path is where a path of the container is now.
func (r root) path(inside string) string {
	return filepath.Join(string(r), filepath.Join("/", inside))
}

func (r root) populate(spec Spec) error {
	// Before the machine's /proc is out of sight: the kernel lets a user
	// namespace mount proc only where a whole one is visible.
	if err := os.Mkdir(r.path("/proc"), folderMode); err != nil {
		return err
	}
	if err := unix.Mount("proc", r.path("/proc"), "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	for _, device := range devices {
		if err := r.bind(Mount{Source: "/dev/" + device, Target: "/dev/" + device}); err != nil {
			return err
		}
	}
	for link, target := range map[string]string{
		"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0",
		"/dev/stdout": "/proc/self/fd/1", "/dev/stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(target, r.path(link)); err != nil {
			return err
		}
	}
	for _, link := range slices.Sorted(maps.Keys(spec.Links)) {
		if err := os.MkdirAll(filepath.Dir(r.path(link)), folderMode); err != nil {
			return err
		}
		if err := os.Symlink(spec.Links[link], r.path(link)); err != nil {
			return err
		}
	}
	for _, file := range slices.Sorted(maps.Keys(spec.Files)) {
		if err := r.write(file, spec.Files[file]); err != nil {
			return err
		}
	}
	// Shorter paths first, so that a mount inside another one is not hidden.
	mounts := slices.SortedStableFunc(slices.Values(spec.Mounts), func(a, b Mount) int {
		return strings.Count(filepath.Clean(a.Target), "/") - strings.Count(filepath.Clean(b.Target), "/")
	})
	for _, m := range mounts {
		if err := r.bind(m); err != nil {
			return err
		}
	}
	return nil
}

func (r root) write(file, content string) error {
	if err := os.MkdirAll(filepath.Dir(r.path(file)), folderMode); err != nil {
		return err
	}
	return os.WriteFile(r.path(file), []byte(content), fileMode)
}

func (r root) bind(m Mount) error {
	info, err := os.Stat(m.Source)
	if err != nil {
		return fmt.Errorf("mount %s: %w", m.Target, err)
	}
	target := r.path(m.Target)
	if info.IsDir() {
		err = os.MkdirAll(target, folderMode)
	} else if _, missing := os.Lstat(target); missing != nil {
		err = r.write(m.Target, "")
	}
	if err != nil {
		return fmt.Errorf("make mount point %s: %w", m.Target, err)
	}
	if err := unix.Mount(m.Source, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mount %s on %s: %w", m.Source, m.Target, err)
	}
	if !m.ReadOnly {
		return nil
	}
	if err := restrict(target, unix.AT_RECURSIVE, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV); err != nil {
		return fmt.Errorf("make %s read-only: %w", m.Target, err)
	}
	return nil
}

// restrict adds attributes to a mount. Unlike a remount it leaves alone the
// flags that the mount has, which a user namespace may not take away.
func restrict(path string, flags uint, attributes uint64) error {
	return unix.MountSetattr(unix.AT_FDCWD, path, flags, &unix.MountAttr{Attr_set: attributes})
}
