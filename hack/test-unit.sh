#!/usr/bin/env bash
# Unit tests. The race detector runs where there is concurrency of ours and the
# dependencies are small enough to build a second time; the rest links the
# whole scheduler and runs without.
set -euo pipefail
cd "$(dirname "$0")/.."
race=(./pkg/latency/... ./pkg/probe/... ./pkg/agent/... ./pkg/exposition/... ./pkg/source/... ./pkg/target/... ./pkg/placement/...)
go test -race "${race[@]}"
# shellcheck disable=SC2046 # package paths have no spaces
go test $(go list ./... | grep -v -e /pkg/latency -e /pkg/probe -e /pkg/agent -e /pkg/exposition -e /pkg/source -e /pkg/target -e /pkg/placement -e /test/integration)
