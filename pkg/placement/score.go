package placement

import (
	"math"
	"time"
)

// The scores that nodes get. A node whose cost is known never falls to the
// score of one whose cost is not, however far it is.
const (
	MaxScore     int64 = 100
	MinScore     int64 = 1
	UnknownScore int64 = 0
)

// Band is how much more than the best cost still counts as equally near:
// max(Floor, Ratio · best).
type Band struct {
	// Ratio is relative to the best cost, from 0 to 1.
	Ratio float64
	Floor time.Duration
}

// Width is the band over the best cost.
func (b Band) Width(best time.Duration) time.Duration {
	return max(b.Floor, time.Duration(b.Ratio*float64(best)))
}

// PointsPerDoubling is by how many points a node that is twice as far scores
// less: a thousand times as far is as far as MinScore can tell.
const PointsPerDoubling = 10

// Score rates a cost against the best of the nodes that a pod can go to:
//
//	MaxScore - PointsPerDoubling · log2(max(cost, best + width) / (best + width))
//
// Within the band every node has MaxScore, and other plugins choose. Beyond
// it the score tells by how many times a node is farther, so that 0.2 against
// 0.3 ms does not look like 0.2 against 200 ms, as it would if the scores were
// stretched over the whole range. And by how much two nodes differ does not
// depend on the best: of a burst of alike pods the scheduler rates the nodes
// once and then goes down the list, although the best are full by then. It
// rounds down: only the band has MaxScore.
func (b Band) Score(cost, best time.Duration) int64 {
	if cost == Unknown {
		return UnknownScore
	}
	best = max(best, 0) // a negative one is nobody's
	near := best + b.Width(best)
	if cost <= near {
		return MaxScore
	}
	doublings := math.Log2(float64(cost) / float64(max(near, 1)))
	return max(MaxScore-int64(math.Ceil(PointsPerDoubling*doublings)), MinScore)
}

// Farthest is a cost such that every higher one scores lower than best by at
// least points, which is 1 or more. It is Unknown, and there is no higher one,
// where known costs never differ by as many points.
func (b Band) Farthest(best time.Duration, points int64) time.Duration {
	if points > MaxScore-MinScore || best == Unknown {
		return Unknown
	}
	best = max(best, 0)
	near := max(best+b.Width(best), 1)
	farthest := math.Ceil(float64(near) * math.Exp2(float64(max(points, 1)-1)/PointsPerDoubling))
	if farthest >= float64(Unknown)/2 {
		return Unknown
	}
	cost := time.Duration(farthest)
	for b.Score(cost+1, best) > MaxScore-points { // for what floating point loses
		cost++
	}
	return cost
}

// Scores is the Score of every node of costs, by its place among the Nodes,
// where best is the lowest cost of those that a pod can go to.
func (b Band) Scores(costs *Costs, best time.Duration) []int8 {
	scores := make([]int8, len(costs.cost))
	for i, cost := range costs.cost {
		scores[i] = int8(b.Score(cost, best))
	}
	return scores
}
