#!/usr/bin/env bash
# Writes what the commands print in a sandbox into docs/cli.md, and the page as a
# real browser shows it there into docs/images.
set -euo pipefail
cd "$(dirname "$0")/.."
go run ./hack/captures
hack/install-chromium.sh
go test -count=1 -timeout 15m -run '^TestUI$' ./test/integration
mkdir -p docs/images
for view in matrix nodes targets placements; do
	cp "build/ui/sandbox-$view.png" "docs/images/ui-$view.png"
done
