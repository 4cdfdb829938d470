package main

import (
	"fmt"
	"math"
	"strings"
)

const (
	byNetworkOverhead = "NetworkOverhead of scheduler-plugins, with costs declared from the same measurements"

	throughput = "pods/s"
	trueCost   = "true-cost-ms"
)

// addPerf adds what scheduler_perf measured in rounds of all kinds of pods.
func (r results) addPerf(s samples) error {
	const ours = "perf.Scheduling/cost/used/"
	var size string
	for name := range s {
		if of, ok := strings.CutPrefix(name, ours); ok {
			if size != "" {
				return fmt.Errorf("there are runs of %s and of %s: want one size", size, of)
			}
			size = of
		}
	}
	benchmark := func(kind string) string { return "perf.Scheduling/" + kind + "/" + size }
	const (
		same      = "the same profile without the plugin"
		nothing   = "the same profile with a plugin at the same extension points that does nothing"
		affinity  = "preferred pod affinity by zone, without the plugin"
		eachFills = ", of pods that each fill a node"
	)
	for _, c := range []struct {
		name, kind, with, baselineName string
		target                         *float64
	}{
		{"perf_ratio_unused", "cost/unused", "cost/no-plugin", same, new(0.95)},
		{"perf_ratio_used", "cost/used", "cost/no-plugin", same, new(0.95)},
		{"perf_ratio_used_vs_nothing", "cost/used", "cost/nothing", nothing, nil},
		{"perf_ratio_nothing", "cost/nothing", "cost/no-plugin", same, nil},
		{"perf_ratio_used_vs_affinity", "near/used", "near/pod-affinity", affinity, new(2.0)},
		{"perf_ratio_used_whole_node", "whole-node/used", "whole-node/no-plugin", same + eachFills, nil},
		{"perf_ratio_used_vs_affinity_whole_node", "whole-node/used", "whole-node/pod-affinity", affinity + eachFills, new(2.0)},
	} {
		ours, theirs := s[benchmark(c.kind)][throughput], s[benchmark(c.with)][throughput]
		i, err := ratio(ours, theirs)
		if err != nil {
			return fmt.Errorf("%s of %s: %w", c.kind, size, err)
		}
		if err := r.add(c.name, result{
			Value: i.low, Unit: "ratio", Baseline: 1, Target: c.target, Better: higher,
			BaselineName: fmt.Sprintf("%s; lower end of the 95 %% interval from %.3f to %.3f of pods per second, %d rounds in %s", c.baselineName, i.low, i.high, len(theirs), size),
		}); err != nil {
			return err
		}
	}

	for _, p := range []struct {
		name, kind, with, measured, unit, baselineName string
		better                                         direction
		target                                         *float64
	}{
		{"perf_pods_per_second_unused", "cost/unused", "cost/no-plugin", throughput, throughput, same, higher, nil},
		{"perf_pods_per_second_used", "cost/used", "cost/no-plugin", throughput, throughput, same, higher, nil},
		{"perf_pods_per_second_used_vs_affinity", "near/used", "near/pod-affinity", throughput, throughput, affinity, higher, nil},
		{"perf_pods_per_second_used_vs_affinity_whole_node", "whole-node/used", "whole-node/pod-affinity", throughput, throughput, affinity + eachFills, higher, nil},
		{"perf_cost_ms_used_vs_affinity", "near/used", "near/pod-affinity", trueCost, "ms", affinity, lower, nil},
		{"perf_cost_ms_used_vs_affinity_whole_node", "whole-node/used", "whole-node/pod-affinity", trueCost, "ms", affinity + eachFills, lower, nil},
		{"batch_hints_per_pod", "whole-node/used", "whole-node/no-plugin", "hints/pod", "ratio", same + eachFills, higher, new(0.9)},
	} {
		if err := r.addPair(s, pair{p.name, benchmark(p.kind), benchmark(p.with), p.measured, p.unit, 1, p.baselineName + "; " + size, p.target}, p.better); err != nil {
			return err
		}
	}
	return nil
}

// addPeers adds what peers and our plugin took on the same nodes and pods.
func (r results) addPeers(s samples) error {
	for _, p := range []struct{ name, size string }{
		{"plugin_cycle_us_5000_nodes_warm", "5000nodes/50targets"},
		{"plugin_cycle_us_5000_nodes_warm_10_targets", "5000nodes/10targets"},
	} {
		theirs, err := s.median("peers.NetworkOverhead/"+p.size, "ns/op")
		if err != nil {
			return err
		}
		if err := r.addPair(s, pair{
			p.name, "netlatency.Cycle/" + p.size + "/warm", "peers.NetworkOverhead/" + p.size,
			"ns/op", "µs", 1e-3, byNetworkOverhead, new(min(500, 1e-3*theirs/50)),
		}, lower); err != nil {
			return err
		}
	}
	const largest = "5000nodes/50targets"
	ours, err := s.median("netlatency.Cycle/"+largest+"/warm", "ns/op")
	if err != nil {
		return err
	}
	theirs, err := s.median("peers.NetworkOverhead/"+largest, "ns/op")
	if err != nil {
		return err
	}
	if err := r.add("plugin_pods_per_second_5000_nodes", result{
		Value: 1e9 / ours, Unit: throughput, Baseline: 1e9 / theirs, Better: higher,
		BaselineName: byNetworkOverhead + "; what one processor lets through when it does nothing else",
	}); err != nil {
		return err
	}
	for _, p := range []struct {
		name, part, metric, unit string
		scale                    float64
		target                   *float64
	}{
		// With nothing of the plugin's in the processor's caches, as it finds them
		// in a whole scheduler.
		{"plugin_cycle_us_5000_nodes_cold", "cold", "ns/op", "µs", 1e-3, new(500.0)},
		{"score_allocs", "score", "allocs/op", "allocations", 1, new(0.0)},
		// What the first pod after a target has moved waits for; a new matrix
		// is prepared beside the cycles.
		{"plugin_rebuild_ms_5000_nodes", "target-moved", "ns/op", "ms", 1e-6, new(10.0)},
		{"plugin_rebuild_ms_5000_nodes_new_matrix", "matrix-changed", "ns/op", "ms", 1e-6, nil},
	} {
		if err := r.addPair(s, pair{
			p.name, "netlatency.Cycle/" + largest + "/" + p.part, "peers.NetworkOverhead/" + largest, p.metric, p.unit, p.scale, byNetworkOverhead, p.target,
		}, lower); err != nil {
			return err
		}
	}
	for _, network := range []string{"healthy", "slow-uplinks"} {
		by := func(plugin string) string {
			return "peers.Placement/" + network + "/" + plugin + "/5000nodes/50targets/100workers"
		}
		best, err := s.median(by("best"), trueCost)
		if err != nil {
			return err
		}
		name := "placement_cost_ms_" + strings.ReplaceAll(network, "-", "_")
		if err := r.addPair(s, pair{name + "_vs_networkoverhead", by("netlatency"), by("networkoverhead"), trueCost, "ms", 1, byNetworkOverhead, nil}, lower); err != nil {
			return err
		}
		if err := r.addPair(s, pair{
			name + "_vs_best", by("netlatency"), by("best"), trueCost, "ms", 1, "the nodes of least true cost",
			new(best + max(0.1, 0.1*best)), // what counts as equally near by default
		}, lower); err != nil {
			return err
		}
	}
	return nil
}

// interval holds the true mean with 95 % confidence.
type interval struct{ low, high float64 }

// ratio is the interval of the geometric mean of ours to theirs, which were
// measured in pairs: what disturbs the machine for a while meets both of one.
func ratio(ours, theirs []float64) (interval, error) {
	if len(ours) != len(theirs) {
		return interval{}, fmt.Errorf("there are %d rounds of it and %d of what it is compared with: want as many", len(ours), len(theirs))
	}
	n := float64(len(ours))
	if n < 2 {
		return interval{}, fmt.Errorf("%v rounds with a %s: want at least 2, and pods for some seconds", n, throughput)
	}
	var mean, squares float64
	for i := range ours {
		mean += math.Log(ours[i]/theirs[i]) / n
	}
	for i := range ours {
		d := math.Log(ours[i]/theirs[i]) - mean
		squares += d * d
	}
	half := student[min(len(ours)-2, len(student)-1)] * math.Sqrt(squares/(n-1)/n)
	return interval{math.Exp(mean - half), math.Exp(mean + half)}, nil
}

// student is the 97.5th percentile of Student's t distribution by degrees of
// freedom, from 1. It falls: for more than there are the last is on the safe
// side.
var student = []float64{12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086}
