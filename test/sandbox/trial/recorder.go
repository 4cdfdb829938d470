package trial

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"k8s.io/klog/v2"

	"github.com/netlatency/netlatency/test/sandbox"
	"github.com/netlatency/netlatency/test/sandbox/wan"
)

// recorder collects what the agents measured and what the WAN logged. begin,
// observe and errors belong to one goroutine; the agents' samples come from
// others.
type recorder struct {
	sandbox *sandbox.Sandbox
	whole   *Truth // since the start
	phase   *Truth // of what was observed in the phase
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

// read returns what the WAN has logged since the last call.
func (r *recorder) read() ([]wan.Record, error) {
	records, next, err := wan.ReadLog(r.sandbox.Log, r.offset)
	if err != nil {
		return nil, err
	}
	r.offset = next
	r.whole.Add(records)
	return records, nil
}

// begin makes the phase's truth start anew.
func (r *recorder) begin() error {
	_, err := r.read()
	r.phase = NewTruth(r.sandbox.NodeNames())
	return err
}

// observe makes what passed between two times part of the phase's truth. What
// passes while a burst keeps the machine busy is not: then the network is
// slower than the scenario's by what its process had to wait for a processor.
func (r *recorder) observe(ctx context.Context, from, to time.Time) error {
	// The WAN writes its log every 50 ms.
	if err := sleep(ctx, 300*time.Millisecond); err != nil {
		return err
	}
	records, err := r.read()
	if err != nil {
		return err
	}
	r.phase.Add(slices.DeleteFunc(records, func(record wan.Record) bool {
		return record.Received < from.UnixNano() || record.Received > to.UnixNano()
	}))
	return nil
}

// errors puts into the report how far the agents' samples were off. The
// streams must have ended.
func (r *recorder) errors(report *Report) error {
	r.streams.Wait()
	if _, err := r.read(); err != nil {
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
	report.RTTSamples = len(errors)
	report.RTTErrorP50 = milliseconds(quantile(errors, 0.5))
	report.RTTErrorP99 = milliseconds(quantile(errors, 0.99))
	return nil
}
