#!/usr/bin/env bash
# Runs what others have for the same purpose on the same nodes and pods as our
# plugin, in turns, into build/peers.txt.
set -euo pipefail
cd "$(dirname "$0")/.."
binaries=$PWD/build/bin/bench
mkdir -p "$binaries"
go test -c -o "$binaries/plugin.test" ./pkg/plugins/netlatency
(cd test/peers && go test -vet=off -c -o "$binaries/test-peers.test" .)

run() {
	"$binaries/$1" -test.run '^$' -test.bench "$2" -test.benchtime "$3" -test.benchmem
}
{
	for round in 1 2 3; do
		echo "# round $round of 3"
		run plugin.test '^BenchmarkCycle$/^(1000|5000)nodes$/^(10|50)targets$/^warm$' 500ms
		run plugin.test '^BenchmarkCycle$/^5000nodes$/^50targets$/^(cold|score|target-moved|matrix-changed)$' 500ms
		run test-peers.test '^BenchmarkNetworkOverhead$' 1s
	done
	run test-peers.test '^BenchmarkPlacement$' 1x
} | tee build/peers.txt.part
mv build/peers.txt.part build/peers.txt
