// Package machine is about what tests need of the machine that they run on.
package machine

import (
	"net"
	"os"
	"testing"
)

// Complete is an environment variable. Where it is set every test must run: what
// a machine lacks is a failure there.
const Complete = "NETLATENCY_TEST_COMPLETE"

// Lacks ends a test that this machine cannot run, with the reason: for a
// contributor it is skipped, where Complete is set it fails.
func Lacks(tb testing.TB, format string, arguments ...any) {
	tb.Helper()
	if os.Getenv(Complete) != "" {
		tb.Fatalf(format+"; "+Complete+" is set, and no test may be left out", arguments...)
		return
	}
	tb.Skipf(format, arguments...)
}

// NeedsIPv6 ends a test on a machine without an IPv6 loopback.
func NeedsIPv6(tb testing.TB) {
	tb.Helper()
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		Lacks(tb, "this machine has no IPv6 loopback: %v", err)
		return
	}
	_ = l.Close()
}
