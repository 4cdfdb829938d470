#!/usr/bin/env bash
# Unit tests. The race detector runs where there is concurrency of ours and the
# dependencies are small enough to build a second time; the rest links the
# whole scheduler and runs without.
set -euo pipefail
cd "$(dirname "$0")/.."
# The race detector is the one thing here that needs a C compiler.
if ! command -v gcc >/dev/null && ! command -v cc >/dev/null; then
	echo "The race detector needs a C compiler; installing gcc"
	sudo=$([[ $(id -u) == 0 ]] || echo sudo)
	$sudo apt-get update -qq
	$sudo apt-get install -qq -y --no-install-recommends gcc libc6-dev >/dev/null
fi
race=(./pkg/latency/... ./pkg/probe/... ./pkg/agent/... ./pkg/exposition/... ./pkg/source/... ./pkg/target/... ./pkg/placement/...)
CGO_ENABLED=1 go test -race "${race[@]}"
# shellcheck disable=SC2046 # package paths have no spaces
go test $(go list ./... | grep -v -e /pkg/latency -e /pkg/probe -e /pkg/agent -e /pkg/exposition -e /pkg/source -e /pkg/target -e /pkg/placement -e /test/integration -e /test/perf -e /test/ui)
(cd hack/image && go test ./...)
hack/test-chart.sh
