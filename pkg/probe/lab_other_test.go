//go:build !linux

package probe

// inLab runs the tests where they are: only Linux has network namespaces.
func inLab(run func() int) int { return run() }
