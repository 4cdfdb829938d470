package cluster

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestProcessThatEndsByItselfIsReportedWithItsLastLines(t *testing.T) {
	failed := make(chan error, 1)
	_, err := startProcess("worker", t.TempDir(), "/bin/sh", []string{"-c", "for i in $(seq 100); do echo line $i; done; echo out of $WHAT >&2; exit 3"},
		[]string{"WHAT=luck"}, func(err error) { failed <- err })
	if err != nil {
		t.Fatal(err)
	}
	select {
	case err = <-failed:
	case <-time.After(30 * time.Second):
		t.Fatal("the end was not reported")
	}
	got := fmt.Sprint(err)
	for _, want := range []string{"worker ended (exit status 3)", "worker.log", "line 100\nout of luck"} {
		if !strings.Contains(got, want) {
			t.Errorf("report lacks %q:\n%s", want, got)
		}
	}
	if strings.Contains(got, "line 1\n") {
		t.Errorf("report holds the whole log:\n%s", got)
	}
}

func TestStoppedProcessIsGoneAndNotAFailure(t *testing.T) {
	p, err := startProcess("sleeper", t.TempDir(), "/bin/sh", []string{"-c", "sleep 1000"}, nil, func(err error) { t.Errorf("reported as failed: %v", err) })
	if err != nil {
		t.Fatal(err)
	}
	p.stop()
	select {
	case <-p.done:
	default:
		t.Error("stop returned before the process was reaped")
	}
	p.stop() // a second time must neither block nor kill a stranger
}

func TestProgramThatIsMissingIsNamed(t *testing.T) {
	_, err := startProcess("etcd", t.TempDir(), "/nonexistent/kubernetes", nil, nil, func(error) {})
	if err == nil || !strings.Contains(err.Error(), "start etcd") {
		t.Errorf("error %v", err)
	}
}
