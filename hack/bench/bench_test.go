package main

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/netlatency/netlatency/test/sandbox/trial"
)

const printed = "testdata/bench.txt" // two short runs of each benchmark

func TestBenchmarksAreReadByPackageNameAndUnit(t *testing.T) {
	got, err := parse(strings.NewReader(`goos: linux
pkg: github.com/netlatency/netlatency/pkg/probe
cpu: AMD EPYC
BenchmarkUDPRoundTrip-2    	     250	    239918 ns/op	         1.112 p50-µs	      30 B/op
BenchmarkUDPRoundTrip-2    	     220	    313588 ns/op	         1.183 p50-µs	       3 B/op
PASS
ok  	github.com/netlatency/netlatency/pkg/probe	0.328s
pkg: github.com/netlatency/netlatency/pkg/exposition
BenchmarkThatLogs
    a_test.go:1: Benchmark of something
BenchmarkDecode/text/1000  	2	4.2e+07 ns/op
`))
	if err != nil {
		t.Fatal(err)
	}
	want := samples{
		"probe.UDPRoundTrip":          {"ns/op": {239918, 313588}, "p50-µs": {1.112, 1.183}, "B/op": {30, 3}},
		"exposition.Decode/text/1000": {"ns/op": {4.2e7}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("samples (-want +got):\n%s", diff)
	}
}

func TestTheMiddleRunCounts(t *testing.T) {
	for _, test := range []struct {
		runs []float64
		want float64
	}{
		{[]float64{3}, 3},
		{[]float64{3, 1}, 2},
		{[]float64{900, 1, 3}, 3},
	} {
		got, err := samples{"b": {"ns/op": test.runs}}.median("b", "ns/op")
		if err != nil || got != test.want {
			t.Errorf("median of %v is %v, error %v; want %v", test.runs, got, err, test.want)
		}
	}
}

func TestATargetIsReachedFromTheRightSide(t *testing.T) {
	for _, test := range []struct {
		value  float64
		target *float64
		better direction
		want   string
	}{
		{2, new(2.0), lower, "met"},
		{2.1, new(2.0), lower, "MISSED"},
		{2, new(2.0), higher, "met"},
		{1.9, new(2.0), higher, "MISSED"},
		{1.9, nil, higher, ""},
	} {
		if got := (result{Value: test.value, Target: test.target, Better: test.better}).verdict(); got != test.want {
			t.Errorf("%v with a target of %v, better %s, is %q, want %q", test.value, test.target, test.better, got, test.want)
		}
	}
}

// report is one of a demo in which netlatency misses one target, that of the
// network's p99 against pinned workers in phase drift.
func report() *trial.Report {
	mode := func(net, wall, seconds, cost float64) *trial.Mode {
		return &trial.Mode{Workers: 96, Bound: 96, SearchNetP99: net, SearchP99: wall, SecondsToBound: seconds, CostVsBest: cost}
	}
	return &trial.Report{RTTErrorP50: 0.0035, RTTErrorP99: 0.0397, RTTSamples: 38416, Phases: []trial.Phase{
		{Name: trial.PhaseSteady, Modes: map[string]*trial.Mode{
			trial.ModeDefault: mode(29.0038, 38.9764, 4.8, 2.1365), trial.ModePinned: mode(8, 16, 4.9, 1.0065), trial.ModeNetLatency: mode(8.1116, 15.7329, 4, 1.00425),
		}},
		{Name: trial.PhaseDrift, Modes: map[string]*trial.Mode{
			trial.ModeDefault: mode(50, 55, 4.8, 1.7), trial.ModePinned: mode(20, 53, 4.9, 2.5), trial.ModeNetLatency: mode(18, 29, 4, 1.0038),
		}},
	}}
}

// bench runs the program and returns what it wrote and printed.
func bench(t *testing.T, report *trial.Report, benchmarks string) (written []byte, table string, err error) {
	t.Helper()
	demo, output := filepath.Join(t.TempDir(), "demo.json"), filepath.Join(t.TempDir(), "bench.json")
	if err := report.Write(demo); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := run(inputs{demo: demo, benchmarks: benchmarks}, output, &b); err != nil {
		return nil, "", err
	}
	written, err = os.ReadFile(output)
	return written, b.String(), err
}

func TestResultsAreWrittenInTheFormatThatOthersRead(t *testing.T) {
	written, _, err := bench(t, report(), printed)
	if err != nil {
		t.Fatal(err)
	}
	const want = `
  "search_net_p99/steady/vs_default": {
    "value": 8.1116,
    "unit": "ms",
    "baseline": 29.0038,
    "baseline_name": "default scheduler",
    "target": 17.4023,
    "better": "lower"
  },
`
	if !strings.Contains(string(written), want) {
		t.Errorf("results do not have%s\nthey are\n%s", want, written)
	}

	var got results
	if err := json.Unmarshal(written, &got); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]result{
		"bound_per_second/steady/vs_default":         {24, "pods/s", 20, "default scheduler", nil, higher},
		"cost/drift/vs_best":                         {1.0038, "ratio", 1, "optimum under capacity", new(1.1), lower},
		"search_net_p99/drift/vs_default":            {18, "ms", 50, "default scheduler", nil, lower},
		"rtt_error_p99/sandbox/vs_wan_log":           {0.0397, "ms", 0, "the WAN's log of the same packets", new(0.1), lower},
		"probe_error_p50/loopback/vs_user_clock":     {1.1475, "µs", 19.045, byUserClock, nil, lower},
		"window_size/1000_peers/vs_text":             {163.038, "kB", 706.616, asText, new(200.0), lower},
		"window_decode/1000_peers/vs_expfmt":         {2.1994, "ms", 3.7041, byExpfmt, nil, lower},
		"cycle_allocated/5000_nodes/vs_fit":          {0.368, "kB", 243.328, byFit, nil, lower},
		"window_size_gzip/1000_peers/vs_text":        {57.336, "kB", 63.453, asText, new(60.0), lower},
		"costs/5000_nodes/vs_computed_anew":          {0.1944, "ms", 16.3721, "costs computed for each pod", nil, lower},
		"search_p99/steady/vs_default":               {15.7329, "ms", 38.9764, "default scheduler", new(23.3858), lower},
		"cycle_after_target_moved/5000_nodes/vs_fit": {16.7011, "ms", 1.7667, byFit, nil, lower},
		"probe_error_p99_us_cpu_busy":                {11.9615, "µs", 688.6, byProbing, new(25.0), lower}, // that of udp4, which is the larger
		"agent_goroutines_2000_peers":                {24, "goroutines", 8003, byDatagrams, nil, lower},
		"agent_cpu_cores_1000_peers_1hz":             {0.0997, "cores", 0.3339, byDatagrams, new(0.1), lower},
		"probe_error_p99_us_cpu_busy_udp6":           {10.2255, "µs", 688.6, byProbing, new(25.0), lower},
	} {
		if diff := cmp.Diff(want, got[name]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestTheTableNamesWhatMissesItsTarget(t *testing.T) {
	_, table, err := bench(t, report(), printed)
	if err != nil {
		t.Fatal(err)
	}
	verdicts := make(map[string]string)
	for line := range strings.Lines(table) {
		if f := strings.Fields(line); f[len(f)-1] == "met" || f[len(f)-1] == "MISSED" {
			verdicts[f[0]] = f[len(f)-1]
		}
	}
	want := map[string]string{
		"collect_cpu_seconds_per_round_1000_agents": "met", "collect_round_5000_agents": "met", "collector_rss_mib_5000": "met", "series_5000_nodes": "met",
		"cost/drift/vs_best": "met", "cost/steady/vs_best": "met",
		"rtt_error_p50/sandbox/vs_wan_log": "met", "rtt_error_p99/sandbox/vs_wan_log": "met",
		"search_net_p99/steady/vs_default": "met", "search_net_p99/steady/vs_pinned": "met", "search_net_p99/drift/vs_pinned": "MISSED",
		"search_p99/steady/vs_default":   "met",
		"window_size/1000_peers/vs_text": "met", "window_size_gzip/1000_peers/vs_text": "met",
		"probe_error_p99_us_cpu_busy": "met", "probe_error_p99_us_cpu_busy_udp4": "met", "probe_error_p99_us_cpu_busy_udp6": "met", "probe_error_p99_us_cpu_busy_icmp": "met",
		"probe_error_max_us_cpu_busy": "met", "probe_error_max_us_cpu_busy_udp4": "met", "probe_error_max_us_cpu_busy_udp6": "met", "probe_error_max_us_cpu_busy_icmp": "MISSED",
		"probe_error_p999_us_cpu_busy":   "met",
		"probe_cpu_cores_1000_peers_1hz": "met", "probe_cpu_cores_1000_peers_1hz_vs_probing": "met", "probe_cpu_cores_1000_peers_1hz_icmp": "met",
		"probe_rss_mib_1000_peers_1hz":    "met",
		"probe_error_p99_us_cpu_busy_tcp": "met", "probe_error_max_us_cpu_busy_tcp": "met",
		"agent_cpu_cores_1000_peers_1hz": "met", "agent_cpu_cores_1000_peers_1hz_vs_probing": "MISSED", "agent_rss_mib_1000_peers": "met",
		"ui_draw_500_nodes_ms": "met", "scrape_bytes_1000_peers": "met", "scrape_bytes_1000_peers_gzip": "met", "scrape_bytes_1000_peers_metrics": "met", "scrape_bytes_1000_peers_metrics_gzip": "met",
	}
	if diff := cmp.Diff(want, verdicts); diff != "" {
		t.Errorf("verdicts (-want +got):\n%s\n%s", diff, table)
	}
}

func TestABenchmarkThatFailedDoesNotLoseTheOthers(t *testing.T) {
	text, err := os.ReadFile(printed)
	if err != nil {
		t.Fatal(err)
	}
	file, output := filepath.Join(t.TempDir(), "bench.txt"), filepath.Join(t.TempDir(), "bench.json")
	failed := strings.ReplaceAll(string(text), "BenchmarkAgent/1000peers", "--- FAIL: BenchmarkAgent/1000peers")
	if err := os.WriteFile(file, []byte(failed), 0o644); err != nil {
		t.Fatal(err)
	}
	err = run(inputs{demo: "there is none", benchmarks: file}, output, io.Discard)
	for _, want := range []string{"there is none", "agent.Agent/1000peers"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want one with %q", err, want)
		}
	}
	written, err := os.ReadFile(output)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"agent_rss_mib_1000_peers": false, "agent_rss_mib_100_peers": true, "probe_error_p99_us_cpu_busy": true} {
		if got := strings.Contains(string(written), `"`+name+`"`); got != want {
			t.Errorf("%s is there: %t, want %t", name, got, want)
		}
	}
}

func TestWhatNeedsControlGroupsMayBeLeftOut(t *testing.T) {
	text, err := os.ReadFile(printed)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "bench.txt")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(string(text), "BenchmarkAccuracy/cpu-limit", "BenchmarkOther/cpu-limit")), 0o644); err != nil {
		t.Fatal(err)
	}
	written, _, err := bench(t, report(), file)
	if err != nil {
		t.Fatal(err)
	}
	if s := string(written); strings.Contains(s, "cpu_limit_50m") || !strings.Contains(s, "probe_error_p99_us_garbage") {
		t.Errorf("results are\n%s\nwant none with a CPU limit, and the others", s)
	}
}

func TestTheTableIsAligned(t *testing.T) {
	r := results{
		"probe/vs_user":   {Value: 1.1475, Unit: "µs", Baseline: 19.045, Better: lower},
		"search/vs_other": {Value: 12345.6, Unit: "pods/s", Baseline: 0, Target: new(20000.0), Better: higher},
	}
	var b strings.Builder
	r.table(&b)
	want := strings.Join([]string{
		"                 value          baseline  ratio  target",
		"probe/vs_user    1.147  µs         19.05  0.060",
		"search/vs_other  12346  pods/s         0          20000  MISSED",
		"",
	}, "\n")
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}

func TestWhatWasNotMeasuredIsAnError(t *testing.T) {
	text, err := os.ReadFile(printed)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		edit    func(*trial.Report)
		renamed string // benchmark
		want    string
	}{
		"a benchmark that was renamed": {renamed: "BenchmarkCycleOfNodeResourcesFit", want: "hack/bench.sh"},
		"a phase that is missing":      {edit: func(r *trial.Report) { r.Phases = r.Phases[:1] }, want: `no phase "drift"`},
		"a mode that is missing":       {edit: func(r *trial.Report) { delete(r.Phases[1].Modes, trial.ModePinned) }, want: `no mode "pinned"`},
		"probes that were not judged":  {edit: func(r *trial.Report) { r.RTTErrorP50, r.RTTErrorP99 = 0, 0 }, want: "rtt_error_p50"},
		"a burst that took no time":    {edit: func(r *trial.Report) { r.Phases[0].Modes[trial.ModeNetLatency].SecondsToBound = 0 }, want: "bound_per_second"},
	} {
		t.Run(name, func(t *testing.T) {
			r := report()
			if test.edit != nil {
				test.edit(r)
			}
			file := filepath.Join(t.TempDir(), "bench.txt")
			edited := string(text)
			if test.renamed != "" {
				edited = strings.ReplaceAll(edited, test.renamed, "BenchmarkOther")
			}
			if err := os.WriteFile(file, []byte(edited), 0o644); err != nil {
				t.Fatal(err)
			}
			if _, _, err := bench(t, r, file); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error is %v, want one with %q", err, test.want)
			}
		})
	}
}
