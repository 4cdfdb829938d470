package networks

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReadTakesASquareOfMilliseconds(t *testing.T) {
	for name, text := range map[string]string{
		"lines that end with a value": "0\t1.5\t0\n1.25\t0\t3e2\n0\t7\t0\n",
		"lines that end with a tab":   "0\t1.5\t0\t\n1.25\t0\t3e2\t\n0\t7\t0\t\n",
		"lines that end as on DOS":    "0\t1.5\t0\r\n1.25\t0\t3e2\r\n0\t7\t0\r\n",
		"no end of the last line":     "0\t1.5\t0\n1.25\t0\t3e2\n0\t7\t0",
	} {
		t.Run(name, func(t *testing.T) {
			n, err := Read(strings.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			want := [][]float64{{0, 0.0015, 0}, {0.00125, 0, 0.3}, {0, 0.007, 0}}
			if diff := cmp.Diff(want, n.RTT); diff != "" {
				t.Errorf("round trips (-want +got):\n%s", diff)
			}
			if len(n.Names) != 3 || len(n.Groups) != 0 {
				t.Errorf("names are %q, groups %v", n.Names, n.Groups)
			}
		})
	}
}

func TestReadRefusesEverythingElse(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"nothing", "", "no lines"},
		{"an empty line", "\n", "line 1: value 1"},
		{"a file that is cut off between lines", "0\t1\t2\n1\t0\t2\n", "cut off"},
		{"a file that is cut off within a line", "0\t1\t2\n1\t0\t2\n1\t", "line 3 has 1 values, the first has 3"},
		{"too many lines", "0\t1\n1\t0\n1\t1\n", "want a square"},
		{"another separator", "0 1\n1 0\n", `line 1: value 1 is "0 1"`},
		{"a missing value", "0\t\t1\n", `line 1: value 2 is ""`},
		{"a negative value for missing", "0\t-1\n1\t0\n", `line 1: value 2 is "-1"`},
		{"not a number", "0\tNaN\n1\t0\n", "line 1: value 2"},
		{"an infinite value", "0\tInf\n1\t0\n", "line 1: value 2"},
		{"a value in microseconds", "0\t25000\n1\t0\n", "want milliseconds from 0 to 10000"},
		{"a node that is far from itself", "0\t1\n1\t3\n", "line 2: 3 ms from node 2 to itself"},
		{"a compressed file", "\x1f\x8b\x08\x00", "line 1: value 1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := Read(strings.NewReader(test.text)); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error is %v, want one with %q", err, test.want)
			}
		})
	}
}

func FuzzRead(f *testing.F) {
	for _, seed := range []string{"0\t1.5\n2\t0\n", "0\t1\t\r\n1\t0\t\r\n", "0", "\t", "0\t1e309\n1\t0\n", "0\t1\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := Read(strings.NewReader(text))
		if err != nil {
			return
		}
		var again strings.Builder
		for i, row := range n.RTT {
			if len(row) != len(n.RTT) || row[i] != 0 {
				t.Fatalf("row %d of %d is %v", i, len(n.RTT), row)
			}
			for j, rtt := range row {
				if rtt < 0 || rtt > 10 || math.IsNaN(rtt) {
					t.Fatalf("%v s from %d to %d", rtt, i, j)
				}
				if j > 0 {
					again.WriteByte('\t')
				}
				fmt.Fprint(&again, rtt*1000)
			}
			again.WriteByte('\n')
		}
		if _, err := Read(strings.NewReader(again.String())); err != nil && !strings.Contains(err.Error(), "want milliseconds") {
			t.Errorf("written again it is refused: %v", err)
		}
	})
}
