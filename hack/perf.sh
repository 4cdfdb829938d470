#!/usr/bin/env bash
# Schedules pods by the thousand in upstream's harness, in turns with the
# plugin, without it and by pod affinity, and appends what each burst took to a
# file, as go test -bench prints it. At full size that takes an hour.
#
# usage: hack/perf.sh [build/perf.txt]    PERF_NODES=5000   nodes
#                                         PERF_PODS=10000   that run besides
#                                         PERF_BURST=100    that come at once
#                                         PERF_ROUNDS=30    with pod affinity
#                                         PERF_COST_ROUNDS=300  without
set -euo pipefail
cd "$(dirname "$0")/.."
output=${1:-build/perf.txt}
nodes=${PERF_NODES:-5000} pods=${PERF_PODS:-10000} burst=${PERF_BURST:-100} rounds=${PERF_ROUNDS:-30}
mkdir -p build/bin/bench
binary=$PWD/build/bin/bench/test-perf.test log=$PWD/build/perf.log part=$PWD/$output.part
go test -c -o "$binary" ./test/perf
: >"$log"
echo "pkg: github.com/netlatency/netlatency/test/perf" >"$part"

# run <suite> <pods of a burst> <rounds>: not all of them in one process, to
# which the harness gives half an hour.
run() {
	local left=$3 now
	while ((left > 0)); do
		now=$((left < 100 ? left : 100))
		left=$((left - now))
		echo "$1: $now rounds, $left to come"
		(cd test/perf && "$binary" -test.run '^$' -test.bench "^BenchmarkScheduling\$/^$1\$" -test.benchtime 1x \
			-nodes "$nodes" -running "$pods" -pods "$2" -rounds "$now" -results "$part" >>"$log" 2>&1) || {
			echo "$1 failed; $log says why" >&2
			exit 1
		}
	done
}

# What is to be shown of the cost are percents, of pod affinity a multiple. Of
# pods that each fill a node many are placed in a second.
run near "$burst" "$rounds"
large=$((4 * burst))
run whole-node "$((large < nodes * 4 / 5 ? large : nodes * 4 / 5))" "$rounds"
run cost "$burst" "${PERF_COST_ROUNDS:-$((10 * rounds))}"
mv "$part" "$output"
