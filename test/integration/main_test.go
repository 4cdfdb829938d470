// Package integration tests the whole of netlatency on real parts: the chart's
// agents and schedulers as processes, a real control plane, KubeRay, and a
// network between nodes that really delays packets. See docs/sandbox.md.
package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/netlatency/netlatency/test/sandbox"
	"github.com/netlatency/netlatency/test/sandbox/cluster"
	"github.com/netlatency/netlatency/test/sandbox/namespace"
	"github.com/netlatency/netlatency/test/sandbox/scenario"
	"github.com/netlatency/netlatency/test/sandbox/scenarios"
	"github.com/netlatency/netlatency/test/ui/browser"
)

// variableBinDir tells the process in the sandbox where the first one built.
const variableBinDir = "NETLATENCY_TEST_BIN_DIR"

func TestMain(m *testing.M) {
	if namespace.Outside() {
		binDir, err := build()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Setenv(variableBinDir, binDir)
	}
	namespace.Enter()
	code := m.Run()
	browser.Stop()
	os.Exit(code)
}

// build builds what the tests run. Modules are downloaded here: the sandbox has
// no way out.
func build() (string, error) {
	programs := append([]cluster.Binary{cluster.Prometheus, cluster.Promtool}, sandbox.Programs...)
	for _, version := range skewedVersions() {
		other, err := cluster.KubernetesOf(version)
		if err != nil {
			return "", fmt.Errorf("%s: %w", variableSkew, err)
		}
		programs = append(programs, other...)
	}
	return cluster.Build(context.Background(), func(line string) { fmt.Fprintln(os.Stderr, line) }, programs...)
}

// start starts the sandbox of a shipped scenario, changed by adjust where that
// is not nil. It ends with the test; when the test failed the logs of all parts
// are kept.
func start(t *testing.T, name string, adjust func(*scenario.Scenario)) *sandbox.Sandbox {
	t.Helper()
	return startOn(t, "", name, adjust)
}

// startOn is start on another version of Kubernetes; "" is the one we link.
func startOn(t *testing.T, kubernetes, name string, adjust func(*scenario.Scenario)) *sandbox.Sandbox {
	t.Helper()
	data, err := scenarios.Files.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	script, err := scenario.Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	if adjust != nil {
		adjust(script)
	}
	s, err := sandbox.Start(context.Background(), sandbox.Options{Scenario: script, BinDir: os.Getenv(variableBinDir), Kubernetes: kubernetes})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			logs := s.Path("build", "logs", filepath.FromSlash(t.Name()))
			if err := s.SaveLogs(logs); err != nil {
				t.Error(err)
			}
			t.Logf("the logs of all parts are in %s", logs)
		}
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}
