package memory

import (
	"errors"
	"math"
	"runtime/debug"
	"testing"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

func TestUse(t *testing.T) {
	const before = 100
	for name, test := range map[string]struct {
		cgroup  memlimit.Provider
		gogc    string
		limit   int64
		percent int
	}{
		"a limit":           {memlimit.Limit(1000 << 20), "", 900 << 20, CollectorPercent},
		"none":              {func() (uint64, error) { return 0, memlimit.ErrNoLimit }, "", math.MaxInt64, before},
		"nobody knows":      {func() (uint64, error) { return 0, errors.New("no such file") }, "", math.MaxInt64, before},
		"the user has said": {memlimit.Limit(1000 << 20), "100", 900 << 20, before},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("GOGC", test.gogc)
			percent, limit := debug.SetGCPercent(before), debug.SetMemoryLimit(math.MaxInt64)
			use(test.cgroup)
			if got := debug.SetMemoryLimit(limit); got != test.limit {
				t.Errorf("the limit is %d, want %d", got, test.limit)
			}
			if got := debug.SetGCPercent(percent); got != test.percent {
				t.Errorf("GOGC is %d, want %d", got, test.percent)
			}
		})
	}
}
