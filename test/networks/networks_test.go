package networks

import (
	"math"
	"testing"
)

func TestAMetroViolatesTheTriangleInequality(t *testing.T) {
	m := Metro(60, 1)
	violated := 0
	for i := 0; i < 60; i += 3 { // the first provider lies between the others
		if m.RTT[1][i]+m.RTT[i][2] < m.RTT[1][2] {
			violated++
		}
	}
	if violated < 15 {
		t.Errorf("from node 1 to 2 a detour is shorter by way of %d of 20 nodes", violated)
	}
	for i := range m.Names {
		for j := range m.Names {
			if m.RTT[i][j] != m.RTT[j][i] || (m.RTT[i][j] == 0) != (i == j) {
				t.Fatalf("%v s from %d to %d, %v back", m.RTT[i][j], i, j, m.RTT[j][i])
			}
		}
	}
}

func TestASampleHasAsManyProbesOfEachNode(t *testing.T) {
	s := Metro(60, 1).Sample(16, 1)
	count := make(map[int]int)
	for _, probe := range s.Probes {
		count[probe[0]]++
		if s.Measured[probe[0]][probe[1]] <= 0 {
			t.Errorf("probe %v measured nothing", probe)
		}
	}
	for i := range s.Names {
		if count[i] != 16 {
			t.Errorf("node %d measured %d peers", i, count[i])
		}
	}
}

func TestThoseWhoKnowEverythingRegretNothing(t *testing.T) {
	s := Metro(60, 1).Sample(4, 1)
	s.Noise = nil
	for _, probe := range s.Probes {
		s.Measured[probe[0]][probe[1]] = s.RTT[probe[0]][probe[1]]
	}
	truth := func(i, j int) float64 { return s.RTT[i][j] }
	if got := s.Regret(truth, s.RTT, 1); got != 1 {
		t.Errorf("regret is %v, want 1", got)
	}
	if errors := s.Errors(truth); errors[len(errors)-1] != 0 {
		t.Errorf("the largest error is %v", errors[len(errors)-1])
	}
	blind := func(i, j int) float64 { return math.Inf(1) }
	if got := s.Regret(blind, s.RTT, 1); got < 1.2 {
		t.Errorf("regret of one who knows only what was measured is %v", got)
	}
}
