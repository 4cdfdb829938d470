package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
	"sigs.k8s.io/yaml"
)

// Formats of output.
const (
	outputTable = "table"
	outputWide  = "wide"
	outputJSON  = "json"
	outputYAML  = "yaml"
)

var outputs = []string{outputTable, outputWide, outputJSON, outputYAML}

// oneOf says what is wrong with the value of a flag.
func oneOf(flag, value string, values []string) error {
	if !slices.Contains(values, value) {
		return fmt.Errorf("%s is %q: want one of %s", flag, value, strings.Join(values, ", "))
	}
	return nil
}

// print writes an object for programs.
func (o *options) print(format string, object any) error {
	text, err := json.MarshalIndent(object, "", "  ")
	if err == nil && format == outputYAML {
		text, err = yaml.JSONToYAML(text)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(o.Out, strings.TrimSuffix(string(text), "\n"))
	return err
}

// table is rows of fields, the first of which are titles.
type table [][]field

type field struct {
	text  string
	right bool     // in its column
	heat  *float64 // a latency in milliseconds that gives it a colour
}

// columnGap is between columns, as in kubectl's tables.
const columnGap = "   "

func (t table) write(out io.Writer, p painter) error {
	var widths []int
	for _, row := range t {
		for i, f := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(f.text))
		}
	}
	var b strings.Builder
	for _, row := range t {
		var line strings.Builder
		for i, f := range row {
			space := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(f.text))
			text := p.paint(f)
			if i > 0 {
				line.WriteString(columnGap)
			}
			if f.right {
				line.WriteString(space + text)
			} else {
				line.WriteString(text + space)
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// Whether a table has colours.
const (
	colourAuto   = "auto"
	colourAlways = "always"
	colourNever  = "never"
)

var colours = []string{colourAuto, colourAlways, colourNever}

// painter colours latencies; the zero value does not.
type painter struct{ on bool }

// painter has colours if it is told to, or for a terminal that wants them
// (no-color.org).
func (o *options) painter(when string) painter {
	switch when {
	case colourAlways:
		return painter{true}
	case colourNever:
		return painter{}
	}
	file, ok := o.Out.(*os.File)
	return painter{ok && term.IsTerminal(int(file.Fd())) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

// heat is the colours from near to far, of the 256 that terminals have, on a
// scale of logarithms from coldest to hottest, in milliseconds. They differ in
// brightness as well, for who does not see red from green.
var heat = []int{46, 82, 118, 154, 190, 226, 220, 214, 208, 202, 196}

const (
	coldest = 0.05
	hottest = 10
)

func (p painter) paint(f field) string {
	if !p.on || f.heat == nil {
		return f.text
	}
	share := math.Log(max(*f.heat, coldest)/coldest) / math.Log(hottest/coldest)
	colour := heat[min(int(share*float64(len(heat))), len(heat)-1)]
	return fmt.Sprintf("\x1b[38;5;%dm%s\x1b[0m", colour, f.text)
}
