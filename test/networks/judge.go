package networks

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/netlatency/netlatency/pkg/latency"
)

// Estimates answers for the round trip from a node to a peer, in seconds.
type Estimates func(i, j int) float64

// Errors is the relative error of estimates for each ordered pair of which
// the truth is known and nothing was measured, in ascending order.
func (s *Sample) Errors(estimates Estimates) []float64 {
	var errors []float64
	for i := range s.Names {
		for j := range s.Names {
			if rtt := s.RTT[i][j]; i != j && rtt > 0 && !s.Known(i, j) {
				errors = append(errors, math.Abs(estimates(i, j)-rtt)/rtt)
			}
		}
	}
	slices.Sort(errors)
	return errors
}

// Candidates is among how many nodes a placement is chosen.
const Candidates = 50

// Regret is the mean over many placements of how far the chosen one of 50
// nodes, drawn at random, is from a target, as a multiple of how far the
// nearest of them is. What was measured goes before estimates. The choice is
// judged by truth, which is s.RTT, or that of a later time.
func (s *Sample) Regret(estimates Estimates, truth [][]float64, seed uint64) float64 {
	const placementsPerNode = 20
	r := rand.New(rand.NewPCG(seed, 4))
	var sum, n float64
	for i := range s.Names {
		for range placementsPerNode {
			chosen, least, best, candidates := -1, math.Inf(1), math.Inf(1), 0
			for _, j := range r.Perm(len(s.Names)) {
				if candidates == Candidates {
					break
				}
				if i == j || s.RTT[i][j] == 0 || truth[i][j] == 0 {
					continue
				}
				candidates++
				best = min(best, truth[i][j])
				rtt := s.Measured[i][j]
				if rtt == 0 {
					rtt = s.Measured[j][i]
				}
				if rtt == 0 {
					rtt = estimates(i, j)
				}
				if rtt < least {
					chosen, least = j, rtt
				}
			}
			if chosen >= 0 {
				sum += truth[i][chosen] / best
				n++
			}
		}
	}
	return sum / n
}

// Estimates are those of package latency.
func (s *Sample) Estimates() (Estimates, *latency.Estimator) {
	now := time.Unix(1000, 0)
	e := latency.NewEstimator(s.Matrix(now), latency.Statistic{}, 0, s.Groups, now)
	return func(i, j int) float64 {
		answer := e.Estimate(s.Names[i], s.Names[j])
		if answer.Basis == latency.Unknown {
			return math.Inf(1)
		}
		return answer.Latency.Seconds()
	}, e
}
