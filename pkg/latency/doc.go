// Package latency is the domain of the project: what was measured between two
// nodes (Distribution), all of it at one moment (Matrix), and the best answer
// for a pair that follows from it (Estimate, with the Basis it rests on).
//
// The package is pure: it holds values and computes values. Time comes in as
// an argument; there is no I/O, no logging and no goroutine, and it imports
// the standard library only.
//
// Latencies are round-trip times as time.Duration. What is not known is said
// by a Basis or a boolean, never by 0 or -1, and a timeout is never a latency.
package latency
