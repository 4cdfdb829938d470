package perf

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"sigs.k8s.io/yaml"

	"github.com/netlatency/netlatency/pkg/plugins/netlatency"
)

// The chart's first profile, prefer-near, and the same without the plugin.
const (
	withPlugin    = "netlatency-scheduler"
	withoutPlugin = "without-netlatency"
)

// writeProfiles writes the scheduler's configuration as the chart renders it,
// with the recorded matrix at recording and workers near Qdrant, and adds to
// it the profile without the plugin, in which all the rest is the same.
func writeProfiles(path, recording string) error {
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
		configuration, err := addProfileWithoutPlugin([]byte(object.Data["scheduler-config.yaml"]))
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		return os.WriteFile(path, configuration, 0o644)
	}
	return errors.New("the chart has no scheduler-config.yaml")
}

func addProfileWithoutPlugin(configuration []byte) ([]byte, error) {
	var c, other map[string]any
	if err := errors.Join(yaml.Unmarshal(configuration, &c), yaml.Unmarshal(configuration, &other)); err != nil {
		return nil, err
	}
	profile := other["profiles"].([]any)[0].(map[string]any)
	profile["schedulerName"] = withoutPlugin
	delete(profile, "plugins") // which enables ours and says nothing else
	profile["pluginConfig"] = slices.DeleteFunc(profile["pluginConfig"].([]any), func(config any) bool {
		return config.(map[string]any)["name"] == netlatency.Name
	})
	c["profiles"] = append(c["profiles"].([]any), profile)
	return yaml.Marshal(c)
}
