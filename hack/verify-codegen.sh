#!/usr/bin/env bash
# Fails when the generated code in apis/ is not what hack/update-codegen.sh
# makes of the types. Generates in a copy: the tree stays as it is.
#
# usage: hack/verify-codegen.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
mkdir "$copy/hack"
cp go.mod go.sum "$copy"
cp hack/update-codegen.sh "$copy/hack"
cp -R apis "$copy"

"$copy/hack/update-codegen.sh"

if ! diff -ru apis "$copy/apis"; then
	echo "apis/ holds generated code that is out of date (-) ; run hack/update-codegen.sh" >&2
	exit 1
fi
