package agent

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// climbed is the rung of each of n bursts of 4 probes, of which every probe on
// a rung in works is answered before the next burst begins.
func climbed(l *ladder, n int, works ...int) (rungs []int) {
	for range n {
		burst := l.burst + 1
		rung := l.Rung(burst)
		rungs = append(rungs, rung)
		for range 4 {
			if slices.Contains(works, rung) {
				l.Answered(burst, rung)
			} else {
				l.Lost(burst, rung)
			}
		}
	}
	return rungs
}

func TestTheFirstRungThatAnswersIsUsed(t *testing.T) {
	tests := map[string]struct {
		works []int
		want  []int
	}{
		"all do":             {works: []int{0, 1, 2}, want: []int{0, 0, 0, 0}},
		"the first does not": {works: []int{1, 2}, want: []int{0, 1, 1, 1}},
		"only the last does": {works: []int{2}, want: []int{0, 1, 2, 2}},
		"none does":          {want: []int{0, 1, 2, 0, 1, 2}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			l := newLadder(3, 4)
			if diff := cmp.Diff(test.want, climbed(&l, len(test.want), test.works...)); diff != "" {
				t.Errorf("rungs (-want +got):\n%s", diff)
			}
		})
	}
}

func TestARungThatStopsAnsweringIsLeftWithinARound(t *testing.T) {
	l := newLadder(3, 4)
	climbed(&l, 20, 0, 1, 2)
	if diff := cmp.Diff([]int{0, 1, 2, 2}, climbed(&l, 4, 2)); diff != "" {
		t.Errorf("rungs (-want +got):\n%s", diff)
	}
}

func TestHigherRungsAreTriedAgain(t *testing.T) {
	l := newLadder(3, 4)
	climbed(&l, 3, 2)
	// Which of the higher ones changes from climb to climb; in between the
	// rung that works is used.
	rungs := climbed(&l, 40, 2)
	tried := make(map[int]int)
	for i, rung := range rungs {
		tried[rung]++
		if i > 0 && rung != 2 && rungs[i-1] != 2 {
			t.Errorf("bursts %d and %d are both by a rung that does not work: %v", i-1, i, rungs)
		}
	}
	if tried[0] != 2 || tried[1] != 2 {
		t.Errorf("in 40 rounds rung 0 was tried %d times, rung 1 %d times: want twice each: %v", tried[0], tried[1], rungs)
	}
	rungs = climbed(&l, 21, 0, 2)
	if rungs[20] != 0 {
		t.Errorf("rung 0 works again, and 20 rounds later the burst is by rung %d", rungs[20])
	}
}

func TestAPeerThatWasDownIsSoonProbedByTheFirstRungAgain(t *testing.T) {
	l := newLadder(3, 4)
	climbed(&l, 10, 0, 1, 2)
	climbed(&l, 4) // down; the rung under way is the second
	if diff := cmp.Diff([]int{1, 0, 0}, climbed(&l, 3, 0, 1, 2)); diff != "" {
		t.Errorf("rungs (-want +got):\n%s", diff)
	}
}

func TestAFewLostProbesAreNoReasonToLeaveARung(t *testing.T) {
	l := newLadder(2, 4)
	for burst := range uint64(100) {
		if rung := l.Rung(burst + 1); rung != 0 {
			t.Fatalf("burst %d is by rung %d", burst+1, rung)
		}
		l.Lost(burst+1, 0)
		l.Lost(burst+1, 0)
		l.Answered(burst+1, 0)
		l.Lost(burst+1, 0)
	}
	single := newLadder(2, 1)
	for burst := range uint64(10) {
		if rung := single.Rung(burst + 1); rung != 0 {
			t.Fatalf("with bursts of one, burst %d is by rung %d", burst+1, rung)
		}
		if burst%2 == 0 {
			single.Lost(burst+1, 0)
		} else {
			single.Answered(burst+1, 0)
		}
	}
}

func TestAnswersFromBeforeARungWasLeftDoNotCount(t *testing.T) {
	l := newLadder(3, 4)
	climbed(&l, 2, 0) // bursts 1 and 2
	climbed(&l, 2)    // 3 is lost on rung 0, 4 on rung 1
	l.Answered(2, 0)  // held back until now
	if diff := cmp.Diff([]int{2, 2}, climbed(&l, 2, 2)); diff != "" {
		t.Errorf("rungs (-want +got):\n%s", diff)
	}
}

// An engine holds the last sample of a burst for the next reply, which may not
// come.
func TestAnAnswerThatWasHeldDoesNotHideALostBurst(t *testing.T) {
	l := newLadder(2, 4)
	climbed(&l, 1, 0)
	l.Rung(2)
	for range 4 {
		l.Lost(2, 0)
	}
	l.Answered(1, 0)
	if rung := l.Rung(3); rung != 1 {
		t.Errorf("the burst after one that was lost is by rung %d: want 1", rung)
	}
}

func TestAClimbWhoseAnswerWasHeldSucceeds(t *testing.T) {
	l := newLadder(2, 1)
	climbed(&l, 2*climbRounds, 1)
	for l.Rung(l.burst+1) == 1 {
		l.Answered(l.burst, 1)
	}
	climb := l.burst
	l.Rung(climb + 1)
	l.Answered(climb+1, 1)
	l.Answered(climb, 0) // held until now
	if diff := cmp.Diff([]int{0, 0}, climbed(&l, 2, 0, 1)); diff != "" {
		t.Errorf("rungs (-want +got):\n%s", diff)
	}
}

func TestWithOneMethodThereIsNothingToChoose(t *testing.T) {
	l := newLadder(1, 4)
	if diff := cmp.Diff(make([]int, 30), climbed(&l, 30)); diff != "" {
		t.Errorf("rungs (-want +got):\n%s", diff)
	}
}
