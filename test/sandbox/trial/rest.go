package trial

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// After a burst the control plane, kwok and KubeRay go on working for some
// seconds. Searches that share the processors with them would measure that, so
// they wait until the machine has come to rest: restBusy of its processors'
// time, over restInterval, twice in a row, or restPatience on a machine that
// others keep busy.
const (
	restBusy     = 0.5
	restInterval = 500 * time.Millisecond
	restPatience = 10 * time.Second
)

// rest waits until the machine is quiet.
func rest(ctx context.Context) error {
	deadline := time.Now().Add(restPatience)
	before, err := readProcessors()
	if err != nil {
		return err
	}
	for quiet := 0; quiet < 2 && time.Now().Before(deadline); {
		if err := sleep(ctx, restInterval); err != nil {
			return err
		}
		now, err := readProcessors()
		if err != nil {
			return err
		}
		if now.busySince(before) <= restBusy {
			quiet++
		} else {
			quiet = 0
		}
		before = now
	}
	return nil
}

// processors is the time of all processors since the start of the machine, in
// ticks.
type processors struct{ idle, total uint64 }

// busySince is the share of time that was not idle, from 0 to 1.
func (p processors) busySince(before processors) float64 {
	if p.total <= before.total {
		return 0
	}
	return 1 - float64(p.idle-before.idle)/float64(p.total-before.total)
}

func readProcessors() (processors, error) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return processors{}, err
	}
	return parseProcessors(string(data))
}

// parseProcessors reads the first line of /proc/stat (proc_stat(5)): user,
// nice, system, idle, iowait and more, of which idle and iowait are rest.
func parseProcessors(stat string) (processors, error) {
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	if len(fields) < 6 || fields[0] != "cpu" {
		return processors{}, fmt.Errorf("/proc/stat begins with %q: want the line of all processors", line)
	}
	var p processors
	for i, field := range fields[1:] {
		ticks, err := strconv.ParseUint(field, 10, 64)
		if err != nil {
			return processors{}, fmt.Errorf("/proc/stat: %w", err)
		}
		p.total += ticks
		if i == 3 || i == 4 {
			p.idle += ticks
		}
	}
	return p, nil
}
