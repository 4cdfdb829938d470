#!/usr/bin/env bash
# The page of "kubectl netlatency ui" in a real browser: what it shows, by
# keyboard too, that it complains of nothing, and accessibility by axe-core.
# Installs by apt-get and npm what of that is missing. Screenshots are in
# build/ui. First it checks that the page that is embedded is that of web/.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! command -v npm >/dev/null; then
	echo "The page is bundled by npm's packages; installing npm"
	sudo=$([[ $(id -u) == 0 ]] || echo sudo)
	$sudo apt-get update -qq
	$sudo apt-get install -qq -y --no-install-recommends nodejs npm >/dev/null
fi
hack/install-chromium.sh
hack/update-ui.sh --verify
exec go test -count=1 -timeout 20m ./test/ui
