#!/usr/bin/env bash
# Bundles web/ into pkg/ui/assets anew; with --verify only checks that what is
# committed is what comes out. Needs Node 18 or newer with npm, which building
# netlatency does not.
set -euo pipefail
cd "$(dirname "$0")/../web"
# esbuild's own install script only checks what npm has installed.
[[ node_modules/.package-lock.json -nt package-lock.json ]] || npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
node_modules/.bin/tsc --noEmit
if [[ ${1-} == --verify ]]; then
	fresh=$(mktemp -d)
	trap 'rm -rf "$fresh"' EXIT
	node build.mjs "$fresh"
	if ! diff -rq ../pkg/ui/assets "$fresh"; then
		echo "pkg/ui/assets is not what web/ makes; run make ui" >&2
		exit 1
	fi
else
	node build.mjs
fi
