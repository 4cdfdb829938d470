#!/usr/bin/env bash
# Writes anew what is made of the chart: its README.md by helm-docs, and for those
# without Helm manifests/install.yaml and the base in manifests/kustomize; with
# --verify only checks them.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p build/bin
(cd hack/tools/helm-docs && go build -ldflags '-s -w' -o ../../../build/bin/helm-docs github.com/norwoodj/helm-docs/cmd/helm-docs)

chart=manifests/chart/netlatency
made=(install.yaml kustomize/netlatency.yaml kustomize/scheduler-config.yaml)
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
mkdir "$copy/chart"
cp -R "$chart" "$copy/chart"
build/bin/helm-docs --chart-search-root "$copy/chart" --sort-values-order file --log-level warning
go run ./hack/render-chart "$copy"

same=true
take() { # the file as it should be, the file
	if [[ $verify == false ]]; then
		cp "$1" "$2"
	elif ! diff -u "$2" "$1"; then
		same=false
	fi
}
verify=$([[ ${1-} == --verify ]] && echo true || echo false)
take "$copy/chart/netlatency/README.md" "$chart/README.md"
for file in "${made[@]}"; do
	take "$copy/$file" "manifests/$file"
done
if [[ $same == false ]]; then
	echo "these are not what the chart makes; run make generate" >&2
	exit 1
fi
