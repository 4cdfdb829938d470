package main

import (
	"compress/gzip"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/netlatency/netlatency/test/networks"
)

// matrix is the text of a network of two sites with nodes nodes.
func matrix(nodes int, seed uint64) string {
	r := rand.New(rand.NewPCG(seed, 1))
	var b strings.Builder
	for i := range nodes {
		for j := range nodes {
			rtt := 50 + r.Float64()
			if i%2 == j%2 {
				rtt = 1 + r.Float64()
			}
			if i == j {
				rtt = 0
			}
			fmt.Fprintf(&b, "%g\t", rtt)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func TestNetworksAreReadBySliceAndName(t *testing.T) {
	directory := t.TempDir()
	for name, nodes := range map[string]int{"lab-10.txt": 4, "lab-9.txt": 3, "lab-2.txt": 2, "alone.txt": 5} {
		if err := os.WriteFile(filepath.Join(directory, name), []byte(matrix(nodes, 1)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Create(filepath.Join(directory, "other-net-1.txt.gz"))
	if err != nil {
		t.Fatal(err)
	}
	z := gzip.NewWriter(f)
	if _, err := z.Write([]byte(matrix(6, 1))); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}

	all, err := readNetworks(directory)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]int{}
	for _, n := range all {
		for _, slice := range n.slices {
			got[n.name] = append(got[n.name], len(slice.Names))
		}
	}
	want := map[string][]int{"lab": {2, 3, 4}, "alone": {5}, "other-net": {6}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("nodes of slices (-want +got):\n%s", diff)
	}
}

func TestAFileThatIsNoMatrixIsNamed(t *testing.T) {
	directory := t.TempDir()
	if err := os.WriteFile(filepath.Join(directory, "notes.txt"), []byte("read me"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, directory := range map[string]string{"notes.txt": directory, "MATRICES": t.TempDir()} {
		if _, err := readNetworks(directory); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("error is %v, want one with %q", err, name)
		}
	}
}

func TestSlicesAreJudgedByTheNextOneToo(t *testing.T) {
	n := network{name: "lab"}
	for seed := range uint64(2) {
		slice, err := networks.Read(strings.NewReader(matrix(80, seed)))
		if err != nil {
			t.Fatal(err)
		}
		n.slices = append(n.slices, slice)
	}
	r := make(results)
	var log strings.Builder
	if err := r.addSlices(n, &log); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"estimate_median_error_lab", "placement_regret_lab", "placement_regret_lab_next_slice"} {
		if m, ok := r[name]; !ok || m.Value <= 0 || m.Baseline <= 0 {
			t.Errorf("%s is %+v", name, m)
		}
	}
	if m := r["placement_regret_lab"]; m.Target == nil || *m.Target >= m.Baseline || *m.Target < 1 {
		t.Errorf("the target of regret is %v where Vivaldi has %v", m.Target, m.Baseline)
	}
}

func TestWhatIsLeftOutIsSaid(t *testing.T) {
	r := make(results)
	var log strings.Builder
	if err := r.addMeasured("", &log); err != nil {
		t.Fatal(err)
	}
	if len(r) != 0 || !strings.HasPrefix(log.String(), "LEFT OUT") || !strings.Contains(log.String(), "MATRICES") {
		t.Errorf("there are %d results, and it says\n%s", len(r), &log)
	}
}
