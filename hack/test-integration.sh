#!/usr/bin/env bash
# Tests on real parts, in namespaces of their own. Nothing is shared with the
# host and nothing stays.
set -euo pipefail
cd "$(dirname "$0")/.."
exec go test -count=1 -timeout 40m -v ./test/integration/...
