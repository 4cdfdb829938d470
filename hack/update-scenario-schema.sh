#!/usr/bin/env bash
# Writes the JSON schema of scenario files anew; with --verify only checks it.
set -euo pipefail
cd "$(dirname "$0")/.."
schema=test/sandbox/scenarios/scenario.schema.json
if [[ ${1-} == --verify ]]; then
	if ! go run ./hack/scenario-schema | diff -u "$schema" -; then
		echo "$schema is not what the types say; run make generate" >&2
		exit 1
	fi
else
	mkdir -p build
	go run ./hack/scenario-schema >build/scenario.schema.json
	mv build/scenario.schema.json "$schema"
fi
