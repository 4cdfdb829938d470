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
build: ## Build the scheduler, the agent and the kubectl plugin into build/bin
	go build -ldflags "$(LDFLAGS)" -o build/bin/agent ./cmd/agent
	go build -ldflags "$(LDFLAGS)" -o build/bin/scheduler ./cmd/scheduler
	go build -ldflags "$(LDFLAGS)" -o build/bin/kubectl-netlatency ./cmd/kubectl-netlatency

.PHONY: image
image: ## Make the images of all programs, for amd64 and arm64, in build/image; no container engine needed (PUSH=registry/path)
	VERSION='$(VERSION)' LDFLAGS='$(LDFLAGS)' hack/image.sh $(if $(PUSH),-push '$(PUSH)')

.PHONY: image-verify
image-verify: ## Make the images twice and compare: are they the same bytes?
	VERSION='$(VERSION)' LDFLAGS='$(LDFLAGS)' hack/image.sh --verify

.PHONY: release
release: ## Make the files of a release in build/release, and its images (VERSION=tag)
	VERSION='$(VERSION)' LDFLAGS='$(LDFLAGS)' hack/release.sh

.PHONY: test
test: verify lint test-unit test-ui test-perf-smoke test-integration ## Run everything that .ci/run runs

.PHONY: test-unit
test-unit: ## Unit tests, with the race detector on what is concurrent, and the chart's
	hack/test-unit.sh

.PHONY: test-ui
test-ui: ## The page of kubectl netlatency ui, built anew and in Chromium
	hack/test-ui.sh

.PHONY: test-integration
test-integration: ## Tests on real parts: API server, KubeRay, kwok, agents and scheduler in a sandbox
	hack/test-integration.sh

.PHONY: test-skew
test-skew: ## A burst on each other Kubernetes, whose control planes it builds: minutes for each (SKEW=1.34 for one)
	NETLATENCY_TEST_SKEW=$(SKEW) go test -count=1 -timeout 3h -v -run TestVersionSkew ./test/integration

.PHONY: test-perf-smoke
test-perf-smoke: ## The benchmark of whole schedulers at a small size: does each kind of pods come, and the plugin do its part?
	PERF_NODES=200 PERF_PODS=100 PERF_BURST=50 PERF_ROUNDS=1 PERF_COST_ROUNDS=1 hack/perf.sh build/perf-smoke.txt

.PHONY: bench
bench: ## Benchmarks beside their baselines, into build/bench.json (MATRICES=directory of measured networks)
	hack/bench.sh

.PHONY: bench-estimates
bench-estimates: ## The part of bench that judges estimates, into build/estimates.json (MATRICES=directory of measured networks)
	@mkdir -p build
	go run ./hack/bench -demo= -benchmarks= -perf= -peers= -output build/estimates.json

.PHONY: bench-perf
bench-perf: ## The part of bench that times whole schedulers, into build/perf.txt (PERF_NODES=5000 PERF_PODS=10000 PERF_BURST=100 PERF_ROUNDS=30 PERF_COST_ROUNDS=300)
	hack/perf.sh

.PHONY: bench-peers
bench-peers: ## The part of bench that runs other schedulers' plugins, into build/peers.txt
	hack/peers.sh

.PHONY: captures
captures: ## Show anew in docs/cli.md what the commands print, and the page, in a sandbox
	hack/captures.sh

.PHONY: lint
lint: ## golangci-lint and go vet
	go vet ./...
	hack/lint.sh

.PHONY: generate
generate: ## Write what is generated anew: code, manifests, dashboard, reference
	hack/update-codegen.sh
	hack/update-scenario-schema.sh
	hack/update-manifests.sh
	hack/update-dashboard.sh
	hack/update-metrics.sh

.PHONY: ui
ui: ## Bundle the page of kubectl netlatency ui anew (needs npm)
	hack/update-ui.sh

.PHONY: verify
verify: ## Check that what is generated, modules and formatting are as committed
	hack/verify.sh
