#!/usr/bin/env bash
# Makes the files of a release in build/release, and its images in build/image. It
# compiles Kubernetes for each platform.
#
# usage: VERSION=v0.1.0 LDFLAGS=flags hack/release.sh
#        PLATFORMS="linux/amd64 linux/arm64 darwin/amd64 ..."
set -euo pipefail
cd "$(dirname "$0")/.."
: "${VERSION:?}" "${LDFLAGS:?}"
platforms=${PLATFORMS:-linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64}
created=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export GOFLAGS=-buildvcs=false CGO_ENABLED=0

hack/image.sh --verify
rm -rf build/release
for platform in $platforms; do
	os=${platform%/*} architecture=${platform#*/}
	suffix=$([[ $os == windows ]] && echo .exe || true)
	GOOS=$os GOARCH=$architecture go build -trimpath -ldflags "$LDFLAGS" -o "build/release/bin/${os}_$architecture/kubectl-netlatency$suffix" ./cmd/kubectl-netlatency
done
go run ./hack/release -version "$VERSION" -created "$created"
cp build/image/*.spdx.json build/release
