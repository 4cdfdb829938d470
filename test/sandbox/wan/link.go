package wan

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// The distributions of jitter. J is the mean, Delay.Jitter; every draw is at
// least 0, so that Base is the fastest a link gets and Base + Jitter its mean.
const (
	Uniform     = "uniform"     // even over [0, 2J]; also the meaning of ""
	Normal      = "normal"      // |N(0, J·√(π/2))|: many small, few beyond 3J
	Exponential = "exponential" // mean J: a queue's waiting time
	Pareto      = "pareto"      // Lomax, shape 3, scale 2J: finite variance, heavy tail
)

// MaxDelay bounds a single packet's delay, however long a tail the distribution has.
const MaxDelay = 10 * time.Second

// Delay is what one direction of a link does to packets. Each is delayed by
// Base plus a draw with mean Jitter, and does not overtake an earlier packet of
// the same direction unless Reorder is set.
type Delay struct {
	Base         time.Duration
	Jitter       time.Duration
	Distribution string
	Loss         float64 // probability that a packet is dropped, 0 to 1
	Duplicate    float64 // probability that a packet arrives twice, 0 to 1
	Reorder      bool
	Blocked      Protocols // drops these, as a firewall does
	Down         bool      // drops everything
}

// Protocols is a set of the protocols that IP carries.
type Protocols uint8

// The protocols that probes use.
const (
	ICMP Protocols = 1 << iota
	TCP
	UDP
)

// has reports whether an IP protocol number is in the set.
func (p Protocols) has(number byte) bool {
	switch number {
	case protocolICMP:
		return p&ICMP != 0
	case protocolTCP:
		return p&TCP != 0
	case protocolUDP:
		return p&UDP != 0
	}
	return false
}

// Link is one direction between two nodes, given by name. A pair of nodes that
// no Link names is down.
type Link struct {
	From, To string
	Delay
}

// Validate reports every fault of the delay.
func (d Delay) Validate() error {
	var faults []error
	if d.Base < 0 {
		faults = append(faults, fmt.Errorf("base %v is negative", d.Base))
	}
	if d.Jitter < 0 {
		faults = append(faults, fmt.Errorf("jitter %v is negative", d.Jitter))
	}
	if d.Base > MaxDelay || d.Jitter > MaxDelay {
		faults = append(faults, fmt.Errorf("base %v or jitter %v is above %v", d.Base, d.Jitter, MaxDelay))
	}
	if !(d.Loss >= 0 && d.Loss <= 1) {
		faults = append(faults, fmt.Errorf("loss %v is not in 0..1", d.Loss))
	}
	if !(d.Duplicate >= 0 && d.Duplicate <= 1) {
		faults = append(faults, fmt.Errorf("duplicate %v is not in 0..1", d.Duplicate))
	}
	switch d.Distribution {
	case "", Uniform, Normal, Exponential, Pareto:
	default:
		faults = append(faults, fmt.Errorf("distribution %q is none of %s, %s, %s, %s", d.Distribution, Uniform, Normal, Exponential, Pareto))
	}
	return errors.Join(faults...)
}

// draw is the delay of a packet whose jitter is at quantile u of the
// distribution, 0 < u < 1. Inverting the distribution function uses up exactly
// one random number a packet, so that a link's n-th packet has the same luck in
// every run, whatever has been set in between.
func (d Delay) draw(u float64) time.Duration {
	j := float64(d.Jitter)
	var extra float64
	switch d.Distribution {
	case Normal:
		extra = j * math.Sqrt(math.Pi) * math.Erfinv(u) // σ√2·erf⁻¹(u), σ = J·√(π/2)
	case Exponential:
		extra = -j * math.Log1p(-u)
	case Pareto:
		extra = 2 * j * (math.Pow(1-u, -1./3) - 1)
	default:
		extra = 2 * j * u
	}
	return time.Duration(min(float64(d.Base)+extra, float64(MaxDelay)))
}
