#!/usr/bin/env bash
# Makes the images of our programs for linux on amd64 and arm64 as OCI layouts in
# build/image, without a container engine. The first time it compiles Kubernetes
# for each architecture, which takes many minutes.
#
# usage: VERSION=v LDFLAGS=flags hack/image.sh [directory] [-push registry/path]
#        ARCHITECTURES="amd64 arm64"
#        hack/image.sh --verify    makes them twice, the second time of a copy of
#                                  the tree, and compares
set -euo pipefail
cd "$(dirname "$0")/.."
: "${VERSION:?}" "${LDFLAGS:?}"
architectures=${ARCHITECTURES:-amd64 arm64}
revision=$(git rev-parse HEAD 2>/dev/null || true)
# https://reproducible-builds.org/specs/source-date-epoch/
created=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export GOFLAGS=-buildvcs=false CGO_ENABLED=0
mkdir -p build/bin
(cd hack/image && go build -o ../../build/bin/image .)
image=$PWD/build/bin/image

# make_images <directory to write to> [flags...]
make_images() {
	local directory=$1
	shift
	# What an earlier build was of is no part of this one.
	rm -rf "$directory/bin"
	for architecture in $architectures; do
		for program in $("$image" -list); do
			# The paths of the machine that builds are not to be in the program.
			GOOS=linux GOARCH=$architecture go build -trimpath -ldflags "$LDFLAGS" -o "$directory/bin/$architecture/$program" "./cmd/$program"
		done
	done
	# A tag of an image has no v, as the chart's version has none.
	"$image" -directory "$directory" -version "${VERSION#v}" -revision "$revision" -created "$created" "$@"
}

if [[ ${1-} != --verify ]]; then
	directory=build/image
	if [[ $# -gt 0 && $1 != -* ]]; then
		directory=$1
		shift
	fi
	make_images "$directory" "$@"
	exit
fi

make_images build/image
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
git ls-files -z --cached --others --exclude-standard | tar --null --files-from - --create | tar --extract --directory "$copy"
first=$PWD/build/image
cd "$copy"
make_images "$copy/build/image" >/dev/null
if ! diff -r "$first" "$copy/build/image"; then
	echo "the same source gave other images" >&2
	exit 1
fi
echo "made twice, the same each time"
