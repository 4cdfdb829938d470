#!/usr/bin/env bash
# Schedules pods by the thousand in upstream's harness, with the plugin, without
# it and by pod affinity in turns, and writes what go test -bench prints of it.
# The rounds of full size take hours.
#
# usage: hack/perf.sh [build/perf.txt]    PERF_NODES=5000 PERF_PODS=10000
#                                         PERF_ROUNDS=10
set -euo pipefail
cd "$(dirname "$0")/.."
output=${1:-build/perf.txt}
nodes=${PERF_NODES:-5000} pods=${PERF_PODS:-10000} rounds=${PERF_ROUNDS:-10}
mkdir -p build/bin/bench
binary=$PWD/build/bin/bench/test-perf.test log=$PWD/build/perf.log
go test -c -o "$binary" ./test/perf

# A process for each, so that none inherits another's heap. Every other round
# goes backwards, because the first may have it better than the last.
forwards=(no-plugin unused used pod-affinity burst burst-no-plugin)
backwards=(burst-no-plugin burst pod-affinity used unused no-plugin)
: >"$log"
for ((round = 1; round <= rounds; round++)); do
	echo "# round $round of $rounds"
	workloads=("${forwards[@]}")
	((round % 2)) || workloads=("${backwards[@]}")
	for workload in "${workloads[@]}"; do
		(cd test/perf && "$binary" -test.run '^$' -test.bench "^BenchmarkScheduling\$/^$workload\$" -test.benchtime 1x -nodes "$nodes" -pods "$pods" 2>>"$log") |
			tee -a "$log" | grep -E '^(pkg:|Benchmark|FAIL)' || {
			echo "$workload failed; $log says why" >&2
			exit 1
		}
	done
done | tee "$output.part"
mv "$output.part" "$output"
