package latency_test

import (
	"math"
	"testing"
	"time"

	"github.com/netlatency/netlatency/pkg/latency"
)

const ms = time.Millisecond

// steady is a distribution of n samples around value.
func steady(value time.Duration, n int) latency.Distribution {
	return latency.Distribution{
		Min: value * 9 / 10, P50: value, P90: value * 11 / 10, P99: value * 12 / 10, Mean: value,
		Samples: n, Sent: n, Newest: time.Unix(1000, 0), Method: "udp",
	}
}

func TestLossIsTheLowerBoundOfTheWilsonInterval(t *testing.T) {
	for _, test := range []struct {
		name       string
		sent, lost int
		want       float64
	}{
		{"nothing lost", 120, 0, 0},
		{"nothing sent", 0, 0, 0},
		{"one of 120 is hardly evidence", 120, 1, 0.0014726},
		{"twelve of 120", 120, 12, 0.0581336},
		{"a tenth of many is close to a tenth", 12000, 1200, 0.0947598},
		{"everything lost is not yet certainty", 10, 10, 0.7224672},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := latency.Distribution{Sent: test.sent, Lost: test.lost}.Loss()
			if math.Abs(got-test.want) > 1e-6 {
				t.Errorf("Loss of %d/%d = %.7f, want %.7f", test.lost, test.sent, got, test.want)
			}
		})
	}
}

func TestLatencyOfADistribution(t *testing.T) {
	d := latency.Distribution{Min: 1 * ms, P50: 2 * ms, P90: 5 * ms, P99: 10 * ms, Mean: 3 * ms, Samples: 200, Sent: 200}
	lossy := d
	lossy.Sent, lossy.Lost = 12000, 1200
	few := d
	few.Samples = 99
	for _, test := range []struct {
		name      string
		statistic latency.Statistic
		d         latency.Distribution
		want      time.Duration
	}{
		{"the default adds a tenth of the tail to the mean", latency.DefaultStatistic(), d, 4 * ms},
		{"with few samples the tail is not the largest of them", latency.DefaultStatistic(), few, 3500 * time.Microsecond},
		{"loss costs its share of a retransmission timeout", latency.DefaultStatistic(), lossy, 4*ms + 18152*time.Microsecond},
		{"the mean alone", latency.Statistic{}, d, 3 * ms},
		{"a quantile with enough samples", latency.Statistic{Quantile: 0.9, TailWeight: 0.1}, d, 5 * ms},
		{"a quantile without enough samples is the mean", latency.Statistic{Quantile: 0.9}, few, 3 * ms},
		{"the median needs few", latency.Statistic{Quantile: 0.5}, few, 2 * ms},
		{"a quantile that is not kept is the mean", latency.Statistic{Quantile: 0.75}, d, 3 * ms},
		{"a quantile of one is the mean", latency.Statistic{Quantile: 1}, d, 3 * ms},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := test.statistic.Latency(test.d).Round(time.Microsecond); got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestValidateFindsWhatIsImpossible(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*latency.Distribution)
		valid  bool
	}{
		{"a plain distribution", func(d *latency.Distribution) {}, true},
		{"a negative minimum", func(d *latency.Distribution) { d.Min = -1 }, false},
		{"an absurd tail", func(d *latency.Distribution) { d.P99 = latency.MaxRTT + 1 }, false},
		{"quantiles that fall", func(d *latency.Distribution) { d.P90 = d.P99 + 1 }, false},
		{"a mean below the minimum", func(d *latency.Distribution) { d.Mean = d.Min - 1 }, false},
		{"no samples", func(d *latency.Distribution) { d.Samples = 0 }, false},
		{"more lost than sent", func(d *latency.Distribution) { d.Lost = d.Sent + 1 }, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := steady(2*ms, 50)
			test.change(&d)
			if err := d.Validate(); (err == nil) != test.valid {
				t.Errorf("Validate: %v", err)
			}
		})
	}
}
