package main

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/component-base/compatibility"
	"k8s.io/kubernetes/cmd/kube-scheduler/app"
	"k8s.io/kubernetes/cmd/kube-scheduler/app/options"
	"k8s.io/kubernetes/pkg/scheduler"
	schedulerconfig "k8s.io/kubernetes/pkg/scheduler/apis/config"

	"github.com/netlatency/netlatency/pkg/plugins/netlatency"
)

const kubeconfig = `
apiVersion: v1
kind: Config
clusters:
- name: default
  cluster: {insecure-skip-tls-verify: true, server: SERVER}
contexts:
- name: default
  context: {cluster: default, user: default}
current-context: default
users:
- name: default
  user: {username: test}
`

// setUp makes the scheduler that the command would run with the given profiles
// in its configuration file.
func setUp(t *testing.T, profiles string) (*scheduler.Scheduler, error) {
	t.Helper()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"metadata": {}}`))
	}))
	t.Cleanup(server.Close)
	file := func(name, text string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	access := file("kubeconfig", strings.ReplaceAll(kubeconfig, "SERVER", server.URL))
	configuration := file("config.yaml", `
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
clientConnection: {kubeconfig: "`+access+`"}
leaderElection: {leaderElect: false}
profiles:
`+profiles)

	registry := compatibility.NewComponentGlobalsRegistry()
	utilruntime.Must(registry.Register(compatibility.DefaultKubeComponent,
		compatibility.NewEffectiveVersionFromString("1.36", "1.33", "1.33"), utilfeature.DefaultFeatureGate.DeepCopy()))
	o := options.NewOptionsWithComponentGlobalsRegistry(registry)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	o.SecureServing.Listener = listener
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	for _, set := range o.Flags.FlagSets {
		flags.AddFlagSet(set)
	}
	if err := flags.Parse([]string{"--config", configuration}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	_, sched, err := app.Setup(ctx, o, plugins()...)
	return sched, err
}

func TestProfiles(t *testing.T) {
	const profiles = `
- schedulerName: defaults
  plugins:
    multiPoint:
      enabled: [{name: NetLatency, weight: 10}]
- schedulerName: configured
  plugins:
    multiPoint:
      enabled: [{name: NetLatency, weight: 20}]
  pluginConfig:
  - name: NetLatency
    args:
      source: {agents: {namespace: measuring, interval: 5s}}
      targets:
      - name: qdrant
        pods: {labelSelector: {matchLabels: {app: qdrant}}, namespaces: [search]}
      - name: gpu
        weight: 2
        aggregation: Nearest
        nodes: {resource: nvidia.com/gpu}
      - name: api
        service: {namespace: search, name: api}
      rules:
      - podSelector: {matchLabels: {ray.io/node-type: worker}}
        targets: [qdrant, gpu]
- schedulerName: plain
`
	sched, err := setUp(t, profiles)
	if err != nil {
		t.Fatal(err)
	}
	type enabled struct {
		PreScore, Score bool
		Weight          int32
	}
	got := make(map[string]enabled)
	for name, profile := range sched.Profiles {
		var e enabled
		lists := profile.ListPlugins()
		find := func(set schedulerconfig.PluginSet) (schedulerconfig.Plugin, bool) {
			for _, plugin := range set.Enabled {
				if plugin.Name == netlatency.Name {
					return plugin, true
				}
			}
			return schedulerconfig.Plugin{}, false
		}
		_, e.PreScore = find(lists.PreScore)
		var scoring schedulerconfig.Plugin
		scoring, e.Score = find(lists.Score)
		e.Weight = scoring.Weight
		got[name] = e
	}
	want := map[string]enabled{
		"defaults":   {PreScore: true, Score: true, Weight: 10},
		"configured": {PreScore: true, Score: true, Weight: 20},
		"plain":      {},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("NetLatency in the profiles (-want +got):\n%s", diff)
	}
}

func TestABrokenConfigurationStopsTheScheduler(t *testing.T) {
	profile := func(args string) string {
		return `
- schedulerName: netlatency-scheduler
  plugins:
    multiPoint:
      enabled: [{name: NetLatency}]
  pluginConfig:
  - name: NetLatency
    args: ` + args
	}
	tests := []struct {
		name, args, want string
	}{
		{"a field that does not exist", `{stalAfter: 1m}`, `unknown field "stalAfter"`},
		{"a value that cannot be", `{band: {ratio: 3}}`, "band.ratio"},
		{"a rule without its target", `{rules: [{targets: [qdrant]}]}`, "rules[0].targets[0]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := setUp(t, profile(tt.args))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error is %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestTheCommandIsCalledByItsName(t *testing.T) {
	if got := newCommand().Name(); got != "netlatency-scheduler" {
		t.Errorf("command is %q", got)
	}
}
