package perf

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"sigs.k8s.io/yaml"

	"github.com/netlatency/netlatency/pkg/plugins/netlatency"
)

// schedulerName is of the chart's first profile, prefer-near.
const schedulerName = "netlatency-scheduler"

// writeProfiles writes the scheduler's configuration as the chart renders it,
// with the recorded matrix at recording, and with workers near Qdrant. Without
// the plugin all the rest stays the same.
func writeProfiles(path, recording string, plugin bool) error {
	c, err := loader.Load("../../manifests/chart/netlatency")
	if err != nil {
		return fmt.Errorf("load the chart: %w", err)
	}
	qdrant := map[string]any{"matchLabels": map[string]any{"app.kubernetes.io/name": "qdrant"}}
	worker := map[string]any{"matchLabels": map[string]any{"ray.io/node-type": "worker"}}
	values, err := chartutil.ToRenderValues(c, map[string]any{
		"targets":   []any{map[string]any{"name": "qdrant", "pods": map[string]any{"labelSelector": qdrant}}},
		"rules":     []any{map[string]any{"podSelector": worker, "targets": []any{"qdrant"}}},
		"scheduler": map[string]any{"args": map[string]any{"source": map[string]any{"file": map[string]any{"path": recording}}}},
	}, chartutil.ReleaseOptions{Name: "netlatency", Namespace: "netlatency"}, chartutil.DefaultCapabilities)
	if err != nil {
		return fmt.Errorf("values of the chart: %w", err)
	}
	files, err := engine.Render(c, values)
	if err != nil {
		return fmt.Errorf("render the chart: %w", err)
	}
	for name, content := range files {
		if !strings.HasSuffix(name, "/scheduler-config.yaml") {
			continue
		}
		var object struct {
			Data map[string]string `json:"data"`
		}
		if err := yaml.Unmarshal([]byte(content), &object); err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		configuration := []byte(object.Data["scheduler-config.yaml"])
		if !plugin {
			if configuration, err = withoutPlugin(configuration); err != nil {
				return fmt.Errorf("read %s: %w", name, err)
			}
		}
		return os.WriteFile(path, configuration, 0o644)
	}
	return errors.New("the chart has no scheduler-config.yaml")
}

func withoutPlugin(configuration []byte) ([]byte, error) {
	var c map[string]any
	if err := yaml.Unmarshal(configuration, &c); err != nil {
		return nil, err
	}
	for _, profile := range c["profiles"].([]any) {
		p := profile.(map[string]any)
		delete(p, "plugins") // which enables ours and says nothing else
		var kept []any
		for _, config := range p["pluginConfig"].([]any) {
			if config.(map[string]any)["name"] != netlatency.Name {
				kept = append(kept, config)
			}
		}
		p["pluginConfig"] = kept
	}
	return yaml.Marshal(c)
}
