// Package version is the version of netlatency that a program was built from.
// It is not component-base's: there a scheduler keeps the version of Kubernetes
// it is made of, by which it decides what features it may use.
package version

// version is set by the linker:
// -X github.com/netlatency/netlatency/pkg/version.version=v1.2.3
var version = "dev"

// String is the version, "dev" when the build did not say.
func String() string { return version }
