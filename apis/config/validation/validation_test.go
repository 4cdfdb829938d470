package validation_test

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/netlatency/netlatency/apis/config"
	"github.com/netlatency/netlatency/apis/config/scheme"
	configv1 "github.com/netlatency/netlatency/apis/config/v1"
	"github.com/netlatency/netlatency/apis/config/validation"
)

// valid has one target of each kind, a rule, and the defaults for the rest.
func valid(t *testing.T) *config.NetLatencyArgs {
	t.Helper()
	versioned := &configv1.NetLatencyArgs{
		Targets: []configv1.Target{
			{Name: "qdrant", Pods: &configv1.PodsTarget{LabelSelector: labels("app", "qdrant")}},
			{Name: "gpu", Nodes: &configv1.NodesTarget{Resource: "nvidia.com/gpu"}},
			{Name: "redis", Service: &configv1.ServiceTarget{Namespace: "ray", Name: "redis"}},
		},
		Rules: []configv1.Rule{{Targets: []string{"qdrant", "gpu"}}},
	}
	scheme.Scheme.Default(versioned)
	args := &config.NetLatencyArgs{}
	if err := scheme.Scheme.Convert(versioned, args, nil); err != nil {
		t.Fatal(err)
	}
	return args
}

// prometheus is a source with the defaults.
func prometheus(t *testing.T, address string) config.Source {
	t.Helper()
	versioned := &configv1.NetLatencyArgs{Source: configv1.Source{Prometheus: &configv1.PrometheusSource{Address: address}}}
	scheme.Scheme.Default(versioned)
	args := &config.NetLatencyArgs{}
	if err := scheme.Scheme.Convert(versioned, args, nil); err != nil {
		t.Fatal(err)
	}
	return args.Source
}

func labels(key, value string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{key: value}}
}

func duration(d time.Duration) metav1.Duration { return metav1.Duration{Duration: d} }

const notALabel = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"

func TestFaultsAreNamedWithTheirPlace(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*config.NetLatencyArgs)
		want   []string
	}{
		{"valid arguments", func(*config.NetLatencyArgs) {}, nil},
		{"no targets and no rules", func(a *config.NetLatencyArgs) { a.Targets, a.Rules = nil, nil }, nil},
		{"the ends of every range", func(a *config.NetLatencyArgs) {
			a.Source.Agents.Interval = duration(time.Second)
			a.Source.Agents.Timeout = duration(time.Second)
			a.Window = duration(time.Hour)
			a.StaleAfter = duration(time.Second)
			a.Statistic = config.Statistic{TailWeight: 1, LossPenalty: duration(time.Minute)}
			a.Hysteresis = config.Hysteresis{}
			a.Band = config.Band{Ratio: 1, Floor: duration(time.Second)}
			a.ProviderLabels = nil
			a.Targets[0].Weight, a.Targets[1].Weight = 100, 1
			a.Targets[0].Quantile, a.Targets[1].Quantile, a.Targets[2].Quantile = new(0.5), new(0.9), new(0.99)
			a.Rules[0].PodSelector = &metav1.LabelSelector{}
		}, nil},
		{"targets that would be taken for agents", func(a *config.NetLatencyArgs) { a.TargetSlices.Service = a.Source.Agents.Service }, []string{
			`args.targetSlices.service: Invalid value: "netlatency-agent": must not be the agents' own Service: targets would be taken for agents`,
		}},
		{"target slices that cannot be", func(a *config.NetLatencyArgs) {
			a.TargetSlices = config.TargetSlices{Namespace: "Net Latency"}
		}, []string{
			`args.targetSlices.namespace: Invalid value: "Net Latency": ` + notALabel,
			"args.targetSlices.service: Required value: must not be empty",
		}},
		{"no source", func(a *config.NetLatencyArgs) { a.Source.Agents = nil }, []string{
			"args.source: Required value: must have one of agents, prometheus and file",
		}},
		{"two sources", func(a *config.NetLatencyArgs) {
			a.Source.File = &config.FileSource{Path: "/matrix.jsonl", Interval: duration(time.Second)}
		}, []string{
			"args.source: Forbidden: may have only one of agents, prometheus and file",
		}},
		{"a file that is named relatively, and looked at too often", func(a *config.NetLatencyArgs) {
			a.Source = config.Source{File: &config.FileSource{Path: "matrix.jsonl", Interval: duration(time.Millisecond)}}
		}, []string{
			`args.source.file.path: Invalid value: "matrix.jsonl": must be an absolute path`,
			`args.source.file.interval: Invalid value: "1ms": must be from 1s to 10m0s`,
		}},
		{"no file", func(a *config.NetLatencyArgs) {
			a.Source = config.Source{File: &config.FileSource{Interval: duration(time.Second)}}
		}, []string{
			"args.source.file.path: Required value: must be the path of a file",
		}},
		{"a Prometheus by its defaults", func(a *config.NetLatencyArgs) { a.Source = prometheus(t, "https://thanos.example/query") }, nil},
		{"a Prometheus of which all is wrong", func(a *config.NetLatencyArgs) {
			a.Source = prometheus(t, "prometheus:9090")
			p := a.Source.Prometheus
			p.Headers = map[string]string{"X Y": "1", "authorization": "Bearer x", "X-Empty": "", "X-Lines": "a\nb"}
			p.BearerTokenFile = "token"
			p.TLS = config.ClientTLS{CAFile: "ca", CertFile: "/cert", InsecureSkipVerify: true}
			p.Interval = duration(0)
			p.MaxBytes = 10
			p.Queries = config.PrometheusQueries{P90: "x"}
			p.NodeLabel, p.PeerLabel = "node.name", ""
			p.Scale = math.NaN()
			a.StaleAfter = duration(0)
		}, []string{
			`args.source.prometheus.address: Invalid value: "prometheus:9090": must be a URL with scheme http or https and a host`,
			`args.source.prometheus.headers[X Y]: Invalid value: "X Y": must be the name of an HTTP header`,
			`args.source.prometheus.headers[X-Empty]: Invalid value: "": must be the value of an HTTP header, in one line`,
			`args.source.prometheus.headers[X-Lines]: Invalid value: "a\nb": must be the value of an HTTP header, in one line`,
			"args.source.prometheus.headers[authorization]: Forbidden: may not be one of Accept-Encoding, Authorization, Connection, Content-Encoding, Content-Length, Content-Type, Host, Keep-Alive, Proxy-Authorization, Transfer-Encoding, User-Agent",
			`args.source.prometheus.bearerTokenFile: Invalid value: "token": must be an absolute path`,
			`args.source.prometheus.tls.caFile: Invalid value: "ca": must be an absolute path`,
			"args.source.prometheus.tls.keyFile: Required value: must be given with certFile",
			"args.source.prometheus.tls.insecureSkipVerify: Forbidden: may not be true with caFile: there would be nothing to verify with it",
			`args.source.prometheus.interval: Invalid value: "0s": must be from 1s to 10m0s`,
			"args.source.prometheus.maxBytes: Invalid value: 10: must be from 1024 to 1073741824",
			"args.source.prometheus.queries.mean: Required value: must be given, or p50",
			"args.source.prometheus.queries.timestamp: Required value: must return the time of a pair's newest sample: that a query succeeds does not make its answer fresh",
			`args.source.prometheus.nodeLabel: Invalid value: "node.name": must be the name of a label of a metric, such as node`,
			"args.source.prometheus.peerLabel: Required value: must not be empty",
			"args.source.prometheus.scale: Invalid value: NaN: must be from 1e-9, nanoseconds, to 1000",
			`args.staleAfter: Invalid value: "0s": must be from 1s to 24h0m0s`,
		}},
		{"addresses", func(a *config.NetLatencyArgs) { a.Source = prometheus(t, "https://me:secret@prometheus") }, []string{
			"args.source.prometheus.address: Forbidden: may not have a user in it; use bearerTokenFile",
		}},
		{"an address with more than a path", func(a *config.NetLatencyArgs) { a.Source = prometheus(t, "https://prometheus/?a=b") }, []string{
			`args.source.prometheus.address: Invalid value: "https://prometheus/?a=b": must end with its path`,
		}},
		{"a key without its certificate, a timeout beyond the interval, one label for both nodes", func(a *config.NetLatencyArgs) {
			a.Source = prometheus(t, "http://prometheus")
			a.Source.Prometheus.TLS.KeyFile = "/key"
			a.Source.Prometheus.Timeout = duration(time.Hour)
			a.Source.Prometheus.PeerLabel = "node"
		}, []string{
			"args.source.prometheus.tls.certFile: Required value: must be given with keyFile",
			`args.source.prometheus.timeout: Invalid value: "1h0m0s": must be from 100ms to 15s`,
			`args.source.prometheus.peerLabel: Duplicate value: "node"`,
		}},
		{"an agents source that names nothing", func(a *config.NetLatencyArgs) {
			a.Source.Agents.Namespace = "Net Latency"
			a.Source.Agents.Service = ""
			a.Source.Agents.Port = "9465"
		}, []string{
			`args.source.agents.namespace: Invalid value: "Net Latency": ` + notALabel,
			"args.source.agents.service: Required value: must not be empty",
			`args.source.agents.port: Invalid value: "9465": must contain at least one letter (a-z)`,
		}},
		{"an interval too short", func(a *config.NetLatencyArgs) { a.Source.Agents.Interval = duration(time.Millisecond) }, []string{
			`args.source.agents.interval: Invalid value: "1ms": must be from 1s to 10m0s`,
		}},
		{"a timeout beyond the interval", func(a *config.NetLatencyArgs) { a.Source.Agents.Timeout = duration(time.Minute) }, []string{
			`args.source.agents.timeout: Invalid value: "1m0s": must be from 100ms to 10s`,
		}},
		{"measurements that grow stale between two reads", func(a *config.NetLatencyArgs) { a.StaleAfter = duration(9 * time.Second) }, []string{
			`args.staleAfter: Invalid value: "9s": must be from 10s to 24h0m0s`,
		}},
		{"numbers out of range", func(a *config.NetLatencyArgs) {
			a.Window = duration(-time.Second)
			a.Statistic = config.Statistic{TailWeight: math.NaN(), LossPenalty: duration(time.Hour)}
			a.Hysteresis = config.Hysteresis{Ratio: 1, Floor: duration(-1)}
			a.Band = config.Band{Ratio: 1.5, Floor: duration(2 * time.Second)}
		}, []string{
			`args.window: Invalid value: "-1s": must be from 0s to 1h0m0s`,
			`args.statistic.tailWeight: Invalid value: NaN: must be from 0 to 1`,
			`args.statistic.lossPenalty: Invalid value: "1h0m0s": must be from 0s to 1m0s`,
			`args.hysteresis.ratio: Invalid value: 1: must be at least 0 and less than 1`,
			`args.hysteresis.floor: Invalid value: "-1ns": must be from 0s to 1s`,
			`args.band.ratio: Invalid value: 1.5: must be from 0 to 1`,
			`args.band.floor: Invalid value: "2s": must be from 0s to 1s`,
		}},
		{"provider labels that are no label names", func(a *config.NetLatencyArgs) { a.ProviderLabels = []string{"x/y/z", "provider", "provider", ""} }, []string{
			`args.providerLabels[0]: Invalid value: "x/y/z": a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')`,
			`args.providerLabels[2]: Duplicate value: "provider"`,
			`args.providerLabels[3]: Required value: must not be empty`,
		}},
		{"a target that is called as an annotation calls none", func(a *config.NetLatencyArgs) { a.Targets[0].Name, a.Rules = "none", nil }, []string{
			`args.targets[0].name: Invalid value: "none": must be another: a pod's annotation netlatency.io/near says none for no targets at all`,
		}},
		{"targets without a usable name", func(a *config.NetLatencyArgs) {
			a.Targets[0].Name, a.Targets[1].Name, a.Targets[2].Name = "", "GPU", "GPU"
			a.Rules = nil
		}, []string{
			"args.targets[0].name: Required value: must not be empty",
			`args.targets[1].name: Invalid value: "GPU": ` + notALabel,
			`args.targets[2].name: Duplicate value: "GPU"`,
			`args.targets[2].name: Invalid value: "GPU": ` + notALabel,
		}},
		{"a target's numbers out of range", func(a *config.NetLatencyArgs) {
			a.Targets[0].Weight = 0
			a.Targets[1].Weight = 101
			a.Targets[1].Aggregation = "Median"
			a.Targets[2].Quantile = new(0.95)
		}, []string{
			"args.targets[0].weight: Invalid value: 0: must be from 1 to 100",
			"args.targets[1].weight: Invalid value: 101: must be from 1 to 100",
			`args.targets[1].aggregation: Unsupported value: "Median": supported values: "Mean", "Nearest", "Worst"`,
			"args.targets[2].quantile: Invalid value: 0.95: must be 0.5, 0.9 or 0.99, or absent for the profile's statistic",
		}},
		{"limits at the ends of their range", func(a *config.NetLatencyArgs) {
			a.Targets[0].MaxRTT, a.Targets[0].WhenUnknown = new(duration(10*time.Microsecond)), config.UnknownAllow
			a.Targets[1].MaxRTT, a.Targets[1].WhenUnknown = new(duration(10*time.Second)), config.UnknownReject
		}, nil},
		{"limits that cannot be", func(a *config.NetLatencyArgs) {
			a.Targets[0].MaxRTT, a.Targets[0].WhenUnknown = new(duration(0)), "Ignore"
			a.Targets[1].MaxRTT, a.Targets[1].WhenUnknown = new(duration(time.Minute)), config.UnknownReject
			a.Targets[2].WhenUnknown = config.UnknownReject
		}, []string{
			`args.targets[0].maxRTT: Invalid value: "0s": must be from 10µs to 10s`,
			`args.targets[0].whenUnknown: Unsupported value: "Ignore": supported values: "Allow", "Reject"`,
			`args.targets[1].maxRTT: Invalid value: "1m0s": must be from 10µs to 10s`,
			"args.targets[2].whenUnknown: Forbidden: may be given only with maxRTT",
		}},
		{"no kind, and two kinds, of target", func(a *config.NetLatencyArgs) {
			a.Targets[0].Pods = nil
			a.Targets[1].Service = &config.ServiceTarget{Namespace: "a", Name: "b"}
		}, []string{
			"args.targets[0]: Required value: must have one of pods, nodes and service",
			"args.targets[1]: Forbidden: may have only one of pods, nodes and service; make several targets of it",
		}},
		{"targets that choose nothing or everything", func(a *config.NetLatencyArgs) {
			a.Targets[0].Pods = &config.PodsTarget{LabelSelector: &metav1.LabelSelector{}}
			a.Targets[1].Nodes = &config.NodesTarget{}
			a.Targets[2].Service = &config.ServiceTarget{}
		}, []string{
			"args.targets[0].pods.labelSelector: Required value: must have matchLabels or matchExpressions, an empty selector would choose everything",
			"args.targets[1].nodes: Required value: must have a labelSelector or a resource to choose the target's nodes",
			"args.targets[2].service.namespace: Required value: must not be empty",
			"args.targets[2].service.name: Required value: must not be empty",
		}},
		{"selectors that cannot be", func(a *config.NetLatencyArgs) {
			a.Targets[0].Pods.LabelSelector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "app", Operator: "Like"}}}
			a.Targets[1].Nodes.LabelSelector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "gpu", Operator: metav1.LabelSelectorOpIn}}}
			a.Rules[0].PodSelector = labels("app", "a b")
			a.Targets[0].Pods.NamespaceSelector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "app", Operator: "Like"}}}
			a.Targets[0].Pods.MatchLabelKeys = []string{"ray.io/cluster", "ray.io/cluster", "a/"}
		}, []string{
			`args.targets[0].pods.labelSelector.matchExpressions[0].operator: Invalid value: "Like": not a valid selector operator`,
			`args.targets[0].pods.namespaceSelector.matchExpressions[0].operator: Invalid value: "Like": not a valid selector operator`,
			`args.targets[0].pods.matchLabelKeys[1]: Duplicate value: "ray.io/cluster"`,
			`args.targets[0].pods.matchLabelKeys[2]: Invalid value: "a/": name part must be non-empty`,
			`args.targets[0].pods.matchLabelKeys[2]: Invalid value: "a/": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')`,
			"args.targets[1].nodes.labelSelector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
			`args.rules[0].podSelector.matchLabels: Invalid value: "a b": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')`,
		}},
		{"a pods target without selector", func(a *config.NetLatencyArgs) { a.Targets[0].Pods.LabelSelector = nil }, []string{
			"args.targets[0].pods.labelSelector: Required value: must choose the target's pods",
		}},
		{"a resource that is no name", func(a *config.NetLatencyArgs) { a.Targets[1].Nodes.Resource = "nvidia.com/" }, []string{
			`args.targets[1].nodes.resource: Invalid value: "nvidia.com/": name part must be non-empty`,
			`args.targets[1].nodes.resource: Invalid value: "nvidia.com/": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')`,
		}},
		{"rules about targets that are not there", func(a *config.NetLatencyArgs) {
			a.Rules = []config.Rule{{Targets: []string{"qdrnt", "gpu", "gpu"}}, {Namespaces: []string{"Ray"}}}
		}, []string{
			`args.rules[0].targets[0]: Unsupported value: "qdrnt": supported values: "gpu", "qdrant", "redis"`,
			`args.rules[0].targets[2]: Duplicate value: "gpu"`,
			`args.rules[1].namespaces[0]: Invalid value: "Ray": ` + notALabel,
			`args.rules[1].targets: Required value: must name at least one target`,
		}},
		{"rules without any target", func(a *config.NetLatencyArgs) { a.Targets = nil; a.Rules[0].Targets = []string{"gpu"} }, []string{
			`args.rules[0].targets[0]: Invalid value: "gpu": there are no targets; add it to targets`,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := valid(t)
			c.change(args)
			var got []string
			for _, fault := range validation.ValidateNetLatencyArgs(field.NewPath("args"), args) {
				got = append(got, fault.Error())
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("faults (-want +got):\n%s", diff)
			}
		})
	}
}
