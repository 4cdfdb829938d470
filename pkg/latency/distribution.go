package latency

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// MaxRTT is the largest round trip that is believed. A probe that takes
// longer than this is lost by the definition of RFC 2681 (a round trip is
// undefined when no answer comes within the threshold), and a larger value
// that arrives from outside is a fault of its sender.
const MaxRTT = 10 * time.Second

// Distribution is what was measured for one ordered pair of nodes over a
// window. The zero value means that nothing was measured.
type Distribution struct {
	// Mean is the mean of the samples, each clipped at ClipFactor times the
	// median, so that one absurd sample cannot carry the window.
	Mean time.Duration
	// P50, P90 and P99 are quantiles of the samples by the nearest-rank
	// method.
	P50, P90, P99 time.Duration
	// Min is the smallest sample.
	Min time.Duration
	// Samples is the number of valid samples in the window.
	Samples int
	// Sent and Lost count probes over the loss window, which is longer than
	// the window of the samples, and only in bursts of which at least one
	// probe was answered: a burst that is lost whole is an outage, which ages
	// the pair and is not loss.
	Sent, Lost int
	// Newest is when the newest sample was taken, on the clock of whoever
	// holds the Distribution.
	Newest time.Time
	// Method names how the pair was probed, for instance "udp".
	Method string
}

// ClipFactor bounds a sample's share in the mean: a sample above ClipFactor
// times the median counts as that much.
const ClipFactor = 20

// Validate reports all that is impossible in d: a negative or absurd latency,
// quantiles out of order, more lost than sent.
func (d Distribution) Validate() error {
	var errs []error
	for _, v := range []struct {
		name  string
		value time.Duration
	}{{"min", d.Min}, {"p50", d.P50}, {"p90", d.P90}, {"p99", d.P99}, {"mean", d.Mean}} {
		if v.value < 0 || v.value > MaxRTT {
			errs = append(errs, fmt.Errorf("%s is %v: want 0 to %v", v.name, v.value, MaxRTT))
		}
	}
	if d.Min > d.P50 || d.P50 > d.P90 || d.P90 > d.P99 {
		errs = append(errs, fmt.Errorf("quantiles fall: min %v, p50 %v, p90 %v, p99 %v", d.Min, d.P50, d.P90, d.P99))
	}
	if d.Mean < d.Min {
		errs = append(errs, fmt.Errorf("mean %v is below min %v", d.Mean, d.Min))
	}
	if d.Samples < 1 {
		errs = append(errs, fmt.Errorf("samples is %d: want at least 1", d.Samples))
	}
	if d.Lost < 0 || d.Sent < d.Lost {
		errs = append(errs, fmt.Errorf("lost is %d of %d sent", d.Lost, d.Sent))
	}
	return errors.Join(errs...)
}

// Loss is a cautious loss ratio in [0, 1]: the lower bound of the 95 % Wilson
// score interval for Lost of Sent (Wilson, "Probable inference, the law of
// succession, and statistical inference", JASA 22, 1927). One lost probe in a
// short window is hardly evidence of loss, and the bound says so; with many
// probes it comes close to Lost/Sent. It is 0 when nothing was lost or sent.
func (d Distribution) Loss() float64 {
	if d.Lost <= 0 || d.Sent <= 0 {
		return 0
	}
	const z = 1.959964 // the 97.5 % quantile of the normal distribution
	n := float64(d.Sent)
	p := math.Min(float64(d.Lost)/n, 1)
	centre := p + z*z/(2*n)
	margin := z * math.Sqrt(p*(1-p)/n+z*z/(4*n*n))
	return math.Max(0, (centre-margin)/(1+z*z/n))
}

// toleratedLoss is the loss that costs nothing. Healthy paths lose 0.1 %, and
// of 720 probes, which the default loss window holds, that is six in one window
// of ten thousand, which are evidence of 0.38 %.
const toleratedLoss = 0.004

// Statistic says how a Distribution becomes the one latency that placements
// are compared by.
type Statistic struct {
	// TailWeight is the share of the tail that is added to the mean. The mean
	// adds up truthfully over trips and replicas; the tail term stands for
	// inconsistency. The tail is P99 where there are at least 100 samples, and
	// P90 where there are fewer: of those the P99 is the largest, and one late
	// packet would make the pair look far. 0 leaves the tail out.
	TailWeight float64
	// LossPenalty is the latency that one certain loss costs, for losses beyond
	// the 0.4 % that a healthy path may seem to have. One TCP retransmission timeout is its
	// natural size (RTO minimum of Linux, 200 ms).
	LossPenalty time.Duration
	// Quantile, when 0.5, 0.9 or 0.99, replaces the mean and its tail term by
	// that quantile wherever there are at least 10/(1-Quantile) samples. 0
	// means the mean. Other values are not measured and fall to the mean.
	Quantile float64
}

// DefaultStatistic is mean + 0.1 p99 + loss · 200 ms: in simulation the mean
// regret of the mean alone, and a far smaller regret of the slowest searches.
func DefaultStatistic() Statistic {
	return Statistic{TailWeight: 0.1, LossPenalty: 200 * time.Millisecond}
}

// Latency is the latency of d in terms of s. It is 0 only for a Distribution
// without samples.
func (s Statistic) Latency(d Distribution) time.Duration {
	// Most pairs lost nothing, and there are a million of them.
	var loss time.Duration
	if d.Lost > 0 {
		loss = time.Duration(max(0, d.Loss()-toleratedLoss) * float64(s.LossPenalty))
	}
	if s.Quantile > 0 {
		if value, ok := d.quantile(s.Quantile); ok {
			return value + loss
		}
	}
	return d.Mean + time.Duration(s.TailWeight*float64(d.tail())) + loss
}

// meanError is how far, in nanoseconds, the mean of the samples may be from
// that of the path: it is nearer in nine cases of ten. The deviation of the
// samples is that of a normal distribution with the same upper quantiles; the
// wider one counts.
func (d *Distribution) meanError() float64 {
	const p90, p99 = 1.281552, 2.326348 // quantiles of the normal distribution
	deviation := math.Max(float64(d.P90-d.P50)/p90, float64(d.P99-d.P50)/p99)
	return normalBar * deviation / math.Sqrt(float64(max(d.Samples, 1)))
}

// tail is the highest quantile kept beyond which there is a sample.
func (d *Distribution) tail() time.Duration {
	if d.Samples < 100 {
		return d.P90
	}
	return d.P99
}

// quantile returns the measured quantile q, when it is one of those that are
// kept and enough samples stand behind it.
func (d *Distribution) quantile(q float64) (time.Duration, bool) {
	// Ten samples beyond the quantile: with fewer it is the value of one or
	// two packets, and moves by a third from one window to the next.
	if q <= 0 || q >= 1 || float64(d.Samples)*(1-q) < 10-1e-9 {
		return 0, false
	}
	switch q {
	case 0.5:
		return d.P50, true
	case 0.9:
		return d.P90, true
	case 0.99:
		return d.P99, true
	}
	return 0, false
}
