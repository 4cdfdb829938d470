// Command captures runs the commands that docs/cli.md shows, in a sandbox with
// a few Ray workers, and writes what they print into it: between a line
//
//	<!-- capture: kubectl netlatency matrix -->
//
// and the next that says end. POD stands for a worker.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/netlatency/netlatency/pkg/cli"
	"github.com/netlatency/netlatency/test/sandbox"
	"github.com/netlatency/netlatency/test/sandbox/cluster"
	"github.com/netlatency/netlatency/test/sandbox/namespace"
	"github.com/netlatency/netlatency/test/sandbox/scenario"
	"github.com/netlatency/netlatency/test/sandbox/trial"
)

// variableBinDir tells the process in the sandbox where the first one built.
const variableBinDir = "NETLATENCY_CAPTURES_BIN_DIR"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if namespace.Outside() {
		// Modules are downloaded here: the sandbox has no way out.
		binDir, err := cluster.Build(ctx, note, sandbox.Programs...)
		if err != nil {
			fail(err)
		}
		os.Setenv(variableBinDir, binDir)
	}
	namespace.Enter()
	if err := run(ctx, filepath.Join("docs", "cli.md")); err != nil {
		fail(err)
	}
}

func note(line string) { fmt.Fprintln(os.Stderr, line) }

func fail(err error) {
	fmt.Fprintln(os.Stderr, "captures:", err)
	os.Exit(1)
}

// errCaptured ends the trial when it has served its purpose.
var errCaptured = errors.New("captured")

func run(ctx context.Context, document string) (err error) {
	script, err := scenario.Load(filepath.Join("test", "sandbox", "scenarios", "metro.yaml"))
	if err != nil {
		return err
	}
	s, err := sandbox.Start(ctx, sandbox.Options{Scenario: script, BinDir: os.Getenv(variableBinDir), Progress: note})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Stop()) }()
	_, err = trial.Run(ctx, s, trial.Options{
		Progress: progress{},
		BeforeBurst: func(ctx context.Context, service *cluster.RayService, _ int) error {
			workers, err := s.Cluster.Workers(ctx, service.Key())
			if err != nil {
				return err
			}
			if len(workers) == 0 {
				return errors.New("there is no worker to show")
			}
			kubeconfig := s.Dir("captures.kubeconfig")
			if err := s.Cluster.WriteKubeconfig(kubeconfig, s.Cluster.URL()); err != nil {
				return err
			}
			if err := fill(document, kubeconfig, workers[0].Name); err != nil {
				return err
			}
			return errCaptured
		},
	})
	if errors.Is(err, errCaptured) {
		return nil
	}
	return err
}

type progress struct{}

func (progress) Step(format string, args ...any) { note(fmt.Sprintf(format, args...)) }
func (progress) Status(string, ...any)           {}

var capture = regexp.MustCompile(`(?s)(<!-- capture: kubectl netlatency ([^\n]*) -->\n).*?(<!-- end -->)`)

// fill runs each command of the document and puts what it prints in its place.
func fill(document, kubeconfig, pod string) error {
	text, err := os.ReadFile(document)
	if err != nil {
		return err
	}
	var failed error
	defer os.Remove("matrix.jsonl.gz") // what the command "record" of the document writes
	filled := capture.ReplaceAllFunc(text, func(block []byte) []byte {
		parts := capture.FindSubmatch(block)
		command := strings.ReplaceAll(string(parts[2]), "POD", pod)
		var out, notes bytes.Buffer
		streams := genericiooptions.IOStreams{In: &bytes.Buffer{}, Out: &out, ErrOut: &notes}
		if code := cli.Run(streams, append(strings.Fields(command), "--kubeconfig", kubeconfig)); code != 0 {
			failed = errors.Join(failed, fmt.Errorf("kubectl netlatency %s: exit code %d: %s", command, code, notes.String()))
			return block
		}
		return fmt.Appendf(nil, "%s```console\n$ kubectl netlatency %s\n%s```\n%s", parts[1], command, append(out.Bytes(), notes.Bytes()...), parts[3])
	})
	if failed != nil {
		return failed
	}
	return os.WriteFile(document, filled, 0o644) //nolint:gosec // it is a document
}
