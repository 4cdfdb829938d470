#!/usr/bin/env bash
# Checks that what is generated or derived is as committed.
set -euo pipefail
cd "$(dirname "$0")/.."
unformatted=$(git ls-files '*.go' | xargs gofmt -l)
if [[ -n $unformatted ]]; then
	echo "not formatted; run gofmt -w on:" >&2
	echo "$unformatted" >&2
	exit 1
fi
# Not test/peers nor hack/tools/kubernetes-*, which have other versions of all of
# Kubernetes: only make bench-peers and make test-skew download them.
for module in . hack/image hack/tools/helm-docs hack/tools/helm-unittest hack/tools/kwok hack/tools/kuberay hack/tools/lint hack/tools/prometheus; do
	(cd "$module" && go mod verify >/dev/null && go mod tidy -diff)
done
hack/verify-codegen.sh
hack/update-scenario-schema.sh --verify
hack/update-manifests.sh --verify
hack/update-dashboard.sh --verify
hack/update-metrics.sh --verify
