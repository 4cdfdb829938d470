package wan

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestValidateReportsEveryFault(t *testing.T) {
	tests := []struct {
		name  string
		delay Delay
		want  []string // none: valid
	}{
		{"nothing set", Delay{}, nil},
		{"everything set", Delay{Base: time.Millisecond, Jitter: time.Microsecond, Distribution: Pareto, Loss: 1, Down: true}, nil},
		{"negative times", Delay{Base: -1, Jitter: -2}, []string{"base -1ns", "jitter -2ns"}},
		{"a delay that no metro link has", Delay{Base: time.Minute}, []string{"above 10s"}},
		{"loss above 1 and an unknown distribution", Delay{Loss: 1.5, Distribution: "cauchy"}, []string{"loss 1.5", `"cauchy"`}},
		{"loss that is no number", Delay{Loss: math.NaN()}, []string{"loss NaN"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := test.delay.Validate()
			if (err != nil) != (test.want != nil) {
				t.Fatalf("got error %v", err)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
		})
	}
}

func TestJitter(t *testing.T) {
	const (
		base   = 500 * time.Microsecond
		jitter = 40 * time.Microsecond
		steps  = 1_000_000
	)
	tests := []struct {
		distribution string
		median, p99  float64 // of the jitter, in units of its mean
	}{
		{"", 1, 1.98},
		{Uniform, 1, 1.98},
		{Normal, 0.8453, 3.2283},      // |N|: 0.6745·√(π/2), 2.5758·√(π/2)
		{Exponential, 0.6931, 4.6052}, // ln 2, ln 100
		{Pareto, 0.5198, 7.2832},      // 2·(2^⅓-1), 2·(100^⅓-1)
	}
	for _, test := range tests {
		t.Run(test.distribution, func(t *testing.T) {
			d := Delay{Base: base, Jitter: jitter, Distribution: test.distribution}
			draw := func(u float64) float64 { return float64(d.draw(u)-base) / float64(jitter) }
			sum, last := 0.0, 0.0
			for i := range steps {
				extra := draw((float64(i) + 0.5) / steps)
				if extra < last {
					t.Fatalf("jitter falls from %v to %v at quantile %v", last, extra, float64(i)/steps)
				}
				sum, last = sum+extra, extra
			}
			for what, value := range map[string][2]float64{
				"mean":   {sum / steps, 1},
				"median": {draw(0.5), test.median},
				"p99":    {draw(0.99), test.p99},
			} {
				if got, want := value[0], value[1]; math.Abs(got-want) > 0.005 {
					t.Errorf("%s is %.4f of the jitter, want %.4f", what, got, want)
				}
			}
		})
	}
	t.Run("is bounded", func(t *testing.T) {
		d := Delay{Base: base, Jitter: time.Second, Distribution: Pareto}
		if got := d.draw(1 - 1e-15); got != MaxDelay {
			t.Errorf("drew %v, want no more than %v", got, MaxDelay)
		}
	})
}

func TestLuckBelongsToTheNamesOfALink(t *testing.T) {
	first := func(seed uint64, from, to string) uint64 { return luck(seed, from, to).Uint64() }
	same := first(1, "a", "b")
	if first(1, "a", "b") != same {
		t.Error("the same link has different luck")
	}
	for what, other := range map[string]uint64{
		"the other direction": first(1, "b", "a"),
		"another seed":        first(2, "a", "b"),
		"names cut elsewhere": first(1, "ab", ""),
	} {
		if other == same {
			t.Errorf("%s has the same luck", what)
		}
	}
}
