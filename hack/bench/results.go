package main

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// result is a measured quantity beside its baseline, all in one unit.
type result struct {
	Value        float64   `json:"value"`
	Unit         string    `json:"unit"`
	Baseline     float64   `json:"baseline"`
	BaselineName string    `json:"baseline_name"`
	Target       *float64  `json:"target"` // that Value must reach; nil if none is set
	Better       direction `json:"better"`
}

type direction string

const (
	lower  direction = "lower"
	higher direction = "higher"
)

// results is what build/bench.json holds: results by name, like
// quantity/circumstances/vs_baseline.
type results map[string]result

// add rounds, because digits beyond the fourth decimal are noise in every unit
// used. It refuses what was not measured: 0 would reach most targets. Only
// where it is the target itself it counts.
func (r results) add(name string, m result) error {
	if _, taken := r[name]; taken {
		return fmt.Errorf("%s is there twice", name)
	}
	none := m.Target != nil && *m.Target == 0
	if !(m.Value > 0 || none && m.Value == 0) || !(m.Baseline >= 0) || math.IsInf(m.Value, 0) || math.IsInf(m.Baseline, 0) {
		return fmt.Errorf("%s was not measured: its value is %v, its baseline %v", name, m.Value, m.Baseline)
	}
	m.Value, m.Baseline = rounded(m.Value), rounded(m.Baseline)
	if m.Target != nil {
		m.Target = new(rounded(*m.Target))
	}
	r[name] = m
	return nil
}

func rounded(v float64) float64 { return math.Round(v*1e4) / 1e4 }

// verdict says whether the target is reached; nothing where there is none.
func (m result) verdict() string {
	switch {
	case m.Target == nil:
		return ""
	case m.Better == lower && m.Value <= *m.Target, m.Better == higher && m.Value >= *m.Target:
		return "met"
	}
	return "MISSED"
}

// table writes the results in order of their names.
func (r results) table(w io.Writer) {
	lines := make([][]string, 1, len(r)+1)
	lines[0] = []string{"", "value", "", "baseline", "ratio", "target", ""}
	for _, name := range slices.Sorted(maps.Keys(r)) {
		m := r[name]
		ratio, target := "", ""
		if m.Baseline != 0 {
			ratio = fmt.Sprintf("%.3f", m.Value/m.Baseline)
		}
		if m.Target != nil {
			target = short(*m.Target)
		}
		lines = append(lines, []string{name, short(m.Value), m.Unit, short(m.Baseline), ratio, target, m.verdict()})
	}
	left := map[int]bool{0: true, 2: true, 6: true}
	widths := make([]int, len(lines[0]))
	for _, line := range lines {
		for i, cell := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, line := range lines {
		for i, cell := range line {
			padding := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if left[i] {
				line[i] = cell + padding
			} else {
				line[i] = padding + cell
			}
		}
		fmt.Fprintln(w, strings.TrimRight(strings.Join(line, "  "), " "))
	}
}

// short has four significant digits, more only before the point.
func short(v float64) string {
	if math.Abs(v) >= 1000 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}
