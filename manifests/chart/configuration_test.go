package chart_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	schedulerconfig "k8s.io/kubernetes/pkg/scheduler/apis/config"
	schedulerscheme "k8s.io/kubernetes/pkg/scheduler/apis/config/scheme"
	schedulervalidation "k8s.io/kubernetes/pkg/scheduler/apis/config/validation"

	"github.com/netlatency/netlatency/apis/config"
	_ "github.com/netlatency/netlatency/apis/config/scheme"
	"github.com/netlatency/netlatency/apis/config/validation"
)

// configuration is what the scheduler reads from the chart's ConfigMap, valid
// by its own rules and ours.
func configuration(t *testing.T, values string) *schedulerconfig.KubeSchedulerConfiguration {
	t.Helper()
	var data string
	for _, object := range render(t, values) {
		if configMap, ok := object.(*corev1.ConfigMap); ok {
			data = configMap.Data["scheduler-config.yaml"]
		}
	}
	object, _, err := schedulerscheme.Codecs.UniversalDecoder().Decode([]byte(data), nil, nil)
	if err != nil {
		t.Fatalf("%v in\n%s", err, data)
	}
	cfg := object.(*schedulerconfig.KubeSchedulerConfiguration)
	cfg.APIVersion = "kubescheduler.config.k8s.io/v1" // as kube-scheduler's options do
	if err := schedulervalidation.ValidateKubeSchedulerConfiguration(cfg); err != nil {
		t.Fatalf("%v in\n%s", err, data)
	}
	for _, profile := range cfg.Profiles {
		args := argsOf[*config.NetLatencyArgs](t, profile, "NetLatency")
		if faults := validation.ValidateNetLatencyArgs(nil, args); len(faults) > 0 {
			t.Fatalf("%v in\n%s", faults.ToAggregate(), data)
		}
	}
	return cfg
}

func argsOf[T runtime.Object](t *testing.T, profile schedulerconfig.KubeSchedulerProfile, plugin string) T {
	t.Helper()
	i := slices.IndexFunc(profile.PluginConfig, func(c schedulerconfig.PluginConfig) bool { return c.Name == plugin })
	if i < 0 {
		t.Fatalf("profile %s has no arguments for %s", profile.SchedulerName, plugin)
	}
	return profile.PluginConfig[i].Args.(T)
}

func TestSchedulerConfiguration(t *testing.T) {
	cfg := configuration(t, "")
	election := cfg.LeaderElection
	if !election.LeaderElect || election.ResourceLock != "leases" || election.ResourceName != "netlatency-scheduler" || election.ResourceNamespace != "netlatency" {
		t.Errorf("leader election %+v", election)
	}
	if cfg.ClientConnection.QPS != 200 || cfg.ClientConnection.Burst != 400 {
		t.Errorf("client connection %+v: the default binds 50 pods a second", cfg.ClientConnection)
	}
	if cfg.DelayCacheUntilActive {
		t.Error("a standby replica would know nothing when it takes over")
	}
	if got := *cfg.PercentageOfNodesToScore; got != 100 {
		t.Errorf("scores %d%% of the nodes, the near ones may be among the others", got)
	}
}

func TestProfiles(t *testing.T) {
	cfg := configuration(t, "")
	type facts struct {
		Weight            int32
		Scoring           schedulerconfig.ScoringStrategyType
		Spread            schedulerconfig.PodTopologySpreadConstraintsDefaulting
		SpreadConstraints int
		IgnorePreferred   bool
		InTreePluginsStay bool
	}
	got := map[string]facts{}
	for _, profile := range cfg.Profiles {
		enabled := profile.Plugins.MultiPoint.Enabled
		plugin := slices.IndexFunc(enabled, func(p schedulerconfig.Plugin) bool { return p.Name == "NetLatency" })
		if plugin < 0 {
			t.Fatalf("profile %s does not enable NetLatency", profile.SchedulerName)
		}
		fit := argsOf[*schedulerconfig.NodeResourcesFitArgs](t, profile, "NodeResourcesFit")
		spread := argsOf[*schedulerconfig.PodTopologySpreadArgs](t, profile, "PodTopologySpread")
		affinity := argsOf[*schedulerconfig.InterPodAffinityArgs](t, profile, "InterPodAffinity")
		got[profile.SchedulerName] = facts{
			Weight:            enabled[plugin].Weight,
			Scoring:           fit.ScoringStrategy.Type,
			Spread:            spread.DefaultingType,
			SpreadConstraints: len(spread.DefaultConstraints),
			IgnorePreferred:   affinity.IgnorePreferredTermsOfExistingPods,
			InTreePluginsStay: slices.ContainsFunc(enabled, func(p schedulerconfig.Plugin) bool { return p.Name == "NodeResourcesFit" }),
		}
	}
	want := map[string]facts{
		"netlatency-scheduler":      {25, schedulerconfig.LeastAllocated, schedulerconfig.ListDefaulting, 0, true, true},
		"netlatency-scheduler-pack": {100, schedulerconfig.MostAllocated, schedulerconfig.ListDefaulting, 0, true, true},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("profiles (-want +got):\n%s", diff)
	}
}

func TestPluginArguments(t *testing.T) {
	duration := func(d time.Duration) metav1.Duration { return metav1.Duration{Duration: d} }
	plain := func() *config.NetLatencyArgs {
		return &config.NetLatencyArgs{
			Source: config.Source{Agents: &config.AgentsSource{
				Namespace: "netlatency", Service: "netlatency-agent", Port: "http",
				Interval: duration(10 * time.Second), Timeout: duration(3 * time.Second),
			}},
			TargetSlices:   config.TargetSlices{Namespace: "netlatency", Service: "netlatency-targets"},
			StaleAfter:     duration(2 * time.Minute),
			Statistic:      config.Statistic{TailWeight: 0.1, LossPenalty: duration(200 * time.Millisecond)},
			Hysteresis:     config.Hysteresis{Ratio: 0.05, Floor: duration(50 * time.Microsecond)},
			Band:           config.Band{Ratio: 0.1, Floor: duration(100 * time.Microsecond)},
			ProviderLabels: []string{"netlatency.io/provider", "claudie.io/provider"},
			Targets: []config.Target{{
				Name: "qdrant", Weight: 1, Aggregation: config.AggregationMean,
				Pods: &config.PodsTarget{LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app.kubernetes.io/name": "qdrant"}}},
			}, {
				Name: "gpu", Weight: 1, Aggregation: config.AggregationMean,
				Nodes: &config.NodesTarget{Resource: "nvidia.com/gpu"},
			}},
		}
	}
	for _, c := range []struct {
		name, values string
		want         func(*config.NetLatencyArgs)
	}{
		{"as shipped", "", func(*config.NetLatencyArgs) {}},
		{"the user's, beside ours", "{scheduler: {args: {staleAfter: 5m, source: {agents: {interval: 5s}}}}, rules: [{targets: [gpu]}]}", func(args *config.NetLatencyArgs) {
			args.StaleAfter = duration(5 * time.Minute)
			args.Source.Agents.Interval = duration(5 * time.Second)
			args.Rules = []config.Rule{{Targets: []string{"gpu"}}}
		}},
		{"agents of another installation", "scheduler: {args: {source: {agents: {namespace: probes, service: agents}}}}", func(args *config.NetLatencyArgs) {
			args.Source.Agents.Namespace, args.Source.Agents.Service = "probes", "agents"
			args.TargetSlices.Namespace = "probes"
		}},
		{"a file instead of the agents", "scheduler: {args: {source: {file: {path: /matrix.jsonl}}}}", func(args *config.NetLatencyArgs) {
			args.Source = config.Source{File: &config.FileSource{Path: "/matrix.jsonl", Interval: duration(10 * time.Second)}}
		}},
		{"no targets", "targets: []", func(args *config.NetLatencyArgs) { args.Targets = []config.Target{} }},
		{"agents of another name", "fullnameOverride: nearby", func(args *config.NetLatencyArgs) {
			args.Source.Agents.Service, args.TargetSlices.Service = "nearby-agent", "nearby-targets"
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := plain()
			c.want(want)
			for _, profile := range configuration(t, c.values).Profiles {
				if diff := cmp.Diff(want, argsOf[*config.NetLatencyArgs](t, profile, "NetLatency")); diff != "" {
					t.Errorf("arguments in profile %s (-want +got):\n%s", profile.SchedulerName, diff)
				}
			}
		})
	}
}

// everyValue sets each value of the chart to something else than its default.
const everyValue = `
targets:
- name: qdrant
  weight: 3
  aggregation: Nearest
  quantile: 0.9
  pods:
    labelSelector:
      matchExpressions:
      - {key: app, operator: In, values: [qdrant]}
    namespaces: [search]
- name: gpu
  nodes:
    labelSelector:
      matchLabels: {nvidia.com/gpu.present: "true"}
- name: redis
  service: {namespace: ray, name: redis}
rules:
- podSelector:
    matchLabels: {ray.io/node-type: worker}
  namespaces: [ray]
  targets: [qdrant, gpu]
imagePullSecrets: [registry]
agent:
  image: {repository: mirror/agent, tag: v1, pullPolicy: Always}
  interval: 5s
  burst: 3
  spacing: 10ms
  timeout: 1s
  window: 2m30s
  lossWindow: 10m
  methods: [tcp, udp]
  fullSize: 1400
  maxPeers: 20
  maxSeries: 10
  packetsPerSecond: 100
  hostNetwork: true
  extraArgs: [--sample-stream]
  podAnnotations: {prometheus.io/scrape: "true"}
  priorityClassName: system-node-critical
  nodeSelector: {probes: "true"}
  tolerations: [{key: gpu, operator: Equal, value: "true", effect: NoSchedule}]
  resources: {requests: {cpu: 10m, memory: 16Mi}, limits: {memory: 64Mi}}
networkPolicy: {enabled: true, readers: [{ipBlock: {cidr: 192.0.2.0/24}}]}
admissionPolicy:
  enabled: true
  schedulerName: near
  namespaceSelector: {matchLabels: {team: search}}
  podSelector: {matchLabels: {ray.io/group: workers}}
podMonitor: {enabled: true, interval: 20s, labels: {monitor: "yes"}, scrapeNativeHistograms: true}
prometheusRule: {enabled: true, labels: {rule: "yes"}}
scheduler:
  image: {repository: mirror/scheduler, tag: v1, pullPolicy: Always}
  replicas: 3
  profiles: [{schedulerName: near, preset: pack-near}]
  args:
    window: 1m
    staleAfter: 5m
    source: {agents: {interval: 5s, timeout: 1s}}
    targetSlices: {namespace: probes, service: near-targets}
    statistic: {tailWeight: 0, lossPenalty: 100ms}
    hysteresis: {ratio: 0.1, floor: 50us}
    band: {ratio: 0.2, floor: 1ms}
    providerLabels: [provider]
  clientConnection: {qps: 100, burst: 100}
  emulatedVersion: "1.35"
  extraArgs: [--v=2]
  extraVolumes: [{name: token, secret: {secretName: prometheus}}]
  extraVolumeMounts: [{name: token, mountPath: /var/run/secrets/prometheus}]
  podAnnotations: {prometheus.io/scrape: "true"}
  priorityClassName: system-cluster-critical
  nodeSelector: {schedulers: "true"}
  tolerations: [{key: node-role.kubernetes.io/control-plane, operator: Exists}]
  resources: {requests: {cpu: 1, memory: 1Gi}, limits: {memory: 2Gi}}
`

func TestEveryValueLeadsToAValidConfiguration(t *testing.T) {
	cfg := configuration(t, everyValue)
	if len(cfg.Profiles) != 1 || cfg.Profiles[0].SchedulerName != "near" {
		t.Errorf("profiles %+v, want near alone", cfg.Profiles)
	}
	if got := argsOf[*config.NetLatencyArgs](t, cfg.Profiles[0], "NetLatency").Targets; len(got) != 3 || got[0].Weight != 3 {
		t.Errorf("targets %+v", got)
	}
	// A value that no template uses would be an option without effect.
	files, err := renderFiles(t, everyValue)
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, content := range files {
		all.WriteString(content)
	}
	for _, want := range []string{
		"- name: registry", "mirror/agent:v1", "--interval=5s", "--burst=3", "--spacing=10ms", "--timeout=1s", "--window=2m30s",
		"--loss-window=10m", "--max-peers=20", "--methods=tcp,udp", "--full-size=1400", "--max-series=10", "--packets-per-second=100", "--sample-stream", "prometheus.io/scrape", "system-node-critical",
		"probes: \"true\"", "key: gpu", "memory: 64Mi", "mirror/scheduler:v1", "replicas: 3", "schedulers: \"true\"", "system-cluster-critical",
		"--targets-service=near-targets", "namespace: probes", "--emulated-version=1.35", "--v=2", "node-role.kubernetes.io/control-plane", "memory: 2Gi", "imagePullPolicy: Always", "hostNetwork: true",
		"interval: 20s", "monitor: \"yes\"", "scrapeNativeHistograms: true", "rule: \"yes\"", "record: netlatency:rtt_seconds:mean5m", "secretName: prometheus", "mountPath: /var/run/secrets/prometheus",
		"value: 'near'", "team: search", "ray.io/group: workers",
	} {
		if !strings.Contains(all.String(), want) {
			t.Errorf("nothing is rendered with %q", want)
		}
	}
}
