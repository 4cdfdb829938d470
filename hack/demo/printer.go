package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// A printer tells a person what happens: steps stay, a status is replaced by
// what follows. Where there is no terminal a status is a line of its own, at
// most one every few seconds.
type printer struct {
	w        io.Writer
	terminal bool
	began    time.Time

	mu      sync.Mutex
	pending bool // a status is on the line
	last    time.Time
}

// statusInterval is how often a log is told how far things are.
const statusInterval = 10 * time.Second

func newPrinter(w io.Writer, terminal bool) *printer {
	return &printer{w: w, terminal: terminal, began: began(), last: time.Now()}
}

// Step prints a line with the time since the start.
func (p *printer) Step(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	fmt.Fprintf(p.w, "%s  %s\n", p.stamp(), fmt.Sprintf(format, args...))
	p.last = time.Now()
}

// Status shows how far things are.
func (p *printer) Status(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	if p.terminal {
		p.clear()
		fmt.Fprintf(p.w, "%s  … %s", p.stamp(), text)
		p.pending = true
		return
	}
	if time.Since(p.last) >= statusInterval {
		fmt.Fprintf(p.w, "%s  … %s\n", p.stamp(), text)
		p.last = time.Now()
	}
}

// end takes a status away.
func (p *printer) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
}

func (p *printer) clear() {
	if p.pending {
		fmt.Fprint(p.w, "\r\x1b[K") // ECMA-48: erase to the end of the line
		p.pending = false
	}
}

func (p *printer) stamp() string {
	d := time.Since(p.began).Round(time.Second)
	return fmt.Sprintf("%2d:%02d", int(d.Minutes()), int(d.Seconds())%60)
}

// wrap breaks text into lines of at most width bytes, between words.
func wrap(text string, width int) string {
	var b strings.Builder
	column := 0
	for word := range strings.FieldsSeq(text) {
		if column > 0 && column+1+len(word) > width {
			b.WriteByte('\n')
			column = 0
		} else if column > 0 {
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += len(word)
	}
	return b.String()
}
