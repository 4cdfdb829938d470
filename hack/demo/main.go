// Command demo brings up the sandbox of a scenario, plays it, and shows what
// netlatency does: a table for the person, a report for machines, and then the
// cluster to look at. Its settings are environment variables: SCENARIO, REPORT,
// DEMO_ONCE.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
	"k8s.io/klog/v2"

	"github.com/netlatency/netlatency/test/sandbox"
	"github.com/netlatency/netlatency/test/sandbox/cluster"
	"github.com/netlatency/netlatency/test/sandbox/namespace"
	"github.com/netlatency/netlatency/test/sandbox/scenario"
	"github.com/netlatency/netlatency/test/sandbox/trial"
)

// What the first process tells the one in the sandbox.
const (
	variableBinDir = "NETLATENCY_DEMO_BIN_DIR"
	variableBuild  = "NETLATENCY_DEMO_BUILD_SECONDS"
)

func main() {
	terminal := term.IsTerminal(int(os.Stdout.Fd()))
	out := newPrinter(os.Stdout, terminal)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	if namespace.Outside() {
		endWithMake()
		// Modules are downloaded here: the sandbox has no way out.
		if err := prepare(ctx, out); err != nil {
			fail(out, err)
		}
	}
	stop()
	namespace.Enter()
	// What client libraries note in passing is not for the person who watches.
	klog.SetSlogLogger(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	ctx, stop = signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, out, terminal); err != nil {
		fail(out, err)
	}
}

// endWithMake has the demo end when make was killed, as it would at Ctrl-C.
func endWithMake() {
	if os.Getenv("MAKELEVEL") != "" {
		// It fails on no Linux, and elsewhere there is no sandbox.
		_ = unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGTERM), 0, 0, 0)
	}
}

func fail(out *printer, err error) {
	out.end()
	fmt.Fprintln(os.Stderr, "demo:", err)
	os.Exit(1)
}

// began is when make was asked for the demo, where make says so.
func began() time.Time {
	if seconds, err := strconv.ParseInt(os.Getenv("DEMO_BEGAN"), 10, 64); err == nil {
		return time.Unix(seconds, 0)
	}
	return time.Now()
}

// prepare checks the scenario before anything takes time, and builds.
func prepare(ctx context.Context, out *printer) error {
	started := began()
	if _, err := loadScenario(); err != nil {
		return err
	}
	out.Status("building what is not up to date (the first time, Kubernetes takes some minutes)")
	binDir, err := cluster.Build(ctx, func(line string) { out.Step("%s", line) }, sandbox.Programs...)
	if err != nil {
		return err
	}
	os.Setenv(variableBinDir, binDir)
	os.Setenv(variableBuild, strconv.FormatFloat(time.Since(started).Seconds(), 'f', 1, 64))
	return nil
}

func loadScenario() (*scenario.Scenario, error) {
	path := os.Getenv("SCENARIO")
	if path == "" {
		path = filepath.Join("test", "sandbox", "scenarios", "metro.yaml")
	}
	return scenario.Load(path)
}

func run(ctx context.Context, out *printer, terminal bool) error {
	script, err := loadScenario()
	if err != nil {
		return err
	}
	build, err := strconv.ParseFloat(os.Getenv(variableBuild), 64)
	if err != nil {
		return fmt.Errorf("%s: %w", variableBuild, err)
	}
	started := time.Now()
	out.Step("Scenario %s: %d nodes of %d providers", script.Name, len(script.NodeList()), len(script.Providers))
	s, err := sandbox.Start(ctx, sandbox.Options{
		Scenario:   script,
		BinDir:     os.Getenv(variableBinDir),
		HostAccess: true,
		Progress:   func(line string) { out.Status("%s", line) },
	})
	if err != nil {
		return err
	}
	defer func() {
		out.Status("stopping")
		if err := s.Stop(); err != nil {
			out.Step("Stopping left something undone: %v", err)
		}
		out.end()
	}()
	out.Step("The cluster is up")
	up := time.Since(started)
	report, err := trial.Run(ctx, s, trial.Options{Progress: out})
	if err != nil {
		logs := filepath.Join("build", "demo-logs")
		if saveErr := s.SaveLogs(logs); saveErr != nil {
			return errors.Join(err, saveErr)
		}
		return fmt.Errorf("%w\nthe logs of all parts are in %s", err, logs)
	}
	report.Seconds.Build = build
	report.Seconds.Start += up.Seconds()
	report.Seconds.Total = build + time.Since(started).Seconds()
	path := os.Getenv("REPORT")
	if path == "" {
		path = filepath.Join("build", "demo.json")
	}
	if err := report.Write(path); err != nil {
		return err
	}
	show(out, report, terminal, path)
	if !terminal || os.Getenv("DEMO_ONCE") == "1" {
		return nil
	}
	binDir := os.Getenv(variableBinDir)
	fmt.Fprintf(out.w, "\nThe cluster stays up until Ctrl-C. In another terminal:\n\n  export KUBECONFIG=%s PATH=%s:$PATH\n  alias kubectl='kubernetes kubectl'\n  kubectl netlatency doctor\n\n", s.Kubeconfig, binDir)
	select {
	case <-ctx.Done():
	case <-s.Cluster.Done():
		return s.Cluster.Err()
	}
	return nil
}

func show(out *printer, report *trial.Report, terminal bool, path string) {
	out.end()
	fmt.Fprintf(out.w, "\n%s: %d nodes, %d of %d pairs measured; the agents' samples are off the truth by %.3f ms (p50) and %.3f ms (p99)\n\n",
		report.Scenario, report.Nodes, report.PairsFresh, report.Pairs, report.RTTErrorP50, report.RTTErrorP99)
	report.Table(out.w, terminal && os.Getenv("NO_COLOR") == "")
	fmt.Fprintf(out.w, "\n%s\n\n%s (%.0f s: build %.0f, start %.0f, measure %.0f)\n", wrap(report.Summary(), 100), path,
		report.Seconds.Total, report.Seconds.Build, report.Seconds.Start, report.Seconds.Measure)
}
