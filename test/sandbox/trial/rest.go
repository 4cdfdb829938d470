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
// they wait until the machine has come to rest: no more than restBusy of its
// processors' time in use and restStolen taken by other machines of its host,
// over restInterval, twice in a row, or restPatience where others do not rest.
const (
	restBusy     = 0.5
	restStolen   = 0.05
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
		if busy, stolen := now.since(before); busy <= restBusy && stolen <= restStolen {
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
type processors struct{ idle, stolen, total uint64 }

// since says which share of the time, from 0 to 1, was not idle, and which was
// stolen.
func (p processors) since(before processors) (busy, stolen float64) {
	if p.total <= before.total {
		return 0, 0
	}
	total := float64(p.total - before.total)
	return 1 - float64(p.idle-before.idle)/total, float64(p.stolen-before.stolen) / total
}

func readProcessors() (processors, error) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return processors{}, err
	}
	return parseProcessors(string(data))
}

// parseProcessors reads the first line of /proc/stat (proc_stat(5)): user,
// nice, system, idle, iowait, irq, softirq, stolen and more, of which idle and
// iowait are rest.
func parseProcessors(stat string) (processors, error) {
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return processors{}, fmt.Errorf("/proc/stat begins with %q: want the line of all processors", line)
	}
	var p processors
	for i, field := range fields[1:] {
		ticks, err := strconv.ParseUint(field, 10, 64)
		if err != nil {
			return processors{}, fmt.Errorf("/proc/stat: %w", err)
		}
		p.total += ticks
		switch i {
		case 3, 4:
			p.idle += ticks
		case 7:
			p.stolen = ticks
		}
	}
	return p, nil
}
