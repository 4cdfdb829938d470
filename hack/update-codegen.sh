#!/usr/bin/env bash
# Generates deepcopy, defaulting and conversion of the plugin's arguments with
# the k8s.io/code-generator that go.mod names.
#
# usage: hack/update-codegen.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The generators type-check the packages, and would trip over each other's
# stale output after a change of the types.
rm -f apis/config/zz_generated.*.go apis/config/v1/zz_generated.*.go

generate() { # generator, the middle of its files' names, packages...
	local generator=$1 name=$2
	shift 2
	go run "k8s.io/code-generator/cmd/$generator" --output-file "zz_generated.$name.go" "$@"
}

generate deepcopy-gen deepcopy ./apis/config ./apis/config/v1
generate defaulter-gen defaults ./apis/config/v1
generate conversion-gen conversion ./apis/config/v1
