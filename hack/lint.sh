#!/usr/bin/env bash
# Runs golangci-lint at the version pinned in hack/tools/lint.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p build/bin
(cd hack/tools/lint && go build -ldflags '-s -w' -o ../../../build/bin/golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint)
build/bin/golangci-lint run --allow-parallel-runners ./...
cd hack/image # a module of its own
exec ../../build/bin/golangci-lint run --allow-parallel-runners ./...
