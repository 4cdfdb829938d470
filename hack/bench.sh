#!/usr/bin/env bash
# Runs the benchmarks beside what they are measured against, adds what the demo
# found, and how good estimates are, and writes build/bench.json and a table.
# Nothing fails for being slow.
#
# usage: hack/bench.sh    REPORT=file is the demo's report (build/demo.json)
#                         MATRICES=directory has measured networks to judge
#                         estimates on, NAME-1.txt.gz and so on
#                         PERF_NODES=1000 PERF_PODS=1000 PERF_ROUNDS=9 are the
#                         size of what hack/perf.sh does
set -euo pipefail
cd "$(dirname "$0")/.."
report=${REPORT:-build/demo.json}
mkdir -p build

if [[ -f $report ]]; then
	echo "The demo's numbers are those of $report, $(date -r "$report" '+%F %T'). Delete it, or run make demo, for new ones."
else
	echo "There is no $report: running the demo first."
	DEMO_ONCE=1 REPORT=$report make demo || echo "The demo failed: its numbers will be missing."
fi

# Only what hack/bench compares; it says so if something is missing here. Large
# sizes are run once, and what takes many seconds three times.
packages=(cmd/agent pkg/agent pkg/probe pkg/source pkg/exposition pkg/latency pkg/placement pkg/plugins/netlatency test/ui)
once=(
	'^BenchmarkAgent$/^(100|2000)peers$'
	'^BenchmarkLoad$/^probing-(100|2000)$'
	'^BenchmarkCollect(ByExpfmt|FromPrometheus)?$/^5000(agents|nodes)$'
)
thrice=(
	'^BenchmarkAgent$/^1000peers$'
	'^BenchmarkLoad$/^(udp|icmp|probing)$'
	'^BenchmarkAccuracy$'
	'^BenchmarkDraw$/^(12|500)nodes$'
	'^BenchmarkCollect(ByExpfmt|FromPrometheus)?$/^(200|1000)(agents|nodes)$'
	'^Benchmark(New|Next)Estimator$/^5000nodes$'
)
always=(
	'^Benchmark(UDP|User)RoundTrip$'
	'^Benchmark(Encode|Decode|DecodeByExpfmt)$/^(protobuf|text)$/^1000$'
	'^BenchmarkSeries$'
	'^Benchmark(CostsOfAllNodes|Latencies)$/^5000nodes$/^10replicas$'
	'^BenchmarkCycle$/^(1000|5000)nodes$/^10targets$/^(warm|target-moved)$'
	'^BenchmarkCycleOfNodeResourcesFit$/^(1000|5000)nodes$'
)
hack/install-chromium.sh || echo "There is no Chromium: how fast the page is will be missing."
binaries=$PWD/build/bin/bench
mkdir -p "$binaries"
rm -f "$binaries"/*.test
for package in "${packages[@]}"; do
	go test -c -o "$binaries/${package//\//-}.test" "./$package" || true # two end in agent
done

# The median of the rounds counts. In rounds, and not with -count, because
# what disturbs the machine for some seconds should not meet one side alone.
# What fails does not keep the rest from being measured.
for round in 1 2 3 4 5; do
	echo "# round $round of 5"
	chosen=("${always[@]}")
	((round > 3)) || chosen+=("${thrice[@]}")
	((round > 1)) || chosen+=("${once[@]}")
	pattern=$(IFS='|' && echo "${chosen[*]}")
	for package in "${packages[@]}"; do
		(cd "$package" && "$binaries/${package//\//-}.test" -test.run '^$' -test.bench "$pattern" -test.benchtime "${BENCHTIME:-500ms}" -test.benchmem -test.timeout 5m) ||
			echo "# a benchmark of $package failed"
	done
done | tee build/bench.txt

hack/peers.sh
if [[ -f build/perf.txt ]]; then
	echo "What whole schedulers took is that of build/perf.txt, $(date -r build/perf.txt '+%F %T'). Delete it, or run make bench-perf, for new numbers."
else
	PERF_NODES=${PERF_NODES:-1000} PERF_PODS=${PERF_PODS:-1000} PERF_ROUNDS=${PERF_ROUNDS:-9} hack/perf.sh
fi

echo
go run ./hack/bench -demo "$report" -benchmarks build/bench.txt -output build/bench.json
