#!/usr/bin/env bash
# Writes the tables of docs/metrics.md anew; with --verify only checks them.
set -euo pipefail
cd "$(dirname "$0")/.."
page=docs/metrics.md
if [[ ${1-} == --verify ]]; then
	if ! go run ./hack/metrics <"$page" | diff -u "$page" -; then
		echo "$page is not what the metrics are; run make generate" >&2
		exit 1
	fi
else
	mkdir -p build
	go run ./hack/metrics <"$page" >build/metrics.md
	mv build/metrics.md "$page"
fi
