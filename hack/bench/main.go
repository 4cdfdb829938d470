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
	demo := flag.String("demo", "build/demo.json", "report of the demo")
	benchmarks := flag.String("benchmarks", "build/bench.txt", "output of go test -bench")
	output := flag.String("output", "build/bench.json", "file to write")
	flag.Parse()
	if err := run(*demo, *benchmarks, *output, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(demo, benchmarks, output string, table io.Writer) error {
	data, err := os.ReadFile(demo)
	if err != nil {
		return fmt.Errorf("read report of the demo: %w", err)
	}
	var report trial.Report
	if err := json.Unmarshal(data, &report); err != nil {
		return fmt.Errorf("%s is not a report of the demo: %w", demo, err)
	}
	printed, err := os.Open(benchmarks)
	if err != nil {
		return fmt.Errorf("read benchmarks: %w", err)
	}
	defer printed.Close()
	samples, err := parse(printed)
	if err != nil {
		return fmt.Errorf("read benchmarks from %s: %w", benchmarks, err)
	}

	r := make(results)
	if err := r.addDemo(&report); err != nil {
		return fmt.Errorf("%s: %w", demo, err)
	}
	if err := r.addBenchmarks(samples); err != nil {
		return fmt.Errorf("%s: %w", benchmarks, err)
	}
	if data, err = json.MarshalIndent(r, "", "  "); err != nil {
		return fmt.Errorf("encode results: %w", err)
	}
	if err := os.WriteFile(output, append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	r.table(table)
	return nil
}
