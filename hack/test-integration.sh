#!/usr/bin/env bash
# Tests on real parts, in namespaces of their own. Nothing is shared with the
# host and nothing stays.
set -euo pipefail
cd "$(dirname "$0")/.."
hack/install-chromium.sh # for the page of kubectl netlatency ui
exec go test -count=1 -timeout 40m -v ./test/integration/...
