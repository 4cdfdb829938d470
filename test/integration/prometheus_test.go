package integration

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/netlatency/netlatency/apis/config"
	"github.com/netlatency/netlatency/apis/config/scheme"
	configv1 "github.com/netlatency/netlatency/apis/config/v1"
	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/source"
	"github.com/netlatency/netlatency/test/sandbox"
	"github.com/netlatency/netlatency/test/sandbox/cluster"
)

const (
	rulesFile  = "../../manifests/chart/netlatency/files/rules.yaml"
	alertsFile = "../../manifests/chart/netlatency/files/alerts.yaml"
)

// What the rules make of series that are written down, by Prometheus' own
// tool: losses, restarts, new pairs and dead ones, and what fires when.
func TestRules(t *testing.T) {
	promtool := filepath.Join(os.Getenv(variableBinDir), cluster.Promtool.Name)
	large := filepath.Join(t.TempDir(), "large_test.yaml")
	if err := os.WriteFile(large, rulesInALargeCluster(t), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"check", "rules", "--lint=all", "--lint-fatal", rulesFile, alertsFile},
		{"test", "rules", "--diff", "testdata/rules_test.yaml", "testdata/alerts_test.yaml", large},
	} {
		if out, err := exec.CommandContext(t.Context(), promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// rulesInALargeCluster is a test for promtool of 129 nodes, of which nobody
// says where targets run: nothing of pairs is recorded.
func rulesInALargeCluster(t *testing.T) []byte {
	t.Helper()
	rules, err := filepath.Abs(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	series := []map[string]any{{"series": `netlatency_target_node_info{node="n7",instance="s1"}`, "values": "_x60 1x20"}}
	for i := range 129 {
		series = append(series, map[string]any{"series": fmt.Sprintf(`netlatency_probes_sent_total{node="n",peer="n%d",method="udp"}`, i), "values": "0+24x80"})
	}
	expect := func(at string, samples ...any) map[string]any {
		return map[string]any{"expr": "count(netlatency:probes_sent:increase30m)", "eval_time": at, "exp_samples": samples}
	}
	data, err := yaml.Marshal(map[string]any{
		"rule_files": []string{rules}, "evaluation_interval": "1m",
		"tests": []any{map[string]any{
			"interval": "1m", "input_series": series,
			"promql_expr_test": []any{expect("50m"), expect("70m", map[string]any{"labels": "{}", "value": 1})},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// The tolerances between the medians of the agents' windows and of what a
// Prometheus records of their histograms. Both look at some 20 s, but not at
// the same, and the buckets are of factor 1.1.
const (
	anyPairShare, anyPairFloor     = 0.25, 250 * time.Microsecond
	halfPairsShare, halfPairsFloor = 0.04, 25 * time.Microsecond
	// agreementSamples are nearly as many as the agents' windows hold in the
	// sandbox: 20 s of 4 probes every 2 s.
	agreementSamples = 32
	// agreementSpan is how far what is published may be behind the agents: a
	// scrape, an evaluation and a read a second each, and one for this machine.
	agreementSpan = 4 * time.Second
)

// clipSlack is what a clip that is known by the median of a window a little
// later may change of a mean.
func clipSlack(mean time.Duration) time.Duration { return mean / 50 }

// within is whether two latencies are no more apart than a share of the first
// or floor.
func within(a, b time.Duration, share float64, floor time.Duration) bool {
	return (a - b).Abs() <= max(floor, time.Duration(share*float64(a)))
}

func prometheusKnowsWhatAgentsKnow(ctx context.Context, t *testing.T, s *sandbox.Sandbox) {
	t.Helper()
	samples := listen(ctx, t, s)
	foreign := startGoldpinger(t, s)
	began := time.Now()
	url := startPrometheus(ctx, t, s, foreign)
	// Prometheus takes over its targets every five seconds.
	scraped := span{began, time.Now().Add(5*time.Second + agreementSpan)} // for the first time

	var fromPrometheus, fromAgents *latency.Matrix
	// Only what leads to targets is recorded.
	targets := targetNodes(ctx, t, s)
	pairs, all := len(targets)*(len(s.Nodes)-1), len(s.Nodes)*(len(s.Nodes)-1)
	read := readPrometheus(ctx, t, url, configv1.PrometheusSource{}, s.NodeNames())
	agents := readAgents(ctx, t, s)
	waitFor(ctx, t, "the matrix from Prometheus to have a window of every pair", func() (bool, error) {
		fromPrometheus, fromAgents = read(), agents()
		enough := 0
		for _, d := range fromPrometheus.All() {
			if d.Samples >= agreementSamples {
				enough++
			}
		}
		// The agents' windows must lie within the time that samples are heard.
		heard := time.Since(began) > s.Scenario.Probe.Window.Duration+2*agreementSpan
		return heard && enough == pairs && fromAgents.Pairs() == all, fmt.Errorf("%d of %d pairs have", enough, pairs)
	})
	t.Logf("%d pairs after %.0f s", pairs, time.Since(began).Seconds())

	// What was published when the other source was read is older than it.
	until := func(m *latency.Matrix) span { return span{m.Taken().Add(-agreementSpan), m.Taken()} }
	window := func(m *latency.Matrix) span {
		begin := m.Taken().Add(-s.Scenario.Probe.Window.Duration)
		return span{begin.Add(-agreementSpan), begin.Add(agreementSpan)}
	}
	near := 0 // pairs whose medians agree
	for pair, ours := range fromAgents.All() {
		theirs, ok := fromPrometheus.Measured(pair.Node, pair.Peer)
		if wanted := slices.Contains(targets, pair.Peer); ok != wanted {
			t.Errorf("%v is in the matrix from Prometheus: %v, want %v", pair, ok, wanted)
		}
		if !ok {
			continue
		}
		clip := latency.ClipFactor * ours.P50
		if low, high, ok := samples.Means(pair, window(fromAgents), until(fromAgents), clip); !ok || ours.Mean < low-clipSlack(low) || ours.Mean > high+clipSlack(high) {
			t.Errorf("the mean of %v is %v by the agent, and %v to %v by its samples", pair, ours.Mean, low, high)
		}
		if low, high, ok := samples.Means(pair, scraped, until(fromPrometheus), latency.MaxRTT); !ok || theirs.Mean < low-time.Microsecond || theirs.Mean > high+time.Microsecond {
			t.Errorf("the mean of %v is %v by Prometheus, and %v to %v by the agent's samples", pair, theirs.Mean, low, high)
		}
		if within(ours.P50, theirs.P50, halfPairsShare, halfPairsFloor) {
			near++
		}
		if !within(ours.P50, theirs.P50, anyPairShare, anyPairFloor) {
			t.Errorf("the median of %v is %v by the agent and %v by Prometheus", pair, ours.P50, theirs.P50)
		}
		if age := time.Since(theirs.Newest); age > 15*time.Second {
			t.Errorf("%v is %v old by Prometheus: it is probed every 2 s and scraped every second", pair, age)
		}
	}
	t.Logf("the medians of %d of %d pairs agree within %.0f %% or %v", near, pairs, 100*halfPairsShare, halfPairsFloor)
	if near < pairs/2 {
		t.Errorf("the medians of only %d of %d pairs agree", near, pairs)
	}

	// Only what is asked for is answered.
	one := targets[0]
	few := readPrometheus(ctx, t, url, configv1.PrometheusSource{}, []string{one})()
	for pair := range few.All() {
		if pair.Peer != one {
			t.Errorf("asked for the way to %s, Prometheus told of %v", one, pair)
		}
	}
	if few.Pairs() != len(s.Nodes)-1 {
		t.Errorf("%d pairs lead to %s, want one from every other node", few.Pairs(), one)
	}

	// Another prober's metrics serve too, by the documented queries.
	others := readPrometheus(ctx, t, url, goldpingerExample(t), s.NodeNames())()
	if others.Pairs() != all {
		t.Errorf("the documented queries of goldpinger found %d of %d pairs", others.Pairs(), all)
	}
	for pair, d := range others.All() {
		if want := foreign.mean(pair.Node, pair.Peer); (d.Mean - want).Abs() > time.Microsecond {
			t.Errorf("%v takes %v by goldpinger, want %v", pair, d.Mean, want)
		}
	}

	t.Run("what dashboard, rules and alerts ask is answered", func(t *testing.T) { whatIsAskedIsAnswered(ctx, t, s, url) })
}

// startPrometheus starts a server that scrapes the agents, the schedulers and
// goldpinger each second and evaluates the rules as often.
func startPrometheus(ctx context.Context, t *testing.T, s *sandbox.Sandbox, foreign *goldpinger) string {
	t.Helper()
	files := make(map[string][]byte)
	for _, name := range []string{rulesFile, alertsFile} {
		rules, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		files[filepath.Base(name)] = regexp.MustCompile(`(?m)^  interval: .*$`).ReplaceAll(rules, []byte("  interval: 1s"))
	}
	// The jobs and labels of the chart's monitors.
	var agents []any
	for _, node := range s.Nodes {
		agents = append(agents, map[string]any{
			"targets": []string{net.JoinHostPort(node.WAN.String(), "9465")}, "labels": map[string]string{"node": node.Name, "namespace": sandbox.Namespace},
		})
	}
	pods, err := s.SchedulerPods(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var schedulers []any
	for _, pod := range pods {
		schedulers = append(schedulers, map[string]any{
			"targets": []string{net.JoinHostPort(pod.Status.PodIP, "10259")}, "labels": map[string]string{"pod": pod.Name, "namespace": sandbox.Namespace},
		})
	}
	configuration, err := yaml.Marshal(map[string]any{
		"global":     map[string]any{"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
		"rule_files": []string{"rules.yaml", "alerts.yaml"},
		"scrape_configs": []any{
			map[string]any{"job_name": "netlatency-agent", "honor_labels": true, "scrape_native_histograms": true, "static_configs": agents},
			map[string]any{
				"job_name": "netlatency-scheduler", "honor_labels": true, "static_configs": schedulers, "scheme": "https",
				"tls_config":    map[string]any{"insecure_skip_verify": true}, // they sign their certificates themselves
				"authorization": map[string]any{"credentials": s.Cluster.Config().BearerToken},
			},
			map[string]any{
				"job_name": "goldpinger", "honor_labels": true,
				"static_configs": []any{map[string]any{"targets": []string{foreign.address}}},
			},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	url, err := s.Cluster.StartPrometheus(ctx, configuration, files)
	if err != nil {
		t.Fatal(err)
	}
	return url
}

// readPrometheus gives a function that reads the next matrix from a source
// with the arguments' defaults.
func readPrometheus(ctx context.Context, t *testing.T, url string, versioned configv1.PrometheusSource, peers []string) func() *latency.Matrix {
	t.Helper()
	versioned.Address = url
	all := &configv1.NetLatencyArgs{Source: configv1.Source{Prometheus: &versioned}}
	scheme.Scheme.Default(all)
	args := &config.NetLatencyArgs{}
	if err := scheme.Scheme.Convert(all, args, nil); err != nil {
		t.Fatal(err)
	}
	p := args.Source.Prometheus
	return published(ctx, t, func(publish func(*latency.Matrix)) (interface{ Run(context.Context) }, error) {
		return source.NewPrometheus(source.PrometheusOptions{
			Address: p.Address, Interval: time.Second, Timeout: time.Second, MaxBytes: p.MaxBytes,
			Queries: source.PrometheusQueries(p.Queries), NodeLabel: p.NodeLabel, PeerLabel: p.PeerLabel, Scale: p.Scale,
			Peers: func() []string { return peers }, StaleAfter: time.Minute, Publish: publish,
		})
	})
}

func readAgents(ctx context.Context, t *testing.T, s *sandbox.Sandbox) func() *latency.Matrix {
	t.Helper()
	return published(ctx, t, func(publish func(*latency.Matrix)) (interface{ Run(context.Context) }, error) {
		return source.NewAgents(source.AgentsOptions{
			Client: s.Cluster.Client(), Namespace: sandbox.Namespace, Service: "netlatency-agent", Port: "http",
			Interval: time.Second, Timeout: time.Second, StaleAfter: time.Minute, Publish: publish,
		})
	})
}

// published runs a source and gives a function that waits for its next matrix.
func published(ctx context.Context, t *testing.T, open func(func(*latency.Matrix)) (interface{ Run(context.Context) }, error)) func() *latency.Matrix {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	matrices := make(chan *latency.Matrix)
	s, err := open(func(m *latency.Matrix) {
		select {
		case matrices <- m:
		case <-ctx.Done():
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return func() *latency.Matrix {
		select {
		case m := <-matrices:
			return m
		case <-time.After(time.Minute):
			t.Fatal("a source published nothing for a minute")
			return nil
		}
	}
}

// goldpinger shows what goldpinger's pods and kube-state-metrics together
// would: requests between all nodes, ten a second, whose times are made up.
type goldpinger struct {
	address string
	nodes   []string
	ips     map[string]string
	began   time.Time
}

func startGoldpinger(t *testing.T, s *sandbox.Sandbox) *goldpinger {
	t.Helper()
	g := &goldpinger{nodes: s.NodeNames(), ips: make(map[string]string), began: time.Now()}
	for _, node := range s.Nodes {
		g.ips[node.Name] = node.WAN.String()
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g.address = listener.Addr().String()
	server := &http.Server{Handler: g, ReadHeaderTimeout: time.Second}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	return g
}

// mean is a different one for every pair.
func (g *goldpinger) mean(node, peer string) time.Duration {
	var at [2]int
	for i, name := range g.nodes {
		if name == node {
			at[0] = i
		}
		if name == peer {
			at[1] = i
		}
	}
	return time.Duration(1000+100*at[0]+at[1]) * time.Microsecond
}

func (g *goldpinger) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	count := 1 + int(10*time.Since(g.began).Seconds())
	var page bytes.Buffer
	fmt.Fprintln(&page, "# TYPE kube_node_info gauge")
	for _, node := range g.nodes {
		fmt.Fprintf(&page, "kube_node_info{node=%q,internal_ip=%q,kernel_version=\"6.1\"} 1\n", node, g.ips[node])
	}
	// All agents are there. Of two pods that wait one has a scheduler.
	for _, name := range []string{"desired_number_scheduled", "number_ready"} {
		fmt.Fprintf(&page, "# TYPE kube_daemonset_status_%s gauge\nkube_daemonset_status_%s{namespace=%q,daemonset=\"netlatency-agent\"} %d\n", name, name, sandbox.Namespace, len(g.nodes))
	}
	for _, scheduler := range []string{sandbox.SchedulerName, "netlatency-gone"} {
		labels := fmt.Sprintf("namespace=\"ray\",pod=\"of-%s\",uid=\"of-%s\"", scheduler, scheduler)
		fmt.Fprintf(&page, "kube_pod_scheduler{%s,name=%q} 1\nkube_pod_info{%s,node=\"\"} 1\nkube_pod_status_phase{%s,phase=\"Pending\"} 1\n", labels, scheduler, labels, labels)
	}
	fmt.Fprintln(&page, "# TYPE goldpinger_peers_response_time_s histogram")
	for _, node := range g.nodes {
		for _, peer := range g.nodes {
			if peer == node {
				continue
			}
			labels := fmt.Sprintf("goldpinger_instance=%q,call_type=\"ping\",host_ip=%q,pod_ip=\"10.0.0.1\"", node, g.ips[peer])
			fmt.Fprintf(&page, "goldpinger_peers_response_time_s_bucket{%s,le=\"0.005\"} %d\n", labels, count)
			fmt.Fprintf(&page, "goldpinger_peers_response_time_s_bucket{%s,le=\"+Inf\"} %d\n", labels, count)
			fmt.Fprintf(&page, "goldpinger_peers_response_time_s_sum{%s} %v\n", labels, float64(count)*g.mean(node, peer).Seconds())
			fmt.Fprintf(&page, "goldpinger_peers_response_time_s_count{%s} %d\n", labels, count)
		}
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	_, _ = page.WriteTo(w)
}

// goldpingerExample is the source that docs/configuration.md shows.
func goldpingerExample(t *testing.T) configv1.PrometheusSource {
	t.Helper()
	data, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range regexp.MustCompile("(?s)\n```yaml\n(.*?)\n```\n").FindAllStringSubmatch(string(data), -1) {
		if !strings.Contains(block[1], "nodeLabel: goldpinger_instance") {
			continue
		}
		var values struct {
			Scheduler struct {
				Args struct {
					Source configv1.Source `json:"source"`
				} `json:"args"`
			} `json:"scheduler"`
		}
		if err := yaml.UnmarshalStrict([]byte(block[1]), &values); err != nil {
			t.Fatal(err)
		}
		return *values.Scheduler.Args.Source.Prometheus
	}
	t.Fatal("the documentation has no example with goldpinger")
	return configv1.PrometheusSource{}
}
