package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/source"
)

// metro is a recording of two providers: a and b are of hetzner, c of gthost,
// and d, which nobody has measured yet, too.
func metro(t *testing.T) string {
	t.Helper()
	at := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	measured := make(map[latency.Pair]latency.Distribution)
	for _, m := range []struct {
		node, peer string
		rtt        time.Duration
		lost       int
	}{
		{"a", "b", 200 * time.Microsecond, 0}, {"b", "a", 220 * time.Microsecond, 0},
		{"a", "c", 2 * time.Millisecond, 0}, {"c", "a", 2100 * time.Microsecond, 0},
		{"b", "c", 12 * time.Millisecond, 100}, {"c", "b", 12 * time.Millisecond, 0},
	} {
		measured[latency.Pair{Node: m.node, Peer: m.peer}] = latency.Distribution{
			Mean: m.rtt, P50: m.rtt, P90: m.rtt, P99: 2 * m.rtt, Min: m.rtt / 2,
			Samples: 120, Sent: 1000, Lost: m.lost, Newest: at.Add(-4 * time.Second), Method: "udp",
		}
	}
	groups := map[string]latency.NodeGroup{"a": {Provider: "hetzner"}, "b": {Provider: "hetzner"}, "c": {Provider: "gthost"}, "d": {Provider: "gthost"}}
	path := filepath.Join(t.TempDir(), "metro.jsonl")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := source.Record(file, latency.NewMatrix(at, measured), groups, "test", at); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestMatrix(t *testing.T) {
	file := metro(t)
	legend := "by " + file + ", recorded 2026-07-01T12:00:00Z.\n"
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"by provider", nil, `
FROM \ TO   gthost   hetzner
gthost           ?      2.62
hetzner       2.62      0.26

latency in ms: mean + 0.1·p99 + losses, the median of the pairs of nodes. 6 of 12 pairs are measured, `},
		{"a quantile", []string{"--show", "p99", "--from", "hetzner"}, `
FROM \ TO   gthost   hetzner
hetzner       24.0      0.44

p99 in ms, the median of the pairs of nodes. 4 of 6 pairs are measured, `},
		{"by node", []string{"--by", "node", "--from", "a,b", "--to", "hetzner,c"}, `
FROM \ TO      c      a      b
a           2.40          0.24
b           30.2   0.26

latency in ms: mean + 0.1·p99 + losses. 4 of 4 pairs are measured, `},
		{"words", []string{"--by", "node", "--show", "basis", "--from", "a"}, `
FROM \ TO   c          d       a   b
a           measured   group       measured

basis. 2 of 3 pairs are measured, `},
		{"age", []string{"--show", "age", "--from", "hetzner", "--to", "hetzner"}, `
FROM \ TO   hetzner
hetzner        4.00

age in s. 2 of 2 pairs are measured, `},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, notes, code := kubectl(t, append([]string{"matrix", "--matrix", file}, c.args...)...)
			if code != 0 {
				t.Fatal(notes)
			}
			if diff := cmp.Diff(strings.TrimPrefix(c.want, "\n")+legend, out); diff != "" {
				t.Errorf("printed (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMatrixListsPairs(t *testing.T) {
	out, notes, code := kubectl(t, "matrix", "--matrix", metro(t), "--by", "node", "--from", "a", "--to", "b", "-o", "wide")
	if code != 0 {
		t.Fatal(notes)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 2 {
		t.Fatalf("printed %q, want a line for the pair", out)
	}
	want := []string{"a", "b", "0.24", "0.20", "0.10", "0.20", "0.20", "0.40", "0", "4.00", "measured", "udp", "120"}
	if diff := cmp.Diff(want, strings.Fields(lines[1])); diff != "" {
		t.Errorf("the pair (-want +got):\n%s", diff)
	}
}

func TestMatrixForPrograms(t *testing.T) {
	file := metro(t)
	out, notes, code := kubectl(t, "matrix", "--matrix", file, "--by", "node", "--from", "b", "--to", "c,d", "-o", "json")
	if code != 0 {
		t.Fatal(notes)
	}
	var r matrixReport
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Cells) != 2 || r.Nodes != 4 || r.Pairs != 6 || r.By != "node" {
		t.Fatalf("the report is %+v", r)
	}
	if c := r.Cells[0]; c.From != "b" || c.To != "c" || c.P50 == nil || *c.P50 != 12 || c.Loss == nil || *c.Loss < 0.08 || *c.Loss > 0.1 || *c.Age != 4 {
		t.Errorf("b to c is %+v", c)
	}
	if c := r.Cells[1]; c.Basis != "group" || c.Latency == nil || c.Measured != 0 {
		t.Errorf("b to d, which nobody has measured, is %+v", c)
	}
	asYAML, notes, code := kubectl(t, "matrix", "--matrix", file, "--from", "gthost", "--to", "hetzner", "-o", "yaml")
	if code != 0 || !strings.Contains(asYAML, "\n  to: hetzner\n") {
		t.Errorf("as YAML it is %s%s", asYAML, notes)
	}
}

func TestMatrixHasColoursWhenAsked(t *testing.T) {
	file := metro(t)
	plain, _, _ := kubectl(t, "matrix", "--matrix", file)
	if strings.Contains(plain, "\x1b") {
		t.Errorf("what is no terminal gets colours: %q", plain)
	}
	out, _, _ := kubectl(t, "matrix", "--matrix", file, "--color", "always")
	near, far := "\x1b[38;5;154m0.26\x1b[0m", "\x1b[38;5;208m2.62\x1b[0m"
	if !strings.Contains(out, near) || !strings.Contains(out, far) {
		t.Errorf("printed %q, want %q and %q in it", out, near, far)
	}
}

func TestMatrixOfACluster(t *testing.T) {
	out, notes, code := kubectl(t, "matrix", "--kubeconfig", kubeconfig(t, apiServer(t).URL))
	if code != 0 {
		t.Fatal(notes)
	}
	want := `FROM \ TO   gthost   hetzner
gthost                  2.40
hetzner       2.40

latency in ms: mean + 0.1·p99 + losses, the median of the pairs of nodes. 2 of 2 pairs are measured, by agents.
`
	if diff := cmp.Diff(want, out); diff != "" {
		t.Errorf("printed (-want +got):\n%s", diff)
	}
}

func TestMatrixRefuses(t *testing.T) {
	file := metro(t)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--show", "p42"}, `--show is "p42": want one of latency, mean, `},
		{[]string{"--by", "zone"}, `--by is "zone": want provider or node`},
		{[]string{"-o", "xml"}, `--output is "xml": want one of table, wide, json, yaml`},
		{[]string{"--color", "red"}, `--color is "red": want one of auto, always, never`},
		{[]string{"--to", "aws"}, `--to: there is no provider and no node "aws"; the providers are gthost, hetzner`},
		{[]string{"--matrix", "/nowhere"}, "open /nowhere"},
		{[]string{"more"}, `unknown command "more"`},
	} {
		_, notes, code := kubectl(t, append([]string{"matrix", "--matrix", file}, c.args...)...)
		if code == 0 || !strings.Contains(notes, c.want) {
			t.Errorf("%v: exit code %d and %q, want an error with %s", c.args, code, notes, c.want)
		}
	}
}
