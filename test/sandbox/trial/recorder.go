package trial

import (
	"context"
	"fmt"
	"sync"
	"time"

	"k8s.io/klog/v2"

	"github.com/netlatency/netlatency/test/sandbox"
	"github.com/netlatency/netlatency/test/sandbox/wan"
)

// recorder collects what the agents measured and what the WAN logged. begin,
// read and errors belong to one goroutine; the agents' samples come from
// others.
type recorder struct {
	sandbox *sandbox.Sandbox
	whole   *Truth // since the start
	phase   *Truth // since the phase began
	offset  int64  // of the log

	streams sync.WaitGroup
	mu      sync.Mutex
	samples []sandbox.Sample
}

func newRecorder(ctx context.Context, s *sandbox.Sandbox) *recorder {
	r := &recorder{sandbox: s, whole: NewTruth(s.NodeNames()), phase: NewTruth(s.NodeNames())}
	for _, n := range s.Nodes {
		r.streams.Go(func() {
			err := s.Samples(ctx, n.Name, func(sample sandbox.Sample) {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.samples = append(r.samples, sample)
			})
			if err != nil && ctx.Err() == nil {
				klog.FromContext(ctx).Error(err, "Samples of an agent are missing from the report", "node", n.Name)
			}
		})
	}
	return r
}

// SampleErrors reports how far the agents' samples are off the truth while
// something is done: RTTSamples, RTTErrorP50 and RTTErrorP99, and how late the
// WAN was meanwhile.
func SampleErrors(ctx context.Context, s *sandbox.Sandbox, while func()) (*Report, error) {
	streaming, cancel := context.WithCancel(ctx)
	defer cancel()
	r := newRecorder(streaming, s)
	if err := r.begin(ctx); err != nil {
		return nil, err
	}
	while()
	cancel()
	report := new(Report)
	return report, r.errors(ctx, report)
}

// read takes in what has passed until now.
func (r *recorder) read(ctx context.Context) error {
	if err := sleep(ctx, 2*wan.LogDelay); err != nil {
		return err
	}
	records, next, err := wan.ReadLog(r.sandbox.Log, r.offset)
	if err != nil {
		return err
	}
	r.offset = next
	r.whole.Add(records)
	r.phase.Add(records)
	return nil
}

// begin makes the phase's truth start anew.
func (r *recorder) begin(ctx context.Context) error {
	err := r.read(ctx)
	r.phase = NewTruth(r.sandbox.NodeNames())
	return err
}

// errors puts into the report how far the agents' samples and the WAN itself
// were off. The streams must have ended.
func (r *recorder) errors(ctx context.Context, report *Report) error {
	r.streams.Wait()
	if err := r.read(ctx); err != nil {
		return err
	}
	var errors []time.Duration
	for _, s := range r.samples {
		if truth, ok := r.whole.Probe(s.Session, s.Seq); ok {
			errors = append(errors, (time.Duration(s.RTT) - truth).Abs())
		}
	}
	if len(errors) == 0 {
		return fmt.Errorf("none of %d samples of the agents is in the WAN's log", len(r.samples))
	}
	report.LateP50 = milliseconds(quantile(r.whole.late, 0.5))
	report.LateP99 = milliseconds(quantile(r.whole.late, 0.99))
	report.RTTSamples = len(errors)
	report.RTTErrorP50 = milliseconds(quantile(errors, 0.5))
	report.RTTErrorP99 = milliseconds(quantile(errors, 0.99))
	return nil
}
