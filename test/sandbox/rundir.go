package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// A runDir is the directory of one run, locked while it is in use. What a
// killed run left is removed by the next one.
type runDir struct {
	path string
	lock *os.File
}

const lockName = "lock"

// newRunDir makes a directory below parent and removes those of runs that have
// ended.
func newRunDir(parent string) (*runDir, error) {
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return nil, err
	}
	if err := removeAbandoned(parent); err != nil {
		return nil, err
	}
	path, err := os.MkdirTemp(parent, "run-")
	if err != nil {
		return nil, err
	}
	lock, err := lockDir(path)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return &runDir{path, lock}, nil
}

func (d *runDir) remove() error {
	defer d.lock.Close()
	return os.RemoveAll(d.path)
}

// lockDir takes the lock of a run's directory; unix.EWOULDBLOCK says that the
// run goes on. The kernel drops the lock with the process that holds it.
func lockDir(path string) (*os.File, error) {
	lock, err := os.OpenFile(filepath.Join(path, lockName), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return nil, err
	}
	return lock, nil
}

func removeAbandoned(parent string) error {
	old, err := filepath.Glob(filepath.Join(parent, "run-*"))
	if err != nil {
		return err
	}
	for _, path := range old {
		// A directory without a lock file is one that another run is making
		// just now, or what is left of a removal.
		if _, err := os.Stat(filepath.Join(path, lockName)); err != nil {
			continue
		}
		lock, err := lockDir(path)
		if err != nil {
			continue // in use, or another user's
		}
		err = os.RemoveAll(path)
		lock.Close()
		if err != nil && !errors.Is(err, os.ErrPermission) {
			return err
		}
	}
	return nil
}

// SaveLogs copies the logs of all parts to a directory, which it empties
// first. Call it before Stop, which removes them.
func (s *Sandbox) SaveLogs(to string) error {
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	return filepath.WalkDir(s.dir.path, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".log" || path == s.Log {
			return err
		}
		name, err := filepath.Rel(s.dir.path, path)
		if err != nil {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, strings.ReplaceAll(name, string(filepath.Separator), "_"))
		if err := os.MkdirAll(to, 0o755); err != nil {
			return err
		}
		return os.WriteFile(target, data, 0o644)
	})
}
