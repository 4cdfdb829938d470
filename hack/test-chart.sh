#!/usr/bin/env bash
# The chart's own tests, in its directory tests, by helm-unittest. Those in Go
# (manifests/chart) look at what is rendered as the API server does.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p build/bin
(cd hack/tools/helm-unittest && go build -ldflags '-s -w' -o ../../../build/bin/helm-unittest github.com/helm-unittest/helm-unittest/cmd/helm-unittest)
exec build/bin/helm-unittest --strict manifests/chart/netlatency
