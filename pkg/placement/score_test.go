package placement_test

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/netlatency/netlatency/pkg/placement"
)

func TestScore(t *testing.T) {
	band := placement.Band{Ratio: 0.1, Floor: 100 * time.Microsecond}
	tests := []struct {
		name       string
		band       placement.Band
		cost, best time.Duration
		want       int64
	}{
		{"the best node", band, 2 * ms, 2 * ms, 100},
		{"at the edge of the band, which is a tenth of the best", band, 2200 * time.Microsecond, 2 * ms, 100},
		{"just beyond the band", band, 2200*time.Microsecond + 1, 2 * ms, 99},
		{"at the edge of the band, which is its floor for a small best", band, 300 * time.Microsecond, 200 * time.Microsecond, 100},
		{"two times as far as the band's edge", band, 600 * time.Microsecond, 200 * time.Microsecond, 90},
		{"0.2 against 0.35 ms is hardly a difference", band, 350 * time.Microsecond, 200 * time.Microsecond, 97},
		{"0.2 against 200 ms is a great one", band, 200 * ms, 200 * time.Microsecond, 6},
		{"the best runs beside its target", band, 5 * ms, 0, 43},
		{"as far as can be is still better than unknown", band, 10 * time.Second, 0, 1},
		{"unknown", band, placement.Unknown, 2 * ms, 0},
		{"unknown, as all others are", band, placement.Unknown, placement.Unknown, 0},
		{"nonsense below 0 does no harm", band, 0, -5 * ms, 100},
		{"without a band only the best is best", placement.Band{}, 2*ms + 1, 2 * ms, 99},
		{"beside the target, and a nanosecond away, without a band", placement.Band{}, 1 * ms, 0, 1},
		{"without a band and without a distance", placement.Band{}, 0, 0, 100},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.band.Score(tt.cost, tt.best); got != tt.want {
				t.Errorf("score of %v with a best of %v is %d, want %d", tt.cost, tt.best, got, tt.want)
			}
		})
	}
}

// What a batch relies on: the order and the distance of nodes in a ranking that
// was made while a nearer one had room are those of a ranking made without it.
func TestTheBestNodeMakesNoDifferenceToOthers(t *testing.T) {
	band := placement.Band{Ratio: 0.1, Floor: 100 * time.Microsecond}
	r := rand.New(rand.NewPCG(1, 1))
	for range 10_000 {
		best := time.Duration(r.Int64N(int64(ms)))
		near := best + time.Duration(r.Int64N(int64(10*ms)))
		farther := near + time.Duration(r.Int64N(int64(10*ms)))
		// Both outside of the band now and then.
		if farther <= near+band.Width(near) || near <= best+band.Width(best) {
			continue
		}
		with := band.Score(near, best) - band.Score(farther, best)
		without := placement.MaxScore - band.Score(farther, near)
		// Without it the nearer one is given the width of the band, an octave at
		// most, and each is rounded.
		if with < without-1 || with > without+placement.PointsPerDoubling+1 {
			t.Fatalf("%v scores %d more than %v beside %v, and %d without that", near, with, farther, best, without)
		}
	}
}

func TestWhatIsBeyondTheFarthestScoresLowerByThePoints(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		band := placement.Band{Ratio: r.Float64() * 0.5, Floor: time.Duration(r.IntN(300)) * time.Microsecond}
		best := time.Duration(math.Pow(10, r.Float64()*9)) - 1
		points := 1 + r.Int64N(110)
		farthest := band.Farthest(best, points)
		if points > placement.MaxScore-placement.MinScore {
			if farthest != placement.Unknown {
				t.Fatalf("%+v: of a best of %v and %d points it is %v: no known cost is so far", band, best, points, farthest)
			}
			continue
		}
		if got := band.Score(farthest+1, best); got > placement.MaxScore-points {
			t.Fatalf("%+v: beside a best of %v, %v scores %d, want %d at most", band, best, farthest+1, got, placement.MaxScore-points)
		}
		if nearer := farthest - 2 - farthest/1e6; nearer > 0 && band.Score(nearer, best) <= placement.MaxScore-points {
			t.Fatalf("%+v: beside a best of %v, %v scores %d already: %v is not the farthest for %d points", band, best, nearer, band.Score(nearer, best), farthest, points)
		}
	}
	if got := (placement.Band{}).Farthest(placement.Unknown, 10); got != placement.Unknown {
		t.Errorf("beside what is unknown it is %v", got)
	}
}
