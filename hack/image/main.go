// Command image makes an OCI image of each of our programs without a container
// engine: a layer with the program, before it one with the roots of TLS where it
// needs them, and nothing else. A list of the modules that it is made of refers to
// it. The same programs give the same bytes.
//
// It takes the programs from DIRECTORY/bin/ARCHITECTURE/PROGRAM and writes an OCI
// layout DIRECTORY/PROGRAM with the images of all architectures, and beside it
// PROGRAM-ARCHITECTURE.spdx.json. With -push it sends them to a registry too, by
// the credentials that docker and its like have stored.
//
// usage: hack/image.sh, which builds the programs
package main

import (
	"flag"
	"fmt"
	"os"
	"time"
)

// program is something in cmd that has an image.
type program struct {
	name, description string
	// roots is whether it may talk to servers with certificates of public
	// authorities. The API server's own comes with a pod's token.
	roots bool
}

// programs are all that have an image.
var programs = []program{
	{name: "agent", description: "Measures round trips between Kubernetes nodes"},
	// It may be told to read a Prometheus.
	{name: "scheduler", description: "kube-scheduler that places pods near what they talk to", roots: true},
	// For a Pod that looks after a cluster, and where nobody may install programs.
	{name: "kubectl-netlatency", description: "Asks netlatency what it measured", roots: true},
}

// release is what the images of a build have in common.
type release struct {
	version  string
	revision string // of the source
	created  time.Time
}

func main() {
	var of release
	var created int64
	directory := flag.String("directory", "build/image", "where the programs are and the images go")
	flag.StringVar(&of.version, "version", "dev", "the version of the programs, with which the images are tagged")
	flag.StringVar(&of.revision, "revision", "", "the commit they are made of")
	flag.Int64Var(&created, "created", 0, "when that was made, in seconds since 1970")
	push := flag.String("push", "", "registry and path to send the images to, for instance ghcr.io/netlatency")
	list := flag.Bool("list", false, "only write the names of the programs")
	flag.Parse()
	of.created = time.Unix(created, 0).UTC()
	for _, p := range programs {
		if *list {
			fmt.Println(p.name)
			continue
		}
		if err := run(p, of, *directory, *push); err != nil {
			fmt.Fprintf(os.Stderr, "image of %s: %v\n", p.name, err)
			os.Exit(1)
		}
	}
}

// run makes the images of p, and sends them to a registry unless push is empty.
func run(p program, of release, directory, push string) error {
	made, err := build(p, of, directory)
	if err != nil {
		return err
	}
	if err := made.write(directory); err != nil {
		return err
	}
	digest, err := made.index.Digest()
	if err != nil {
		return err
	}
	fmt.Printf("%s@%s\n", p.name, digest)
	if push == "" {
		return nil
	}
	return made.push(push)
}
