package probe

import (
	"testing"
	"time"
)

const us = int64(time.Microsecond)

// anExchange took 500 µs between the two kernels' stamps at the prober, 100 of
// which at the reflector, whose clock is a day behind. The user's clocks were
// read 20 µs before and 30 µs after, and the reflector's own 15 µs before its
// reply left.
func anExchange(change func(*exchange)) *exchange {
	const start = 1_800_000_000_000_000_000
	const day = int64(24 * time.Hour)
	at := time.Unix(0, start)
	e := &exchange{
		sent: reading{at, start, 0}, received: reading{at.Add(550 * time.Microsecond), start + 550*us, 0},
		t1: start + 20*us, t4: start + 520*us,
		t2: start - day + 200*us, userT3: start - day + 285*us, t3: start - day + 300*us,
		kernelT2: true,
	}
	if change != nil {
		change(e)
	}
	return e
}

func TestRoundTripUsesTheBestStampsThereAre(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*exchange)
		want   time.Duration
		source StampSource
	}{
		{"all stamps", nil, 400 * time.Microsecond, Kernel},
		{"t1 is missing", func(e *exchange) { e.t1 = 0 }, 420 * time.Microsecond, User},
		{"t2 is the user's", func(e *exchange) { e.kernelT2 = false }, 400 * time.Microsecond, User},
		{"t3 did not come", func(e *exchange) { e.t3 = 0 }, 415 * time.Microsecond, User},
		{"t4 is missing", func(e *exchange) { e.t4 = 0 }, 430 * time.Microsecond, User},
		{"the prober has no stamps", func(e *exchange) { e.t1, e.t4 = 0, 0 }, 450 * time.Microsecond, User},
		{"ARP kept the packet for 200 ms before it left", func(e *exchange) {
			e.sent.at, e.sent.unix = e.sent.at.Add(-200*time.Millisecond), e.sent.unix-200_000*us
		}, 400 * time.Microsecond, Kernel},
		{"the process was stopped between its two clocks", func(e *exchange) { e.received.at = e.received.at.Add(time.Second); e.received.within = time.Second }, 400 * time.Microsecond, Kernel},
		{"without kernel stamps a step of the clock does not matter", func(e *exchange) { e.t1, e.t4 = 0, 0; e.received.unix -= 9 * us * 1000 }, 450 * time.Microsecond, User},
	} {
		got, source, ok := anExchange(test.change).roundTrip()
		if !ok || got != test.want || source != test.source {
			t.Errorf("%s: got %v %v %v, want %v %v", test.name, got, source, ok, test.want, test.source)
		}
	}
}

func TestRoundTripRefusesStampsThatContradictEachOther(t *testing.T) {
	step := func(by time.Duration) func(*exchange) {
		return func(e *exchange) { e.t4 += int64(by); e.received.unix += int64(by) }
	}
	for _, test := range []struct {
		name   string
		change func(*exchange)
	}{
		{"the prober's clock was stepped ahead", step(time.Second)},
		{"the prober's clock was stepped back", step(-time.Second)},
		{"a step back that leaves a positive round trip", step(-200 * time.Microsecond)},
		{"a step ahead between t4 and the user's reading", func(e *exchange) { e.received.unix += 1000 * us }},
		{"more time than the monotonic clock saw", func(e *exchange) { e.t4 += 51 * us }},
		{"t4 before t1", func(e *exchange) { e.t4 = e.t1 - us; e.t2 = e.t3 }},
		{"the reflector's clock was stepped back", func(e *exchange) { e.t3 = e.t2 - us }},
		{"the reflector's clock was stepped ahead", func(e *exchange) { e.t3 += 401 * us }},
	} {
		if got, source, ok := anExchange(test.change).roundTrip(); ok {
			t.Errorf("%s: got a sample of %v (%v), want none", test.name, got, source)
		}
	}
}
