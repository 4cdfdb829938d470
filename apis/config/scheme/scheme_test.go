package scheme_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	schedulerconfig "k8s.io/kubernetes/pkg/scheduler/apis/config"
	schedulerscheme "k8s.io/kubernetes/pkg/scheduler/apis/config/scheme"

	"github.com/netlatency/netlatency/apis/config"
	"github.com/netlatency/netlatency/apis/config/scheme"
	configv1 "github.com/netlatency/netlatency/apis/config/v1"
	"github.com/netlatency/netlatency/apis/config/validation"
)

// decode reads a scheduler configuration file exactly as kube-scheduler's
// --config does.
func decode(data string) (*schedulerconfig.KubeSchedulerConfiguration, error) {
	object, _, err := schedulerscheme.Codecs.UniversalDecoder().Decode([]byte(data), nil, nil)
	if err != nil {
		return nil, err
	}
	return object.(*schedulerconfig.KubeSchedulerConfiguration), nil
}

// argsOf is the arguments of NetLatency in the first profile.
func argsOf(t *testing.T, cfg *schedulerconfig.KubeSchedulerConfiguration) runtime.Object {
	t.Helper()
	for _, pluginConfig := range cfg.Profiles[0].PluginConfig {
		if pluginConfig.Name == "NetLatency" {
			return pluginConfig.Args
		}
	}
	t.Fatal("the profile has no arguments for NetLatency")
	return nil
}

func seconds(s float64) metav1.Duration {
	return metav1.Duration{Duration: time.Duration(s * float64(time.Second))}
}

func defaults() *config.NetLatencyArgs {
	return &config.NetLatencyArgs{
		Source: config.Source{Agents: &config.AgentsSource{
			Namespace: "netlatency",
			Service:   "netlatency-agent",
			Port:      "http",
			Interval:  seconds(10),
			Timeout:   seconds(3),
		}},
		TargetSlices:   config.TargetSlices{Namespace: "netlatency", Service: "netlatency-targets"},
		StaleAfter:     seconds(120),
		Statistic:      config.Statistic{TailWeight: 0.1, LossPenalty: seconds(0.2)},
		Hysteresis:     config.Hysteresis{Ratio: 0.05, Floor: seconds(0.00005)},
		Band:           config.Band{Ratio: 0.1, Floor: seconds(0.0001)},
		ProviderLabels: []string{"netlatency.io/provider", "claudie.io/provider"},
	}
}

const header = `
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
profiles:
- schedulerName: netlatency-scheduler
  plugins:
    multiPoint:
      enabled:
      - name: NetLatency
        weight: 5
`

const fullArgs = `
  pluginConfig:
  - name: NetLatency
    args:
      apiVersion: kubescheduler.config.k8s.io/v1
      kind: NetLatencyArgs
      source:
        agents:
          namespace: monitoring
          service: probes
          port: web
          interval: 5s
          timeout: 900ms
      targetSlices:
        namespace: ""
        service: near-to
      window: 2m
      staleAfter: 1m30s
      statistic:
        tailWeight: 0
        lossPenalty: 0s
      hysteresis:
        ratio: 0.2
        floor: 250us
      band:
        ratio: 0.05
        floor: 1ms
      providerLabels: []
      targets:
      - name: qdrant
        weight: 4
        aggregation: Worst
        quantile: 0.99
        pods:
          labelSelector:
            matchLabels:
              app.kubernetes.io/name: qdrant
          namespaces: [search]
          namespaceSelector:
            matchLabels: {search: "true"}
          matchLabelKeys: [ray.io/cluster]
        maxRTT: 3ms
        whenUnknown: Reject
      - name: gpu
        maxRTT: 5ms
        nodes:
          resource: nvidia.com/gpu
          labelSelector:
            matchExpressions:
            - {key: nvidia.com/gpu.present, operator: Exists}
      - name: redis
        aggregation: Nearest
        service:
          namespace: ray
          name: redis
      rules:
      - podSelector:
          matchLabels:
            ray.io/node-type: head
        targets: [redis]
      - namespaces: [ray, ray-staging]
        targets: [qdrant, gpu]
      annotatePlacement: true
`

func full() *config.NetLatencyArgs {
	return &config.NetLatencyArgs{
		Source: config.Source{Agents: &config.AgentsSource{
			Namespace: "monitoring",
			Service:   "probes",
			Port:      "web",
			Interval:  seconds(5),
			Timeout:   seconds(0.9),
		}},
		TargetSlices:   config.TargetSlices{Service: "near-to"},
		Window:         seconds(120),
		StaleAfter:     seconds(90),
		Hysteresis:     config.Hysteresis{Ratio: 0.2, Floor: seconds(0.00025)},
		Band:           config.Band{Ratio: 0.05, Floor: seconds(0.001)},
		ProviderLabels: []string{},
		Targets: []config.Target{{
			Name:        "qdrant",
			Weight:      4,
			Aggregation: config.AggregationWorst,
			Quantile:    new(0.99),
			Pods: &config.PodsTarget{
				LabelSelector:     &metav1.LabelSelector{MatchLabels: map[string]string{"app.kubernetes.io/name": "qdrant"}},
				Namespaces:        []string{"search"},
				NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"search": "true"}},
				MatchLabelKeys:    []string{"ray.io/cluster"},
			},
			MaxRTT:      new(seconds(0.003)),
			WhenUnknown: config.UnknownReject,
		}, {
			Name:        "gpu",
			Weight:      1,
			Aggregation: config.AggregationMean,
			MaxRTT:      new(seconds(0.005)),
			WhenUnknown: config.UnknownAllow,
			Nodes: &config.NodesTarget{
				LabelSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
					{Key: "nvidia.com/gpu.present", Operator: metav1.LabelSelectorOpExists},
				}},
				Resource: "nvidia.com/gpu",
			},
		}, {
			Name:        "redis",
			Weight:      1,
			Aggregation: config.AggregationNearest,
			Service:     &config.ServiceTarget{Namespace: "ray", Name: "redis"},
		}},
		Rules: []config.Rule{{
			PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"ray.io/node-type": "head"}},
			Targets:     []string{"redis"},
		}, {
			Namespaces: []string{"ray", "ray-staging"},
			Targets:    []string{"qdrant", "gpu"},
		}},
		AnnotatePlacement: true,
	}
}

func defaultPrometheus(address string) *config.PrometheusSource {
	return &config.PrometheusSource{
		Address: address, Interval: seconds(15), Timeout: seconds(10), MaxBytes: 32 << 20, NodeLabel: "node", PeerLabel: "peer", Scale: 1,
		Queries: config.PrometheusQueries{
			Mean:      `netlatency:rtt_seconds:mean5m{peer=~"$peers"}`,
			P50:       `netlatency:rtt_seconds:p50_5m{peer=~"$peers"}`,
			P90:       `netlatency:rtt_seconds:p90_5m{peer=~"$peers"}`,
			P99:       `netlatency:rtt_seconds:p99_5m{peer=~"$peers"}`,
			Samples:   `netlatency:rtt_samples:count5m{peer=~"$peers"}`,
			Sent:      `netlatency:probes_sent:increase30m{peer=~"$peers"}`,
			Loss:      `netlatency:probes_lost:ratio30m{peer=~"$peers"}`,
			Timestamp: `max_over_time(netlatency:rtt_newest_timestamp_seconds:max{peer=~"$peers"}[10m])`,
		},
	}
}

const foreignYAML = `source:
        prometheus:
          address: https://mimir.example/prometheus
          headers: {X-Scope-OrgID: search}
          bearerTokenFile: /var/run/secrets/mimir/token
          tls: {caFile: /tls/ca.crt, certFile: /tls/tls.crt, keyFile: /tls/tls.key, serverName: mimir}
          interval: 5s
          timeout: 2s
          maxBytes: 1048576
          queries: {p50: ping_rtt_median_ms, timestamp: timestamp(ping_rtt_median_ms)}
          nodeLabel: source_node
          peerLabel: target_node
          scale: 0.001`

func foreignPrometheus() *config.PrometheusSource {
	return &config.PrometheusSource{
		Address:         "https://mimir.example/prometheus",
		Headers:         map[string]string{"X-Scope-OrgID": "search"},
		BearerTokenFile: "/var/run/secrets/mimir/token",
		TLS:             config.ClientTLS{CAFile: "/tls/ca.crt", CertFile: "/tls/tls.crt", KeyFile: "/tls/tls.key", ServerName: "mimir"},
		Interval:        seconds(5), Timeout: seconds(2), MaxBytes: 1 << 20,
		Queries:   config.PrometheusQueries{P50: "ping_rtt_median_ms", Timestamp: "timestamp(ping_rtt_median_ms)"},
		NodeLabel: "source_node", PeerLabel: "target_node", Scale: 0.001,
	}
}

func TestArgumentsInASchedulerConfiguration(t *testing.T) {
	withArgs := func(lines ...string) string {
		return header + "  pluginConfig:\n  - name: NetLatency\n    args:\n      " + strings.Join(lines, "\n      ") + "\n"
	}
	withTargets := defaults()
	withTargets.Targets = []config.Target{{
		Name: "gpu", Weight: 1, Aggregation: config.AggregationMean, Nodes: &config.NodesTarget{Resource: "nvidia.com/gpu"},
	}}

	fromPrometheus := defaults()
	fromPrometheus.TargetSlices.Namespace = ""
	fromPrometheus.Source = config.Source{Prometheus: defaultPrometheus("http://prometheus:9090")}
	fromForeign := defaults()
	fromForeign.TargetSlices.Namespace = "probes"
	fromForeign.Source = config.Source{Prometheus: foreignPrometheus()}
	fromFile := defaults()
	fromFile.TargetSlices.Namespace = ""
	fromFile.Source = config.Source{File: &config.FileSource{Path: "/matrix.jsonl", Interval: seconds(10)}}
	fromOldFile := defaults()
	fromOldFile.TargetSlices.Namespace = ""
	fromOldFile.Source = config.Source{File: &config.FileSource{Path: "/matrix.jsonl.gz", Interval: seconds(60), Ageing: true}}

	for _, c := range []struct {
		name string
		yaml string
		want *config.NetLatencyArgs
	}{
		{"a Prometheus is asked for what our rules record", withArgs("source: {prometheus: {address: http://prometheus:9090}}"), fromPrometheus},
		{"everything about a Prometheus", withArgs(foreignYAML, "targetSlices: {namespace: probes}"), fromForeign},
		{"a file", withArgs("source: {file: {path: /matrix.jsonl}}"), fromFile},
		{"everything about a file", withArgs("source: {file: {path: /matrix.jsonl.gz, interval: 1m, ageing: true}}"), fromOldFile},
		{"a profile without pluginConfig has the defaults", header, defaults()},
		{"empty args have the defaults", withArgs("kind: NetLatencyArgs", "apiVersion: kubescheduler.config.k8s.io/v1"), defaults()},
		{"apiVersion and kind may be left out", withArgs("targets: [{name: gpu, nodes: {resource: nvidia.com/gpu}}]"), withTargets},
		{"what is written overrides every default, zeros and empty lists too", header + fullArgs, full()},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, err := decode(c.yaml)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(runtime.Object(c.want), argsOf(t, cfg)); diff != "" {
				t.Errorf("arguments (-want +got):\n%s", diff)
			}
			if faults := validation.ValidateNetLatencyArgs(nil, c.want); len(faults) > 0 {
				t.Errorf("the arguments are not valid: %v", faults.ToAggregate())
			}
		})
	}
}

func TestMistakesInArgumentsAreNamed(t *testing.T) {
	for _, c := range []struct {
		name, args, want string
	}{
		{"an unknown field", "stalAfter: 2m", `unknown field "stalAfter"`},
		{"an unknown field deep inside", "targets: [{name: a, pods: {selector: {}}}]", `unknown field "targets[0].pods.selector"`},
		{"a field given twice", "window: 1m, window: 2m", `key "window" already set`},
		{"a duration without unit", "window: 120", "cannot unmarshal number into Go struct field NetLatencyArgs.window of type string"},
		{"a duration that is none", "window: soon", `time: invalid duration "soon"`},
		{"another plugin's kind", "kind: NodeAffinityArgs, apiVersion: kubescheduler.config.k8s.io/v1", "args for plugin NetLatency were not of type NetLatencyArgs.kubescheduler.config.k8s.io, got NodeAffinityArgs.kubescheduler.config.k8s.io"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := decode(header + "  pluginConfig:\n  - name: NetLatency\n    args: {" + c.args + "}\n")
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got error %v, want one with %s", err, c.want)
			}
		})
	}
}

func TestArgumentsSurviveEncoding(t *testing.T) {
	prometheus, foreign, file := defaults(), defaults(), defaults()
	prometheus.Source = config.Source{Prometheus: defaultPrometheus("http://prometheus")}
	foreign.Source = config.Source{Prometheus: foreignPrometheus()}
	file.Source = config.Source{File: &config.FileSource{Path: "/matrix.jsonl", Interval: seconds(1), Ageing: true}}
	for _, args := range []*config.NetLatencyArgs{defaults(), full(), prometheus, foreign, file} {
		roundTrip(t, args)
	}
}

// roundTrip writes args as a user would and reads them back.
func roundTrip(t *testing.T, args *config.NetLatencyArgs) {
	t.Helper()
	info, _ := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), runtime.ContentTypeYAML)
	data, err := runtime.Encode(scheme.Codecs.EncoderForVersion(info.Serializer, configv1.SchemeGroupVersion), args)
	if err != nil {
		t.Fatalf("encode arguments: %v", err)
	}
	again, err := runtime.Decode(scheme.Codecs.UniversalDecoder(), data)
	if err != nil {
		t.Fatalf("decode the arguments that were encoded as\n%s: %v", data, err)
	}
	if diff := cmp.Diff(runtime.Object(args), again, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("arguments changed on the way through\n%s(-before +after):\n%s", data, diff)
	}
}

// Whatever stands in the file, decoding ends with an error or with arguments
// that can be validated and written down again.
func FuzzDecodeNetLatencyArgs(f *testing.F) {
	start := "apiVersion: kubescheduler.config.k8s.io/v1\nkind: NetLatencyArgs\n"
	f.Add(start)
	f.Add(start + "source: {agents: null}\nproviderLabels: null\ntargets: [{}, null]\nrules: [{podSelector: {}}, null]\n")
	f.Add(start + strings.ReplaceAll(foreignYAML, "\n      ", "\n") + "\n")
	f.Add(start + "source: {prometheus: {queries: {p50: x}}, file: {}}\n")
	f.Add(start + "statistic: {tailWeight: -1e308}\nhysteresis: {ratio: 1e-320}\nwindow: -2562047h47m16.854775808s\n")
	f.Add(start + "targets: [{name: a, quantile: 0.5, pods: {labelSelector: {matchExpressions: [{key: x, operator: In, values: []}]}}}]\n")
	for _, line := range strings.Split(fullArgs, "    args:\n")[1:] {
		f.Add(strings.ReplaceAll("\n"+line, "\n      ", "\n"))
	}
	f.Fuzz(func(t *testing.T, data string) {
		object, err := runtime.Decode(scheme.Codecs.UniversalDecoder(), []byte(data))
		if err != nil {
			return
		}
		args, ok := object.(*config.NetLatencyArgs)
		if !ok {
			return
		}
		for _, fault := range validation.ValidateNetLatencyArgs(nil, args) {
			if fault.Field == "" || fault.Error() == "" {
				t.Errorf("a fault without place or wording: %#v", fault)
			}
		}
		roundTrip(t, args)
	})
}
