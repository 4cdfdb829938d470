package source

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/netlatency/netlatency/pkg/latency"
)

// FileOptions configures File.
type FileOptions struct {
	// Path of the recording. It need not exist yet.
	Path string
	// Interval is the time from one look at the file to the next. It is read
	// again only when it has changed.
	Interval time.Duration
	// Ageing lets the recording grow older from the time it was recorded, and
	// its pairs leave the matrix when they are older than StaleAfter. Without
	// it every pair stays as fresh as it was when it was recorded.
	Ageing     bool
	StaleAfter time.Duration
	// Publish takes each new matrix, from the goroutine of Run, which waits for
	// it. There is one at each look at the file.
	Publish func(*latency.Matrix)
	// Clock is the real clock when nil.
	Clock clock.Clock
}

// File is a recorded matrix that stands for a measured one: for simulation,
// tests and bug reports. A file that can no longer be read leaves the matrix
// that was read last.
//
// The goroutine of Run owns all state. Readers share what it publishes, the
// matrices and Stats.
type File struct {
	options FileOptions
	clock   clock.Clock
	stats   atomic.Pointer[Stats]

	seen      os.FileInfo // of the last read, successful or not
	recording *Recording  // nil before the first
	shown     *Recording  // what matrix was built from
	matrix    *latency.Matrix
	failure   Failure // of the last read, with err
	err       error
	totals    totals
}

// NewFile checks the options and prepares a source; Run starts it.
func NewFile(options FileOptions) (*File, error) {
	var errs []error
	if options.Path == "" {
		errs = append(errs, errors.New("Path is not set"))
	}
	if options.Publish == nil {
		errs = append(errs, errors.New("Publish is not set"))
	}
	if options.Interval <= 0 {
		errs = append(errs, fmt.Errorf("Interval is %v: want more than 0", options.Interval))
	}
	if options.Ageing && options.StaleAfter <= 0 {
		errs = append(errs, fmt.Errorf("StaleAfter is %v: want more than 0", options.StaleAfter))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("source of a file: %w", err)
	}
	if options.Clock == nil {
		options.Clock = clock.RealClock{}
	}
	f := &File{options: options, clock: options.Clock, totals: newTotals()}
	f.stats.Store(&Stats{})
	return f, nil
}

// Run reads and publishes until ctx ends. It must be called once. It never
// fails: what cannot be read is in Stats, and tried again.
func (f *File) Run(ctx context.Context) {
	for {
		started := f.clock.Now()
		f.round(ctx, started)
		timer := f.clock.NewTimer(f.options.Interval)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C():
		}
	}
}

// Stats gives the state as of the last look at the file. It may be called from
// any goroutine; the maps must not be changed.
func (f *File) Stats() Stats { return *f.stats.Load() }

func (f *File) round(ctx context.Context, started time.Time) {
	logger := klog.LoggerWithValues(klog.FromContext(ctx), "path", f.options.Path)
	failing := f.err != nil
	f.failure, f.err = f.read()
	now := f.clock.Now()
	if f.err != nil {
		f.totals.failures[f.failure]++
		if !failing {
			logger.Error(f.err, "Cannot read the recorded matrix; what was read before is used on")
		}
	} else {
		f.totals.lastSuccess = now
		if failing {
			logger.Info("The recorded matrix can be read again")
		}
	}
	if f.options.Ageing || f.recording != f.shown || f.matrix == nil {
		f.matrix = f.matrix.Next(now, f.observed(now), latency.Hysteresis{})
		f.shown = f.recording
	} else {
		f.matrix = f.matrix.Later(now)
	}
	f.stats.Store(f.totals.snapshot(Stats{
		RoundDuration: now.Sub(started),
		Version:       f.matrix.Version(),
		Pairs:         f.matrix.Pairs(),
	}))
	f.options.Publish(f.matrix)
}

// observed is the recording as of now, nil before there is one.
func (f *File) observed(now time.Time) map[latency.Pair]latency.Distribution {
	if f.recording == nil {
		return nil
	}
	if !f.options.Ageing {
		return f.recording.moved(now)
	}
	observed := make(map[latency.Pair]latency.Distribution)
	for pair, d := range f.recording.Observed {
		if now.Sub(d.Newest) <= f.options.StaleAfter {
			observed[pair] = d
		}
	}
	return observed
}

// read reads the file if it is not the one that was read before: another file
// under the name, as when a mounted ConfigMap changes, another size or time.
func (f *File) read() (Failure, error) {
	file, err := os.Open(f.options.Path)
	if err != nil {
		f.seen = nil
		return FailureRead, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		f.seen = nil
		return FailureRead, err
	}
	if f.seen != nil && os.SameFile(f.seen, info) && f.seen.Size() == info.Size() && f.seen.ModTime().Equal(info.ModTime()) {
		return f.failure, f.err
	}
	f.seen = info
	recording, err := ReadRecording(file)
	switch {
	case errors.Is(err, ErrRecordingTooLarge):
		return FailureLimit, fmt.Errorf("%s: %w", f.options.Path, err)
	case err != nil:
		return FailureDecode, fmt.Errorf("%s: %w", f.options.Path, err)
	}
	f.recording = recording
	return "", nil
}
