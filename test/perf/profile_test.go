package perf

import (
	"maps"
	"os"
	"slices"

	"sigs.k8s.io/yaml"

	"github.com/netlatency/netlatency/pkg/plugins/netlatency"
	sandbox "github.com/netlatency/netlatency/test/sandbox/cluster"
)

// The chart's first profile, prefer-near, and the same without the plugin and
// with one that does nothing.
const (
	withPlugin    = "netlatency-scheduler"
	withoutPlugin = "without-netlatency"
	withNothing   = "with-nothing"
)

// writeProfiles writes the scheduler's configuration as the chart renders it,
// with the recorded matrix at recording and workers near Qdrant, and adds to
// it the profiles without the plugin, in which all the rest is the same.
func writeProfiles(path, recording string) error {
	qdrant := map[string]any{"matchLabels": map[string]any{"app.kubernetes.io/name": "qdrant"}}
	worker := map[string]any{"matchLabels": map[string]any{"ray.io/node-type": "worker"}}
	configuration, err := sandbox.SchedulerConfiguration("../../manifests/chart/netlatency", map[string]any{
		"targets":   []any{map[string]any{"name": "qdrant", "pods": map[string]any{"labelSelector": qdrant}}},
		"rules":     []any{map[string]any{"podSelector": worker, "targets": []any{"qdrant"}}},
		"scheduler": map[string]any{"args": map[string]any{"source": map[string]any{"file": map[string]any{"path": recording}}}},
	})
	if err != nil {
		return err
	}
	profiles := configuration["profiles"].([]any)
	other := maps.Clone(profiles[0].(map[string]any))
	other["schedulerName"] = withoutPlugin
	delete(other, "plugins") // which enables ours and says nothing else
	other["pluginConfig"] = slices.DeleteFunc(slices.Clone(other["pluginConfig"].([]any)), func(config any) bool {
		return config.(map[string]any)["name"] == netlatency.Name
	})
	idle := maps.Clone(other)
	idle["schedulerName"] = withNothing
	idle["plugins"] = map[string]any{"multiPoint": map[string]any{"enabled": []any{map[string]any{"name": nothingName, "weight": 25}}}}
	configuration["profiles"] = append(profiles, other, idle)
	text, err := yaml.Marshal(configuration)
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o644)
}
