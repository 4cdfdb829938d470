package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// samples is what each run of a benchmark measured, by the benchmark's package
// and name ("exposition.Decode/text/1000") and then by unit.
type samples map[string]map[string][]float64

// processors is what go test appends to a name when GOMAXPROCS is not 1.
var processors = regexp.MustCompile(`-\d+$`)

// parse reads the output of go test -bench: after a line that names the
// package come lines of a name, a number of iterations, and then values with
// their units (go.dev/design/14313-benchmark-format). Other lines are skipped.
//
// golang.org/x/perf/benchfmt reads more, but its module asks for newer
// golang.org/x modules than those of the Kubernetes release that we link.
func parse(r io.Reader) (samples, error) {
	s := make(samples)
	pkg := ""
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if name, ok := strings.CutPrefix(lines.Text(), "pkg: "); ok {
			pkg = path.Base(name)
			continue
		}
		f := strings.Fields(lines.Text())
		if len(f) < 4 || len(f)%2 != 0 || !strings.HasPrefix(f[0], "Benchmark") {
			continue
		}
		name := pkg + "." + strings.TrimPrefix(processors.ReplaceAllString(f[0], ""), "Benchmark")
		if s[name] == nil {
			s[name] = make(map[string][]float64)
		}
		for i := 2; i < len(f); i += 2 {
			v, err := strconv.ParseFloat(f[i], 64)
			if err != nil {
				return nil, fmt.Errorf("benchmark %s: value of %s: %w", name, f[i+1], err)
			}
			s[name][f[i+1]] = append(s[name][f[i+1]], v)
		}
	}
	return s, lines.Err()
}

// median is what a benchmark measured in the unit, in the middle of its runs.
func (s samples) median(benchmark, unit string) (float64, error) {
	runs := slices.Sorted(slices.Values(s[benchmark][unit]))
	if len(runs) == 0 {
		return 0, fmt.Errorf("no %s of benchmark %s: did it fail, was it renamed, or is it missing in hack/bench.sh?", unit, benchmark)
	}
	return (runs[(len(runs)-1)/2] + runs[len(runs)/2]) / 2, nil
}

// pair is two benchmarks whose measurements in a unit are compared.
type pair struct {
	name         string
	ours, theirs string
	measured     string // the unit as go test has it
	unit         string // the unit of the result
	scale        float64
	baselineName string
	target       *float64
}

const (
	byUserClock = "times read by the process, with Go's net package"
	byExpfmt    = "expfmt's decoder, which makes no window of it yet"
	asText      = "the same window in the text format"
	byFit       = "cycle of NodeResourcesFit"
	byFamilies  = "the same pages decoded by expfmt, no matrix made of them"
	byProbing   = "pro-bing, the better of its raw and its datagram mode"
	byDatagrams = "pro-bing in datagram mode, one Pinger per peer"
	byHTTP      = "HTTP GET, as goldpinger measures"
	byText      = "the same page in the text format"
	byAgents    = "the agents of as many nodes read: of each all its pairs, not those to 50 target nodes"
	byNew       = "the first matrix, which has groups to find"
)

// The targets are the budgets of pkg/exposition: with them a thousand agents
// that all probe each other cost a scheduler 60 MB a round.
var pairs = []pair{
	{"probe_error_p50/loopback/vs_user_clock", "probe.UDPRoundTrip", "probe.UserRoundTrip", "p50-µs", "µs", 1, byUserClock, nil},
	{"probe_error_p99/loopback/vs_user_clock", "probe.UDPRoundTrip", "probe.UserRoundTrip", "p99-µs", "µs", 1, byUserClock, nil},

	{"window_decode/1000_peers/vs_expfmt", "exposition.Decode/protobuf/1000", "exposition.DecodeByExpfmt/protobuf/1000", "ns/op", "ms", 1e-6, byExpfmt, nil},
	{"window_decode_allocated/1000_peers/vs_expfmt", "exposition.Decode/protobuf/1000", "exposition.DecodeByExpfmt/protobuf/1000", "B/op", "kB", 1e-3, byExpfmt, nil},
	{"window_decode_text/1000_peers/vs_expfmt", "exposition.Decode/text/1000", "exposition.DecodeByExpfmt/text/1000", "ns/op", "ms", 1e-6, byExpfmt, nil},
	{"window_size/1000_peers/vs_text", "exposition.Encode/protobuf/1000", "exposition.Encode/text/1000", "wire-B", "kB", 1e-3, asText, new(200.0)},
	{"window_size_gzip/1000_peers/vs_text", "exposition.Encode/protobuf/1000", "exposition.Encode/text/1000", "gzip-B", "kB", 1e-3, asText, new(60.0)},

	// The targets are: what a round may take of one of two processors at the
	// default interval of 10 s, that interval, the chart's memory limit less what
	// a scheduler takes besides, and a Prometheus of about a gigabyte.
	{"collect_cpu_seconds_per_round_1000_agents", "source.Collect/1000agents", "source.CollectByExpfmt/1000agents", "cpu-s/op", "s", 1, byFamilies, new(2.0)},
	{"collect_round_200_agents", "source.Collect/200agents", "source.CollectByExpfmt/200agents", "ns/op", "s", 1e-9, byFamilies, nil},
	{"collect_round_1000_agents", "source.Collect/1000agents", "source.CollectByExpfmt/1000agents", "ns/op", "s", 1e-9, byFamilies, nil},
	{"collect_round_5000_agents", "source.Collect/5000agents", "source.CollectByExpfmt/5000agents", "ns/op", "s", 1e-9, byFamilies, new(10.0)},
	{"collector_rss_mib_5000", "source.Collect/5000agents", "source.CollectByExpfmt/5000agents", "rss-MiB", "MiB", 1, byFamilies, new(600.0)},
	{"collect_prometheus_cpu_seconds_per_round_200_nodes", "source.CollectFromPrometheus/200nodes", "source.Collect/200agents", "cpu-s/op", "s", 1, byAgents, nil},
	{"collect_prometheus_cpu_seconds_per_round_1000_nodes", "source.CollectFromPrometheus/1000nodes", "source.Collect/1000agents", "cpu-s/op", "s", 1, byAgents, nil},
	{"collect_prometheus_cpu_seconds_per_round_5000_nodes", "source.CollectFromPrometheus/5000nodes", "source.Collect/5000agents", "cpu-s/op", "s", 1, byAgents, nil},
	{"collect_prometheus_rss_mib_5000_nodes", "source.CollectFromPrometheus/5000nodes", "source.Collect/5000agents", "rss-MiB", "MiB", 1, byAgents, nil},
	{"series_5000_nodes", "agent.Series/default", "agent.Series/unlimited", "series", "series", 1, "without --max-series", new(400_000.0)},

	{"estimates_cpu_seconds_per_matrix_5000_nodes", "latency.NextEstimator/5000nodes/labels=true", "latency.NewEstimator/5000nodes/labels=true", "cpu-s/op", "s", 1, byNew, nil},
	{"estimates_cpu_seconds_per_matrix_5000_nodes_no_labels", "latency.NextEstimator/5000nodes/labels=false", "latency.NewEstimator/5000nodes/labels=false", "cpu-s/op", "s", 1, byNew, nil},

	{"costs/5000_nodes/vs_computed_anew", "placement.CostsOfAllNodes/5000nodes/10replicas", "placement.Latencies/5000nodes/10replicas", "ns/op", "ms", 1e-6, "costs computed for each pod", nil},

	{"cycle/1000_nodes/vs_fit", "netlatency.Cycle/1000nodes/10targets/warm", "netlatency.CycleOfNodeResourcesFit/1000nodes", "ns/op", "ms", 1e-6, byFit, nil},
	{"cycle/5000_nodes/vs_fit", "netlatency.Cycle/5000nodes/10targets/warm", "netlatency.CycleOfNodeResourcesFit/5000nodes", "ns/op", "ms", 1e-6, byFit, nil},
	{"cycle_allocated/5000_nodes/vs_fit", "netlatency.Cycle/5000nodes/10targets/warm", "netlatency.CycleOfNodeResourcesFit/5000nodes", "B/op", "kB", 1e-3, byFit, nil},
	{"cycle_after_target_moved/5000_nodes/vs_fit", "netlatency.Cycle/5000nodes/10targets/target-moved", "netlatency.CycleOfNodeResourcesFit/5000nodes", "ns/op", "ms", 1e-6, byFit, nil},
}

// contest is several measurements of one run of a benchmark: the largest of
// ours beside the smallest of theirs.
type contest struct {
	name, benchmark    string
	ours, theirs       []string // units
	theirIn            string   // their benchmark, if it is another
	unit               string
	baselineName       string
	target             float64 // 0 if there is none
	ofBaseline         float64 // the target as a part of the baseline, if not 0
	needsControlGroups bool    // and is left out where they cannot be made
}

var udp, icmp, tcp, probing = []string{"udp4", "udp6"}, []string{"icmp4", "icmp6"}, []string{"tcp4", "tcp6"}, []string{"probing-raw", "probing-datagram"}

// contests are the accuracy and the load of a prober. An error is the
// difference to the median that kernel stamps say of the same link when it is
// idle.
func contests() []contest {
	all := []contest{
		{
			name: "agent_cpu_cores_1000_peers_1hz", benchmark: "agent.Agent/1000peers", ours: []string{"cores"}, theirs: []string{"cores"},
			theirIn: "probe.Load/probing", unit: "cores", baselineName: byDatagrams, target: 0.1,
		},
		{
			name: "ui_draw_500_nodes_ms", benchmark: "ui.Draw/500nodes", ours: []string{"drawn-ms"}, theirs: []string{"drawn-ms"},
			theirIn: "ui.Draw/12nodes", unit: "ms", baselineName: "the same page with 12 nodes", target: 1000,
		},
		{
			name: "agent_cpu_cores_1000_peers_1hz_vs_probing", benchmark: "agent.Agent/1000peers", ours: []string{"cores"}, theirs: []string{"cores"},
			theirIn: "probe.Load/probing", unit: "cores", baselineName: byDatagrams, ofBaseline: 1.0 / 4,
		},
		{
			name: "agent_rss_mib_1000_peers", benchmark: "agent.Agent/1000peers", ours: []string{"rss-MiB"}, theirs: []string{"RSS-MiB"},
			theirIn: "probe.Load/probing", unit: "MiB", baselineName: byDatagrams, target: 40,
		},
		{
			name: "scrape_bytes_1000_peers", benchmark: "agent.Agent/1000peers", ours: []string{"matrix-B"}, theirs: []string{"wire-B"},
			theirIn: "exposition.Encode/text/1000", unit: "B", baselineName: asText, target: 200_000,
		},
		{
			name: "scrape_bytes_1000_peers_gzip", benchmark: "agent.Agent/1000peers", ours: []string{"matrix-gzip-B"}, theirs: []string{"gzip-B"},
			theirIn: "exposition.Encode/text/1000", unit: "B", baselineName: asText, target: 60_000,
		},
		{
			name: "scrape_bytes_1000_peers_metrics", benchmark: "agent.Agent/1000peers", ours: []string{"metrics-B"}, theirs: []string{"metrics-text-B"},
			unit: "B", baselineName: byText, target: 260_000,
		},
		{
			name: "scrape_bytes_1000_peers_metrics_gzip", benchmark: "agent.Agent/1000peers", ours: []string{"metrics-gzip-B"}, theirs: []string{"metrics-text-B"},
			unit: "B", baselineName: byText, target: 70_000,
		},
		{
			name: "probe_cpu_cores_1000_peers_1hz", benchmark: "probe.Load/udp", ours: []string{"cores"}, theirs: []string{"cores"},
			theirIn: "probe.Load/probing", unit: "cores", baselineName: byDatagrams, target: 0.1,
		},
		{
			name: "probe_cpu_cores_1000_peers_1hz_vs_probing", benchmark: "probe.Load/udp", ours: []string{"cores"}, theirs: []string{"cores"},
			theirIn: "probe.Load/probing", unit: "cores", baselineName: byDatagrams, ofBaseline: 1.0 / 4,
		},
		{
			name: "probe_cpu_cores_1000_peers_1hz_icmp", benchmark: "probe.Load/icmp", ours: []string{"cores"}, theirs: []string{"cores"},
			theirIn: "probe.Load/probing", unit: "cores", baselineName: byDatagrams, ofBaseline: 1.0 / 4,
		},
		{
			name: "probe_rss_mib_1000_peers_1hz", benchmark: "probe.Load/udp", ours: []string{"RSS-MiB"}, theirs: []string{"RSS-MiB"},
			theirIn: "probe.Load/probing", unit: "MiB", baselineName: byDatagrams, target: 40,
		},
	}
	for _, size := range []struct {
		peers int
		load  string
	}{{100, "probe.Load/probing-100"}, {1000, "probe.Load/probing"}, {2000, "probe.Load/probing-2000"}} {
		benchmark := fmt.Sprintf("agent.Agent/%dpeers", size.peers)
		beside := func(name, ours, theirs, unit string) contest {
			return contest{
				name: fmt.Sprintf(name, size.peers), benchmark: benchmark, ours: []string{ours}, theirs: []string{theirs},
				theirIn: size.load, unit: unit, baselineName: byDatagrams,
			}
		}
		all = append(all, beside("agent_goroutines_%d_peers", "goroutines", "goroutines", "goroutines"))
		if size.peers == 1000 {
			continue // the rest of it has targets, and is above
		}
		all = append(all, beside("agent_cpu_cores_%d_peers_1hz", "cores", "cores", "cores"), beside("agent_rss_mib_%d_peers", "rss-MiB", "RSS-MiB", "MiB"))
		for _, page := range []struct{ name, path string }{{"scrape_bytes_%d_peers", "matrix"}, {"scrape_bytes_%d_peers_metrics", "metrics"}} {
			all = append(all, contest{
				name: fmt.Sprintf(page.name, size.peers), benchmark: benchmark, ours: []string{page.path + "-B"}, theirs: []string{page.path + "-text-B"},
				unit: "B", baselineName: byText,
			})
		}
	}
	add := func(quantile, circumstances string, c contest, ours []string, target float64) {
		c.benchmark = "probe.Accuracy/" + strings.ReplaceAll(circumstances, "_", "-")
		c.ours, c.theirs = suffixed(ours, quantile), suffixed(probing, quantile)
		c.unit, c.baselineName, c.target = "µs", byProbing, target
		c.needsControlGroups = circumstances == "cpu_limit_50m"
		c.name = fmt.Sprintf("probe_error_%s_us_%s%s", quantile, circumstances, c.name)
		all = append(all, c)
	}
	// The targets are for a busy processor, which is where others fail.
	for _, circumstances := range []string{"idle", "cpu_busy", "garbage", "cpu_limit_50m"} {
		for _, q := range []struct {
			name                   string
			udp, icmp, tcp, factor float64
		}{{"p99", 25, 50, 150, 0}, {"p999", 0, 0, 0, 1.0 / 20}, {"max", 200, 300, 1000, 0}} {
			if circumstances != "cpu_busy" {
				q.udp, q.icmp, q.tcp, q.factor = 0, 0, 0, 0
			}
			add(q.name, circumstances, contest{ofBaseline: q.factor}, udp, q.udp)
			add(q.name, circumstances, contest{name: "_icmp"}, icmp, q.icmp)
			add(q.name, circumstances, contest{name: "_tcp"}, tcp, q.tcp)
		}
	}
	for _, family := range udp {
		add("p99", "cpu_busy", contest{name: "_" + family}, []string{family}, 25)
		add("max", "cpu_busy", contest{name: "_" + family}, []string{family}, 200)
	}
	return append(all, contest{
		name: "probe_error_p99_us_cpu_busy_vs_http", benchmark: "probe.Accuracy/cpu-busy",
		ours: suffixed(udp, "p99"), theirs: suffixed([]string{"http"}, "p99"), unit: "µs", baselineName: byHTTP,
	})
}

// suffixed is the units of a quantile of methods.
func suffixed(methods []string, quantile string) []string {
	units := make([]string, len(methods))
	for i, m := range methods {
		units[i] = m + "-" + quantile + "-µs"
	}
	return units
}

func (r results) addContest(s samples, c contest) error {
	if _, measured := s[c.benchmark]; c.needsControlGroups && !measured {
		return nil
	}
	ours, err := s.medians(c.benchmark, c.ours)
	if err != nil {
		return err
	}
	theirs, err := s.medians(cmp.Or(c.theirIn, c.benchmark), c.theirs)
	if err != nil {
		return err
	}
	m := result{Value: slices.Max(ours), Unit: c.unit, Baseline: slices.Min(theirs), BaselineName: c.baselineName, Better: lower}
	switch {
	case c.ofBaseline != 0:
		m.Target = new(c.ofBaseline * m.Baseline)
	case c.target != 0:
		m.Target = new(c.target)
	}
	return r.add(c.name, m)
}

// medians is the median of each unit.
func (s samples) medians(benchmark string, units []string) ([]float64, error) {
	var all []float64
	for _, unit := range units {
		v, err := s.median(benchmark, unit)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, nil
}

// addBenchmarks adds what the benchmarks found. The error names all that they
// should have and did not.
func (r results) addBenchmarks(s samples) error {
	var err error
	for _, p := range pairs {
		err = errors.Join(err, r.addPair(s, p, lower))
	}
	for _, c := range contests() {
		err = errors.Join(err, r.addContest(s, c))
	}
	return err
}

func (r results) addPair(s samples, p pair, better direction) error {
	ours, err := s.median(p.ours, p.measured)
	if err != nil {
		return err
	}
	theirs, err := s.median(p.theirs, p.measured)
	if err != nil {
		return err
	}
	return r.add(p.name, result{
		Value: p.scale * ours, Unit: p.unit, Baseline: p.scale * theirs, BaselineName: p.baselineName,
		Target: p.target, Better: better,
	})
}
