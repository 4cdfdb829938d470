// Command bench sets what benchmarks and the demo measured beside what it is
// compared with, as JSON for machines and a table for a person. It judges
// nothing by its exit code: times depend on the machine. It fails if something
// was not measured.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/netlatency/netlatency/test/sandbox/trial"
)

func main() {
	var in inputs
	flag.StringVar(&in.demo, "demo", "build/demo.json", "report of the demo; empty leaves it out")
	flag.StringVar(&in.benchmarks, "benchmarks", "build/bench.txt", "output of go test -bench; empty leaves it out")
	flag.StringVar(&in.perf, "perf", "build/perf.txt", "output of hack/perf.sh; empty leaves it out")
	flag.StringVar(&in.peers, "peers", "build/peers.txt", "output of hack/peers.sh; empty leaves it out")
	flag.BoolVar(&in.estimates, "estimates", true, "judge estimates on generated networks and on those in -matrices")
	flag.StringVar(&in.matrices, "matrices", os.Getenv("MATRICES"), "directory with measured networks, NAME-1.txt.gz and so on")
	output := flag.String("output", "build/bench.json", "file to write")
	flag.Parse()
	if err := run(in, *output, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// inputs is where results come from; what is empty is left out.
type inputs struct {
	demo, benchmarks, perf, peers string // files
	estimates                     bool
	matrices                      string // directory
}

// run writes what results there are, also where it returns an error: what one
// part of the inputs lacks does not lose the others.
func run(in inputs, output string, table io.Writer) error {
	r := make(results)
	var errs []error
	if in.demo != "" {
		if err := r.addReport(in.demo); err != nil {
			errs = append(errs, fmt.Errorf("report of the demo %s: %w", in.demo, err))
		}
	}
	for _, b := range []struct {
		file string
		add  func(samples) error
	}{{in.benchmarks, r.addBenchmarks}, {in.perf, r.addPerf}, {in.peers, r.addPeers}} {
		if b.file == "" {
			continue
		}
		if err := addPrinted(b.file, b.add); err != nil {
			errs = append(errs, fmt.Errorf("benchmarks %s: %w", b.file, err))
		}
	}
	if in.estimates {
		if err := r.addEstimates(in.matrices, table); err != nil {
			errs = append(errs, fmt.Errorf("judge estimates: %w", err))
		}
		fmt.Fprintln(table)
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode results: %w", err)
	}
	if err := os.WriteFile(output, append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	r.table(table)
	return errors.Join(errs...)
}

// addReport adds what the demo reported in file.
func (r results) addReport(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var report trial.Report
	if err := json.Unmarshal(data, &report); err != nil {
		return err
	}
	return r.addDemo(&report)
}

// addPrinted gives add what go test -bench printed into file.
func addPrinted(file string, add func(samples) error) error {
	printed, err := os.Open(file)
	if err != nil {
		return err
	}
	defer printed.Close()
	s, err := parse(printed)
	if err != nil {
		return err
	}
	return add(s)
}
