#!/usr/bin/env bash
# Writes the Grafana dashboard anew; with --verify only checks it.
set -euo pipefail
cd "$(dirname "$0")/.."
dashboard=manifests/chart/netlatency/dashboards/netlatency.json
if [[ ${1-} == --verify ]]; then
	if ! go run ./hack/dashboard | diff -u "$dashboard" -; then
		echo "$dashboard is not what hack/dashboard writes; run make generate" >&2
		exit 1
	fi
else
	mkdir -p build
	go run ./hack/dashboard >build/dashboard.json
	mv build/dashboard.json "$dashboard"
fi
