// Package memory lets a scheduler take memory that it may use anyway, so that it
// spends less time on collecting garbage.
package memory

import (
	"math"
	"os"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// CollectorPercent is GOGC of a scheduler whose memory is limited. To rate 5000
// nodes for one pod takes 1.5 MB that is garbage afterwards, whichever plugins
// do it, and what is to be kept is hundreds: with Go's 100 a third of the
// processor goes to the collector.
const CollectorPercent = 400

// share of the limit that the heap and all else that the runtime knows of may
// take. The rest is for what it does not know of.
const share = 0.9

// Use sets the runtime's memory limit by that of the control group, and, if
// there is one, lets garbage grow to CollectorPercent of what is alive. As the
// limit comes near, the collector runs more often again, so a scheduler that
// needs most of its memory lives longer than with Go's defaults, not shorter.
// Where nothing limits it, or what is limited cannot be found out, all stays as
// it is: memory that is nobody's is others'. GOMEMLIMIT and GOGC of the
// environment count more.
func Use() { use(memlimit.FromCgroup) }

func use(cgroup memlimit.Provider) {
	limit, err := memlimit.Set(memlimit.WithRatio(share), memlimit.WithProvider(cgroup))
	if err == nil && limit < math.MaxInt64 && os.Getenv("GOGC") == "" {
		debug.SetGCPercent(CollectorPercent)
	}
}
