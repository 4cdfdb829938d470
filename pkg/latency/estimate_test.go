package latency_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/test/networks"
)

func TestEstimateTakesTheBestBasisThereIs(t *testing.T) {
	now := time.Unix(2000, 0)
	fresh := func(value time.Duration) latency.Distribution {
		d := steady(value, 50)
		d.Newest = now.Add(-time.Second)
		return d
	}
	stale := func(value time.Duration) latency.Distribution {
		d := fresh(value)
		d.Newest = now.Add(-time.Hour)
		return d
	}
	cpu := latency.NodeGroup{Provider: "hetzner", Zone: "1"}
	gpu := latency.NodeGroup{Provider: "neuralrack", Zone: "1"} // the same zone name elsewhere
	groups := map[string]latency.NodeGroup{"cpu-1": cpu, "cpu-2": cpu, "cpu-3": cpu, "gpu-1": gpu, "gpu-2": gpu, "gpu-3": gpu, "bare": {}}
	m := latency.NewMatrix(now, map[latency.Pair]latency.Distribution{
		{Node: "cpu-1", Peer: "gpu-1"}: fresh(2 * ms),
		{Node: "gpu-1", Peer: "cpu-1"}: fresh(3 * ms),
		{Node: "gpu-2", Peer: "cpu-1"}: fresh(4 * ms),
		{Node: "cpu-2", Peer: "gpu-1"}: stale(99 * ms),
		{Node: "gpu-1", Peer: "cpu-2"}: fresh(5 * ms),
		{Node: "cpu-2", Peer: "gpu-2"}: stale(99 * ms),
		{Node: "cpu-1", Peer: "gpu-3"}: fresh(6 * ms),
		{Node: "cpu-1", Peer: "bare"}:  fresh(7 * ms),
	})
	e := latency.NewEstimator(m, latency.Statistic{}, time.Minute, groups, now)
	for _, test := range []struct {
		name, node, peer string
		want             latency.Estimate
	}{
		{"a node to itself", "cpu-1", "cpu-1", latency.Estimate{Latency: 0, Basis: latency.Local}},
		{"a node to itself that nobody knows", "x", "x", latency.Estimate{Latency: 0, Basis: latency.Local}},
		{"measured", "cpu-1", "gpu-1", latency.Estimate{Latency: 2 * ms, Basis: latency.Measured}},
		{"measured the other way only", "cpu-1", "gpu-2", latency.Estimate{Latency: 4 * ms, Basis: latency.Reverse}},
		{"stale, so the other way", "cpu-2", "gpu-1", latency.Estimate{Latency: 5 * ms, Basis: latency.Reverse}},
		{"no pair between the groups was measured", "cpu-2", "cpu-3", latency.Estimate{}},
		{"measured without any label", "cpu-1", "bare", latency.Estimate{Latency: 7 * ms, Basis: latency.Measured}},
		{"not measured and without labels", "cpu-2", "bare", latency.Estimate{}},
		{"a node that nobody knows", "cpu-1", "x", latency.Estimate{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := e.Estimate(test.node, test.peer)
			got.Error = 0 // has tests of its own
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	for _, pair := range [][2]string{{"cpu-2", "gpu-2"}, {"cpu-3", "gpu-3"}, {"gpu-3", "cpu-3"}} {
		if got := e.Estimate(pair[0], pair[1]); got.Basis != latency.Group || got.Latency < 2*ms || got.Latency > 6*ms {
			t.Errorf("%s to %s, of which only pairs of 2 to 6 ms between the groups are measured: %+v", pair[0], pair[1], got)
		}
	}
}

// mesh is a network in which every pair is measured but those in hidden: what
// rtt says, in nodes of the groups that it is given.
func mesh(rtt func(i, j int) time.Duration, groups []latency.NodeGroup, hidden ...[2]int) (*latency.Estimator, func(i int) string) {
	now := time.Unix(1000, 0)
	name := func(i int) string { return fmt.Sprintf("node-%03d", i) }
	byName := make(map[string]latency.NodeGroup)
	observed := make(map[latency.Pair]latency.Distribution)
	for i := range groups {
		byName[name(i)] = groups[i]
		for j := range groups {
			if i == j || slices.Contains(hidden, [2]int{i, j}) || slices.Contains(hidden, [2]int{j, i}) {
				continue
			}
			if v := rtt(i, j); v > 0 {
				observed[latency.Pair{Node: name(i), Peer: name(j)}] = steady(v, 50)
			}
		}
	}
	return latency.NewEstimator(latency.NewMatrix(now, observed), latency.Statistic{}, 0, byName, now), name
}

func TestAGroupEstimateIsTheMedianOfItsPairsAndTheOffsetsOfTheNodes(t *testing.T) {
	a, b := latency.NodeGroup{Provider: "a"}, latency.NodeGroup{Provider: "b"}
	groups := slices.Concat(slices.Repeat([]latency.NodeGroup{a}, 8), slices.Repeat([]latency.NodeGroup{b}, 8))
	const µs = time.Microsecond
	base := func(i, j int) time.Duration {
		if (i < 8) == (j < 8) {
			return 200 * µs
		}
		return ms
	}
	for _, test := range []struct {
		name     string
		rtt      func(i, j int) time.Duration
		from, to int
		hidden   [][2]int
		want     time.Duration
		within   time.Duration
	}{
		{"nodes like all of their groups", base, 0, 8, [][2]int{{0, 8}}, ms, µs},
		{
			"a node behind a slow access is as far from everywhere",
			func(i, j int) time.Duration {
				if i == 0 || j == 0 {
					return base(i, j) + 100*µs
				}
				return base(i, j)
			},
			0, 8, [][2]int{{0, 8}}, ms + 100*µs, 20 * µs,
		},
		{
			"one pair that is wrong by a hundred times changes little",
			func(i, j int) time.Duration {
				if i+j == 1+9 && (i == 1 || j == 1) {
					return 100 * ms
				}
				return base(i, j)
			},
			1, 8, [][2]int{{1, 8}}, ms, 50 * µs,
		},
		{
			"the only pair between two groups is what there is to go by",
			func(i, j int) time.Duration {
				if (i < 8) != (j < 8) && (i != 0 || j != 8) {
					return 0
				}
				return base(i, j)
			},
			7, 15, nil, ms, µs,
		},
		{
			"the other way round is the same",
			func(i, j int) time.Duration {
				if (i < 8) != (j < 8) && (i != 0 || j != 8) {
					return 0
				}
				return base(i, j)
			},
			15, 7, nil, ms, µs,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			e, name := mesh(test.rtt, groups, test.hidden...)
			got := e.Estimate(name(test.from), name(test.to))
			if got.Basis != latency.Group || (got.Latency-test.want).Abs() > test.within {
				t.Errorf("got %v %v, want %v ± %v by group", got.Basis, got.Latency, test.want, test.within)
			}
		})
	}
}

func TestTheErrorBarOfOnePairIsWiderThanThatOfMany(t *testing.T) {
	groups := slices.Concat(slices.Repeat([]latency.NodeGroup{{Provider: "a"}}, 4), slices.Repeat([]latency.NodeGroup{{Provider: "b"}}, 4))
	for _, pairs := range []struct {
		from, to int
	}{{0, 4}, {1, 6}} {
		alone := func(i, j int) time.Duration {
			if i == pairs.from && j == pairs.to {
				return ms
			}
			return 0
		}
		few, name := mesh(alone, groups)
		many, _ := mesh(func(i, j int) time.Duration {
			if (i < 4) == (j < 4) {
				return 0
			}
			return ms + time.Duration(i*j)*time.Microsecond
		}, groups, [2]int{3, 7})
		wide, narrow := few.Estimate(name(3), name(7)), many.Estimate(name(3), name(7))
		if wide.Error < ms/4 || narrow.Error > ms/4 {
			t.Errorf("an estimate of 1 ms by one pair is ± %v, by sixteen that agree ± %v", wide.Error, narrow.Error)
		}
	}
}

func TestTheErrorBarOfAMeasurementShrinksWithItsSamples(t *testing.T) {
	now := time.Unix(1000, 0)
	noisy := func(samples int) latency.Distribution {
		return latency.Distribution{Min: ms, P50: 2 * ms, P90: 3 * ms, P99: 4 * ms, Mean: 2 * ms, Samples: samples, Newest: now}
	}
	e := latency.NewEstimator(latency.NewMatrix(now, map[latency.Pair]latency.Distribution{
		{Node: "a", Peer: "few"}:  noisy(4),
		{Node: "a", Peer: "many"}: noisy(400),
	}), latency.Statistic{}, 0, nil, now)
	few, many := e.Estimate("a", "few").Error, e.Estimate("a", "many").Error
	if (few-10*many).Abs() > time.Microsecond || many <= 0 {
		t.Errorf("± %v by 4 samples, ± %v by 400: want a tenth", few, many)
	}
	if back := e.Estimate("many", "a"); back.Error != many {
		t.Errorf("the reverse is ± %v, want %v", back.Error, many)
	}
}

func TestLabelsThatReachLessFarAreMadeUseOf(t *testing.T) {
	// Nothing is measured between the zones 1 of a and 1 of b, but between
	// others of these providers.
	var groups []latency.NodeGroup
	for i := range 16 {
		groups = append(groups, latency.NodeGroup{Provider: string(rune('a' + i/8)), Zone: strconv.Itoa(i % 2)})
	}
	e, name := mesh(func(i, j int) time.Duration {
		if i/8 != j/8 && i%2 == 1 && j%2 == 1 {
			return 0
		}
		return time.Duration(1+2*(i/8+j/8)) * ms
	}, groups)
	if got := e.Estimate(name(1), name(15)); got.Basis != latency.Group || got.Latency != 3*ms {
		t.Errorf("got %v %v, want the providers' 3 ms", got.Basis, got.Latency)
	}
}

func TestAProviderForEveryNodeIsNoProvider(t *testing.T) {
	network := networks.Metro(1100, 1)
	for _, name := range network.Names {
		network.Groups[name] = latency.NodeGroup{Provider: name}
	}
	_, e := network.Sample(4, 1).Estimates()
	if got := e.Estimate(network.Names[0], network.Names[1]); got.Basis == latency.Unknown {
		t.Errorf("groups are not found for nodes that are labelled with their own names: %v", got.Basis)
	}
}

func TestEstimatesDoNotDependOnTheOrderOfMaps(t *testing.T) {
	network := networks.Metro(200, 1).Unlabelled(0.5, 1)
	_, first := network.Sample(16, 1).Estimates()
	for range 3 {
		_, again := network.Sample(16, 1).Estimates()
		for _, node := range network.Names {
			for _, peer := range network.Names[:10] {
				if a, b := first.Estimate(node, peer), again.Estimate(node, peer); a != b {
					t.Fatalf("%s to %s: once %+v, once %+v", node, peer, a, b)
				}
			}
		}
	}
}

func TestFoundGroupsAreKeptWhileTheyHold(t *testing.T) {
	const nodes, probes = 300, 16
	now := time.Unix(1000, 0)
	metro := func(seed uint64) *networks.Network { return networks.Metro(nodes, seed).Unlabelled(1, seed) }
	moved := metro(1)
	rand.New(rand.NewPCG(1, 1)).Shuffle(nodes, func(i, j int) { moved.Names[i], moved.Names[j] = moved.Names[j], moved.Names[i] })
	sample := metro(1).Sample(probes, 1)
	first := latency.NewEstimator(sample.Matrix(now), latency.Statistic{}, 0, nil, now)
	for _, peer := range sample.Names { // not all were measured, and so groups are found
		first.Estimate(sample.Names[0], peer)
	}
	for name, test := range map[string]struct {
		sample *networks.Sample
		groups map[string]latency.NodeGroup
		after  time.Duration
		kept   bool
	}{
		"other pairs of the same network":        {sample: metro(1).Sample(probes, 2), after: time.Minute, kept: true},
		"five minutes later":                     {sample: metro(1).Sample(probes, 2), after: 5 * time.Minute},
		"every node in the place of another":     {sample: moved.Sample(probes, 2)},
		"a node less":                            {sample: networks.Metro(nodes-1, 1).Sample(probes, 2)},
		"a label":                                {sample: metro(1).Sample(probes, 2), groups: map[string]latency.NodeGroup{sample.Names[0]: {Provider: "p"}}},
		"half as many pairs again were measured": {sample: metro(1).Sample(probes*3/2, 2)},
	} {
		t.Run(name, func(t *testing.T) {
			now := now.Add(test.after)
			m := test.sample.Matrix(now)
			anew := latency.NewEstimator(m, latency.Statistic{}, 0, test.groups, now)
			next := first.Next(m, latency.Statistic{}, 0, test.groups, now)
			var errors []float64
			differ := false
			for i, node := range test.sample.Names {
				for j, peer := range test.sample.Names {
					if i == j || test.sample.Known(i, j) {
						continue
					}
					got := next.Estimate(node, peer)
					differ = differ || got != anew.Estimate(node, peer)
					errors = append(errors, math.Abs(got.Latency.Seconds()/test.sample.RTT[i][j]-1))
				}
			}
			if differ != test.kept {
				t.Errorf("estimates differ from those of groups found anew: %t, want %t", differ, test.kept)
			}
			slices.Sort(errors)
			if median := errors[len(errors)/2]; median > 0.07 {
				t.Errorf("median error %.4f, want at most 0.07", median)
			}
		})
	}
}

func TestToAnswersAsEstimateDoes(t *testing.T) {
	network := networks.Metro(120, 2).Unlabelled(0.3, 1)
	_, e := network.Sample(8, 1).Estimates()
	for _, estimator := range []*latency.Estimator{e, nil, latency.NewEstimator(nil, latency.Statistic{}, 0, network.Groups, time.Time{})} {
		nodes := append([]string{"nobody knows it"}, network.Names...)
		places := estimator.Places(nodes)
		for _, peer := range []string{network.Names[0], network.Names[77], "nor this"} {
			got := estimator.To(peer, places, []latency.Estimate{{Latency: 1}})
			want := []latency.Estimate{{Latency: 1}}
			for _, node := range nodes {
				want = append(want, estimator.Estimate(node, peer))
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("to %s (-want +got):\n%s", peer, diff)
			}
		}
	}
}

func TestEstimatesStayWithinReason(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 5))
		now := time.Unix(1000, 0)
		names := make([]string, 2+r.IntN(120))
		groups := make(map[string]latency.NodeGroup)
		for i := range names {
			names[i] = fmt.Sprint("n", i)
			if r.IntN(3) > 0 {
				groups[names[i]] = latency.NodeGroup{Provider: strconv.Itoa(r.IntN(3)), Zone: strconv.Itoa(r.IntN(4))}
			}
		}
		observed := make(map[latency.Pair]latency.Distribution)
		least := latency.MaxRTT
		for range r.IntN(3000) {
			// From nothing to MaxRTT, without rhyme or reason.
			rtt := time.Duration(math.Exp(r.Float64()*math.Log(float64(latency.MaxRTT)))) - 1
			pair := latency.Pair{Node: names[r.IntN(len(names))], Peer: names[r.IntN(len(names))]}
			if _, ok := observed[pair]; pair.Node != pair.Peer && !ok {
				observed[pair] = latency.Distribution{Min: rtt, P50: rtt, P90: rtt, P99: rtt, Mean: rtt, Samples: 1 + r.IntN(100), Newest: now}
				least = min(least, rtt)
			}
		}
		e := latency.NewEstimator(latency.NewMatrix(now, observed), latency.Statistic{}, 0, groups, now)
		for _, node := range names {
			for _, peer := range names {
				got := e.Estimate(node, peer)
				switch {
				case got.Basis == latency.Unknown || got.Basis == latency.Local:
					if got.Latency != 0 || got.Error != 0 {
						t.Fatalf("cluster %d, %s to %s: %+v", seed, node, peer, got)
					}
				case got.Latency < least || got.Latency > latency.MaxRTT || got.Error < 0 || got.Error > latency.MaxRTT:
					t.Fatalf("cluster %d, %s to %s: %+v, where the least measured is %v", seed, node, peer, got, least)
				}
			}
		}
	}
}

func TestANilEstimatorKnowsOnlyThatANodeIsNearItself(t *testing.T) {
	var e *latency.Estimator
	if got := e.Estimate("a", "a"); got.Basis != latency.Local {
		t.Errorf("a node to itself: %v", got.Basis)
	}
	if got := e.Estimate("a", "b"); got.Basis != latency.Unknown {
		t.Errorf("two nodes: %v", got.Basis)
	}
}

func TestWhatIsImpossibleIsNotMeasured(t *testing.T) {
	now := time.Unix(2000, 0)
	for name, mean := range map[string]time.Duration{"negative": -1, "absurd": math.MaxInt64, "the least there is": math.MinInt64} {
		observed := map[latency.Pair]latency.Distribution{{Node: "a", Peer: "b"}: {Mean: mean, Samples: 10, Newest: now}}
		e := latency.NewEstimator(latency.NewMatrix(now, observed), latency.Statistic{}, time.Minute, nil, now)
		if got := e.Estimate("a", "b"); got.Basis != latency.Unknown {
			t.Errorf("%s: estimate is %+v, want Unknown", name, got)
		}
	}
}
