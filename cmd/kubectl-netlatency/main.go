// Command kubectl-netlatency is what a person asks netlatency with: "kubectl
// netlatency" where it is on the PATH.
package main

import (
	"os"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/netlatency/netlatency/pkg/cli"
)

func main() {
	os.Exit(cli.Run(genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr}, os.Args[1:]))
}
