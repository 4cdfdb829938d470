package trial

import (
	"context"
	"fmt"
	"sync"
	"time"

	"k8s.io/klog/v2"

	"github.com/netlatency/netlatency/pkg/latency"
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

// Measured is what agents measured over a time, beside the truth.
type Measured struct {
	// Pairs is how many probes of each ordered pair of nodes had an answer.
	Pairs map[latency.Pair]int
	// Errors are by how much their round-trip times exceed the truth.
	Errors []time.Duration
}

// Measure is what the agents measure while something is done.
func Measure(ctx context.Context, s *sandbox.Sandbox, while func()) (*Measured, error) {
	streaming, cancel := context.WithCancel(ctx)
	defer cancel()
	r := newRecorder(streaming, s)
	if err := r.begin(ctx); err != nil {
		return nil, err
	}
	while()
	cancel()
	return r.measured(ctx)
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
	m, err := r.measured(ctx)
	if err != nil {
		return err
	}
	for i := range m.Errors {
		m.Errors[i] = m.Errors[i].Abs()
	}
	report.LateP50 = milliseconds(quantile(r.whole.late, 0.5))
	report.LateP99 = milliseconds(quantile(r.whole.late, 0.99))
	report.RTTSamples = len(m.Errors)
	report.RTTErrorP50 = milliseconds(quantile(m.Errors, 0.5))
	report.RTTErrorP99 = milliseconds(quantile(m.Errors, 0.99))
	return nil
}

// measured is what the agents measured since the recorder was made. The
// streams must have ended.
func (r *recorder) measured(ctx context.Context) (*Measured, error) {
	r.streams.Wait()
	if err := r.read(ctx); err != nil {
		return nil, err
	}
	m := &Measured{Pairs: make(map[latency.Pair]int)}
	for _, s := range r.samples {
		m.Pairs[latency.Pair{Node: s.Node, Peer: s.Peer}]++
		if truth, ok := r.whole.Probe(s.Session, s.Seq); ok {
			m.Errors = append(m.Errors, time.Duration(s.RTT)-truth)
		}
	}
	if len(m.Errors) == 0 {
		return nil, fmt.Errorf("none of %d samples of the agents is in the WAN's log", len(r.samples))
	}
	return m, nil
}
