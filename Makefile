# Everything a contributor runs. Needs Go, make and git; `make help` lists it.

.DEFAULT_GOAL := help
SHELL := /usr/bin/env bash -euo pipefail

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
# A scheduler decides by component-base's version what features it may use, so
# that one is of the Kubernetes it is made of; ours stands beside it.
KUBERNETES_VERSION := v1.36.3
LDFLAGS := -s -w -X k8s.io/component-base/version.gitVersion=$(KUBERNETES_VERSION) -X github.com/netlatency/netlatency/pkg/version.version=$(VERSION)
# A stamp of the commit would relink every binary at every commit; the version
# comes in through LDFLAGS.
export GOFLAGS := -buildvcs=false
# Static binaries, which any image can hold, and no need for a C compiler.
export CGO_ENABLED := 0

# The environment's, or make's own MATRICES=directory.
export MATRICES

SCENARIO ?= test/sandbox/scenarios/metro.yaml
REPORT ?= build/demo.json
SKEW ?= all

.PHONY: help
help: ## Show this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Bring up a three-provider cluster on this machine and show netlatency at work (SCENARIO=file, REPORT=file, DEMO_ONCE=1)
	@mkdir -p build/bin
	@[[ -x build/bin/demo ]] || echo "Building the demo; the first time this takes several minutes"
	@export DEMO_BEGAN=$$(date +%s); go build -o build/bin/demo ./hack/demo && SCENARIO=$(SCENARIO) REPORT=$(REPORT) exec build/bin/demo

.PHONY: build
build: ## Build the scheduler and the agent into build/bin
	go build -ldflags "$(LDFLAGS)" -o build/bin/agent ./cmd/agent
	go build -ldflags "$(LDFLAGS)" -o build/bin/scheduler ./cmd/scheduler

.PHONY: test
test: verify lint test-unit test-perf-smoke test-integration ## Run everything that .ci/run runs

.PHONY: test-unit
test-unit: ## Unit tests, with the race detector on what is concurrent
	hack/test-unit.sh

.PHONY: test-integration
test-integration: ## Tests on real parts: API server, KubeRay, kwok, agents and scheduler in a sandbox
	hack/test-integration.sh

.PHONY: test-skew
test-skew: ## A burst on each other Kubernetes, whose control planes it builds: minutes for each (SKEW=1.34 for one)
	NETLATENCY_TEST_SKEW=$(SKEW) go test -count=1 -timeout 3h -v -run TestVersionSkew ./test/integration

.PHONY: test-perf-smoke
test-perf-smoke: ## The benchmark of whole schedulers at a small size: does each workload run, and the plugin do its part?
	PERF_NODES=200 PERF_PODS=100 PERF_ROUNDS=1 hack/perf.sh build/perf-smoke.txt

.PHONY: bench
bench: ## Benchmarks beside their baselines, into build/bench.json (MATRICES=directory of measured networks)
	hack/bench.sh

.PHONY: bench-estimates
bench-estimates: ## The part of bench that judges estimates, into build/estimates.json (MATRICES=directory of measured networks)
	@mkdir -p build
	go run ./hack/bench -demo= -benchmarks= -perf= -peers= -output build/estimates.json

.PHONY: bench-perf
bench-perf: ## The part of bench that times whole schedulers, into build/perf.txt (PERF_NODES=5000 PERF_PODS=10000 PERF_ROUNDS=10)
	hack/perf.sh

.PHONY: bench-peers
bench-peers: ## The part of bench that runs other schedulers' plugins, into build/peers.txt
	hack/peers.sh

.PHONY: lint
lint: ## golangci-lint and go vet
	go vet ./...
	hack/lint.sh

.PHONY: generate
generate: ## Write generated code, dashboard and reference anew
	hack/update-codegen.sh
	hack/update-scenario-schema.sh
	hack/update-dashboard.sh
	hack/update-metrics.sh

.PHONY: verify
verify: ## Check that what is generated, modules and formatting are as committed
	hack/verify.sh
