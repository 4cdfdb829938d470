package main

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestARatioIsOfRoundsInPairs(t *testing.T) {
	for name, test := range map[string]struct {
		ours, theirs []float64
		want         interval
	}{
		"a machine that slows down meets both": {[]float64{90, 45, 9}, []float64{100, 50, 10}, interval{0.9, 0.9}},
		// e^(± 12.706 · ln 1.1): one degree of freedom.
		"two rounds say little": {[]float64{1.1, 1 / 1.1}, []float64{1, 1}, interval{0.2979, 3.3568}},
		"with ten, 2.262 standard errors": {
			[]float64{11, 10, 11, 10, 11, 10, 11, 10, 11, 10}, []float64{10, 10, 10, 10, 10, 10, 10, 10, 10, 10},
			interval{1.0118, 1.0872},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ratio(test.ours, test.theirs)
			if err != nil {
				t.Fatal(err)
			}
			if math.Abs(got.low-test.want.low) > 1e-4 || math.Abs(got.high-test.want.high) > 1e-4 {
				t.Errorf("interval is %v, want %v", got, test.want)
			}
		})
	}
}

func TestAConclusionNeedsRounds(t *testing.T) {
	for name, test := range map[string]struct {
		ours, theirs []float64
		want         string
	}{
		"one":      {[]float64{1}, []float64{1}, "at least 2"},
		"none":     {nil, nil, "at least 2"},
		"unpaired": {[]float64{1, 2, 3}, []float64{1, 2}, "as many"},
	} {
		if _, err := ratio(test.ours, test.theirs); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error is %v, want one with %q", name, err, test.want)
		}
	}
}

const (
	perfPrinted = `pkg: github.com/netlatency/netlatency/test/perf
BenchmarkScheduling/near/pod-affinity/5000nodes/10000pods 	1	0 hints/pod	40 pods/s	0.3 true-cost-ms
BenchmarkScheduling/near/used/5000nodes/10000pods 	1	0 hints/pod	98 pods/s	0.2 true-cost-ms
BenchmarkScheduling/near/used/5000nodes/10000pods 	1	0 hints/pod	49 pods/s	0.2 true-cost-ms
BenchmarkScheduling/near/pod-affinity/5000nodes/10000pods 	1	0 hints/pod	20 pods/s	0.3 true-cost-ms
BenchmarkScheduling/whole-node/no-plugin/5000nodes/10000pods 	1	0.99 hints/pod	200 pods/s	0.9 true-cost-ms
BenchmarkScheduling/whole-node/used/5000nodes/10000pods 	1	0.98 hints/pod	180 pods/s	0.2 true-cost-ms
BenchmarkScheduling/whole-node/pod-affinity/5000nodes/10000pods 	1	0 hints/pod	20 pods/s	0.3 true-cost-ms
BenchmarkScheduling/whole-node/pod-affinity/5000nodes/10000pods 	1	0 hints/pod	10 pods/s	0.3 true-cost-ms
BenchmarkScheduling/whole-node/used/5000nodes/10000pods 	1	0.96 hints/pod	90 pods/s	0.2 true-cost-ms
BenchmarkScheduling/whole-node/no-plugin/5000nodes/10000pods 	1	0.99 hints/pod	100 pods/s	0.9 true-cost-ms
BenchmarkScheduling/cost/no-plugin/5000nodes/10000pods 	1	0 hints/pod	100 pods/s	0.9 true-cost-ms
BenchmarkScheduling/cost/nothing/5000nodes/10000pods 	1	0 hints/pod	98 pods/s	0.9 true-cost-ms
BenchmarkScheduling/cost/unused/5000nodes/10000pods 	1	0 hints/pod	99 pods/s	0.9 true-cost-ms
BenchmarkScheduling/cost/used/5000nodes/10000pods 	1	0 hints/pod	98 pods/s	0.2 true-cost-ms
BenchmarkScheduling/cost/used/5000nodes/10000pods 	1	0 hints/pod	49 pods/s	0.2 true-cost-ms
BenchmarkScheduling/cost/nothing/5000nodes/10000pods 	1	0 hints/pod	49 pods/s	0.9 true-cost-ms
BenchmarkScheduling/cost/unused/5000nodes/10000pods 	1	0 hints/pod	49.5 pods/s	0.9 true-cost-ms
BenchmarkScheduling/cost/no-plugin/5000nodes/10000pods 	1	0 hints/pod	50 pods/s	0.9 true-cost-ms
`
	peersPrinted = `pkg: github.com/netlatency/netlatency/pkg/plugins/netlatency
BenchmarkCycle/5000nodes/10targets/warm-2 	100	400000 ns/op
BenchmarkCycle/5000nodes/50targets/warm-2 	100	300000 ns/op
BenchmarkCycle/5000nodes/50targets/cold-2 	100	400000 ns/op
BenchmarkCycle/5000nodes/50targets/score-2 	100	200000 ns/op	0 B/op	0 allocs/op
BenchmarkCycle/5000nodes/50targets/target-moved-2 	100	5000000 ns/op	1500000 B/op	67 allocs/op
BenchmarkCycle/5000nodes/50targets/matrix-changed-2 	100	34000000 ns/op	11000000 B/op	200 allocs/op
pkg: github.com/netlatency/netlatency/test/peers
BenchmarkNetworkOverhead/5000nodes/10targets-2 	10	50000000 ns/op
BenchmarkNetworkOverhead/5000nodes/50targets-2 	10	12000000 ns/op	7000000 B/op	80000 allocs/op
BenchmarkPlacement/healthy/best/5000nodes/50targets/100workers-2 	1	0.12 true-cost-ms
BenchmarkPlacement/healthy/netlatency/5000nodes/50targets/100workers-2 	1	0.15 true-cost-ms
BenchmarkPlacement/healthy/networkoverhead/5000nodes/50targets/100workers-2 	1	0.14 true-cost-ms
BenchmarkPlacement/slow-uplinks/best/5000nodes/50targets/100workers-2 	1	2 true-cost-ms
BenchmarkPlacement/slow-uplinks/netlatency/5000nodes/50targets/100workers-2 	1	2.1 true-cost-ms
BenchmarkPlacement/slow-uplinks/networkoverhead/5000nodes/50targets/100workers-2 	1	3 true-cost-ms
`
)

// benchFiles runs the program on what scheduler_perf and the peers printed.
func benchFiles(t *testing.T, perf, peers string) (written string, err error) {
	t.Helper()
	directory := t.TempDir()
	in := inputs{perf: filepath.Join(directory, "perf.txt"), peers: filepath.Join(directory, "peers.txt")}
	for file, text := range map[string]string{in.perf: perf, in.peers: peers} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	output := filepath.Join(directory, "bench.json")
	if err := run(in, output, &strings.Builder{}); err != nil {
		return "", err
	}
	data, err := os.ReadFile(output)
	return string(data), err
}

func TestSchedulersAreComparedInRoundsAndNamedBySize(t *testing.T) {
	written, err := benchFiles(t, perfPrinted, peersPrinted)
	if err != nil {
		t.Fatal(err)
	}
	var got results
	if err := json.Unmarshal([]byte(written), &got); err != nil {
		t.Fatal(err)
	}
	const size = "5000nodes/10000pods"
	rounds := func(value string) string {
		return "; lower end of the 95 % interval from " + value + " to " + value + " of pods per second, 2 rounds in " + size
	}
	for name, want := range map[string]result{
		"perf_ratio_unused":                      {0.99, "ratio", 1, "the same profile without the plugin" + rounds("0.990"), new(0.95), higher},
		"perf_ratio_used":                        {0.98, "ratio", 1, "the same profile without the plugin" + rounds("0.980"), new(0.95), higher},
		"perf_ratio_nothing":                     {0.98, "ratio", 1, "the same profile without the plugin" + rounds("0.980"), nil, higher},
		"perf_ratio_used_vs_nothing":             {1, "ratio", 1, "the same profile with a plugin at the same extension points that does nothing" + rounds("1.000"), nil, higher},
		"perf_ratio_used_vs_affinity":            {2.45, "ratio", 1, "preferred pod affinity by zone, without the plugin" + rounds("2.450"), new(2.0), higher},
		"perf_ratio_used_whole_node":             {0.9, "ratio", 1, "the same profile without the plugin, of pods that each fill a node" + rounds("0.900"), nil, higher},
		"perf_ratio_used_vs_affinity_whole_node": {9, "ratio", 1, "preferred pod affinity by zone, without the plugin, of pods that each fill a node" + rounds("9.000"), new(2.0), higher},
		"perf_pods_per_second_used":              {73.5, "pods/s", 75, "the same profile without the plugin; " + size, nil, higher},
		"perf_cost_ms_used_vs_affinity":          {0.2, "ms", 0.3, "preferred pod affinity by zone, without the plugin; " + size, nil, lower},
		"batch_hints_per_pod":                    {0.97, "ratio", 0.99, "the same profile without the plugin, of pods that each fill a node; " + size, new(0.9), higher},
		// A fiftieth of what the peer takes, where that is less than 500 µs.
		"plugin_cycle_us_5000_nodes_cold":              {400, "µs", 12000, byNetworkOverhead, new(500.0), lower},
		"plugin_cycle_us_5000_nodes_warm":              {300, "µs", 12000, byNetworkOverhead, new(240.0), lower},
		"plugin_cycle_us_5000_nodes_warm_10_targets":   {400, "µs", 50000, byNetworkOverhead, new(500.0), lower},
		"plugin_pods_per_second_5000_nodes":            {3333.3333, "pods/s", 83.3333, byNetworkOverhead + "; what one processor lets through when it does nothing else", nil, higher},
		"score_allocs":                                 {0, "allocations", 80000, byNetworkOverhead, new(0.0), lower},
		"plugin_rebuild_ms_5000_nodes":                 {5, "ms", 12, byNetworkOverhead, new(10.0), lower},
		"plugin_rebuild_ms_5000_nodes_new_matrix":      {34, "ms", 12, byNetworkOverhead, nil, lower},
		"placement_cost_ms_healthy_vs_networkoverhead": {0.15, "ms", 0.14, byNetworkOverhead, nil, lower},
		// Within the band of the best: a tenth, at least 0.1 ms.
		"placement_cost_ms_healthy_vs_best":      {0.15, "ms", 0.12, "the nodes of least true cost", new(0.22), lower},
		"placement_cost_ms_slow_uplinks_vs_best": {2.1, "ms", 2, "the nodes of least true cost", new(2.2), lower},
	} {
		if diff := cmp.Diff(want, got[name]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestRunsOfTwoSizesAreNotMixed(t *testing.T) {
	small := strings.ReplaceAll(perfPrinted, "5000nodes/10000pods", "100nodes/200pods")
	if _, err := benchFiles(t, perfPrinted+small, peersPrinted); err == nil || !strings.Contains(err.Error(), "one size") {
		t.Errorf("error is %v, want one that asks for one size", err)
	}
}
