// Command bench sets what benchmarks and the demo measured beside what it is
// compared with, as JSON for machines and a table for a person. It judges
// nothing by its exit code: times depend on the machine.
package main

import (
	"encoding/json"
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

func run(in inputs, output string, table io.Writer) error {
	r := make(results)
	if in.demo != "" {
		data, err := os.ReadFile(in.demo)
		if err != nil {
			return fmt.Errorf("read report of the demo: %w", err)
		}
		var report trial.Report
		if err := json.Unmarshal(data, &report); err != nil {
			return fmt.Errorf("%s is not a report of the demo: %w", in.demo, err)
		}
		if err := r.addDemo(&report); err != nil {
			return fmt.Errorf("%s: %w", in.demo, err)
		}
	}
	for _, b := range []struct {
		file string
		add  func(samples) error
	}{{in.benchmarks, r.addBenchmarks}, {in.perf, r.addPerf}, {in.peers, r.addPeers}} {
		if b.file == "" {
			continue
		}
		if err := readBenchmarks(b.file, b.add); err != nil {
			return err
		}
	}
	if in.estimates {
		if err := r.addEstimates(in.matrices, table); err != nil {
			return fmt.Errorf("judge estimates: %w", err)
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
	return nil
}

// readBenchmarks gives add what the output of go test -bench in file says.
func readBenchmarks(file string, add func(samples) error) error {
	printed, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("read benchmarks: %w", err)
	}
	defer printed.Close()
	samples, err := parse(printed)
	if err != nil {
		return fmt.Errorf("read benchmarks from %s: %w", file, err)
	}
	if err := add(samples); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}
