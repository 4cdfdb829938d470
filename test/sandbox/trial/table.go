package trial

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Modes are the ways to place workers that a trial compares, in order.
var Modes = []string{ModeDefault, ModePinned, ModeNetLatency}

// The ways to place workers.
const (
	// ModeDefault leaves it to the default scheduler.
	ModeDefault = "default"
	// ModePinned is the default scheduler and a node affinity, by hand, to the
	// provider that was best at the start.
	ModePinned = "pinned"
	// ModeNetLatency is schedulerName: netlatency-scheduler and nothing else.
	ModeNetLatency = "netlatency"
)

// The phases of a trial.
const (
	PhaseSteady = "steady"
	PhaseDrift  = "drift"
)

// Escape sequences of ECMA-48 (SGR).
const (
	bold  = "\x1b[1m"
	faint = "\x1b[2m"
	green = "\x1b[32m"
	red   = "\x1b[31m"
	reset = "\x1b[0m"
)

type column struct {
	title, unit string
	value       func(*Mode) string
	// score is what the best and the worst mode of a phase are told by, lower
	// is better; nil where there is no better.
	score func(*Mode) float64
}

var columns = []column{
	{"workers", "bound", func(m *Mode) string { return fmt.Sprintf("%d/%d", m.Bound, m.Workers) }, func(m *Mode) float64 { return -float64(m.Bound) }},
	{"on near", "nodes", func(m *Mode) string { return fmt.Sprintf("%.0f %%", 100*m.NearShare) }, func(m *Mode) float64 { return -m.NearShare }},
	{"cost", "ms", func(m *Mode) string { return fmt.Sprintf("%.2f", m.Cost) }, func(m *Mode) float64 { return m.Cost }},
	{"against", "best", func(m *Mode) string { return fmt.Sprintf("× %.2f", m.CostVsBest) }, func(m *Mode) float64 { return m.CostVsBest }},
	{"network", "p50 ms", func(m *Mode) string { return fmt.Sprintf("%.2f", m.SearchNetP50) }, func(m *Mode) float64 { return m.SearchNetP50 }},
	{"of a search", "p99 ms", func(m *Mode) string { return fmt.Sprintf("%.2f", m.SearchNetP99) }, func(m *Mode) float64 { return m.SearchNetP99 }},
	{"wall clock", "p50 ms", func(m *Mode) string { return fmt.Sprintf("%.1f", m.SearchP50) }, func(m *Mode) float64 { return m.SearchP50 }},
	{"of a search", "p99 ms", func(m *Mode) string { return fmt.Sprintf("%.1f", m.SearchP99) }, func(m *Mode) float64 { return m.SearchP99 }},
	{"bound in", "s", func(m *Mode) string { return fmt.Sprintf("%.1f", m.SecondsToBound) }, nil},
}

// Table prints the phases for a person: one row a mode, aligned; where colour
// is wanted, the best of a phase in green and the worst in red.
func (r *Report) Table(w io.Writer, colour bool) {
	paint := func(text string, codes ...string) string {
		if !colour || len(codes) == 0 {
			return text
		}
		return strings.Join(codes, "") + text + reset
	}
	nameWidth := len("phase")
	for _, mode := range Modes {
		nameWidth = max(nameWidth, len(mode)+2)
	}
	widths := make([]int, len(columns))
	for i, c := range columns {
		widths[i] = max(utf8.RuneCountInString(c.title), utf8.RuneCountInString(c.unit))
		for _, p := range r.Phases {
			for _, m := range p.Modes {
				widths[i] = max(widths[i], utf8.RuneCountInString(c.value(m)))
			}
		}
	}
	line := func(name string, cell func(int, column) (string, []string)) {
		fmt.Fprint(w, name, strings.Repeat(" ", nameWidth-utf8.RuneCountInString(name)))
		for i, c := range columns {
			text, codes := cell(i, c)
			fmt.Fprint(w, "  ", strings.Repeat(" ", widths[i]-utf8.RuneCountInString(text)), paint(text, codes...))
		}
		fmt.Fprintln(w)
	}
	line("", func(_ int, c column) (string, []string) { return c.title, []string{faint} })
	line("", func(_ int, c column) (string, []string) { return c.unit, []string{faint} })
	for _, phase := range r.Phases {
		fmt.Fprintln(w, paint(phase.Name, bold))
		for _, name := range Modes {
			mode := phase.Modes[name]
			if mode == nil {
				continue
			}
			line("  "+name, func(_ int, c column) (string, []string) {
				text := c.value(mode)
				switch standing(phase, mode, c) {
				case -1:
					return text, []string{green}
				case 1:
					return text, []string{red}
				}
				return text, nil
			})
		}
	}
}

// standing is -1 for a mode that is among the best of its phase in a column,
// 1 for one among the worst, and 0 otherwise or where all are alike. A
// difference of less than 5 % is none.
func standing(phase Phase, mode *Mode, c column) int {
	if c.score == nil {
		return 0
	}
	const alike = 0.05
	best, worst := c.score(mode), c.score(mode)
	for _, m := range phase.Modes {
		best, worst = min(best, c.score(m)), max(worst, c.score(m))
	}
	margin := alike * max(best, -best)
	switch own := c.score(mode); {
	case worst-best <= margin:
		return 0
	case own-best <= margin:
		return -1
	case worst-own <= margin:
		return 1
	}
	return 0
}

// Summary says in two sentences what the trial showed.
func (r *Report) Summary() string {
	var sentences []string
	if p := r.Phase(PhaseSteady); p != nil {
		if d, pin, n := p.Modes[ModeDefault], p.Modes[ModePinned], p.Modes[ModeNetLatency]; d != nil && pin != nil && n != nil {
			sentences = append(sentences, fmt.Sprintf(
				"With nothing but schedulerName, %.0f %% of the workers landed on the nearest nodes that had room, and the slowest searches spent %.1f ms on the network: %s the default scheduler's %.1f ms and %s the %.1f ms of pinning by hand.",
				100*n.NearShare, n.SearchNetP99, ratio(n.SearchNetP99, d.SearchNetP99), d.SearchNetP99, ratio(n.SearchNetP99, pin.SearchNetP99), pin.SearchNetP99))
		}
	}
	if p := r.Phase(PhaseDrift); p != nil {
		if pin, n := p.Modes[ModePinned], p.Modes[ModeNetLatency]; pin != nil && n != nil {
			sentences = append(sentences, fmt.Sprintf(
				"When the network changed, the next burst followed it: %.1f ms for the slowest searches, %s the %.1f ms of the workers that stayed where they were pinned.",
				n.SearchNetP99, ratio(n.SearchNetP99, pin.SearchNetP99), pin.SearchNetP99))
		}
	}
	return strings.Join(sentences, " ")
}

// ratio puts a against b in words.
func ratio(a, b float64) string {
	switch {
	case b <= 0:
		return "against"
	case a/b > 0.95 && a/b < 1.05:
		return "level with"
	case a/b < 1:
		return fmt.Sprintf("%.0f %% of", 100*a/b)
	}
	return fmt.Sprintf("%.1f times", a/b)
}
