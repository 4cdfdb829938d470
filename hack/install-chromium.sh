#!/usr/bin/env bash
# Installs a Chromium by apt-get where there is none. CHROMIUM=file names one
# that is not on the PATH.
set -euo pipefail
[[ -z ${CHROMIUM-} ]] || exit 0
for name in chromium chromium-browser google-chrome google-chrome-stable; do
	! command -v "$name" >/dev/null || exit 0
done
echo "The page is tested in Chromium; installing it"
sudo=$([[ $(id -u) == 0 ]] || echo sudo)
$sudo apt-get update -qq
$sudo apt-get install -qq -y --no-install-recommends chromium fonts-dejavu-core >/dev/null
