package machine

import (
	"fmt"
	"testing"
)

// told is a test that does not end, and remembers how it should have.
type told struct {
	testing.TB
	skipped, failed string
}

func (t *told) Helper()                   {}
func (t *told) Skipf(f string, a ...any)  { t.skipped = fmt.Sprintf(f, a...) }
func (t *told) Fatalf(f string, a ...any) { t.failed = fmt.Sprintf(f, a...) }

func TestWhatIsLackingIsAFailureWhereAllMustRun(t *testing.T) {
	for set, want := range map[string]told{
		"":  {skipped: "no IPv6: 7"},
		"1": {failed: "no IPv6: 7; NETLATENCY_TEST_COMPLETE is set, and no test may be left out"},
	} {
		t.Setenv(Complete, set)
		got := told{}
		if Lacks(&got, "no IPv6: %d", 7); got != want {
			t.Errorf("with %q: %+v, want %+v", set, got, want)
		}
	}
}
