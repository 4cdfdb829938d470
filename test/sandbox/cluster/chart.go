package cluster

import (
	"context"
	"fmt"
	"path"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/releaseutil"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// InstallChart renders the chart in a directory as `helm install` would, with
// the versions the API server offers, and applies it. values override the
// chart's own. mutate, which may be nil, sees each object before it is
// applied. Hooks (tests among them) are left out. It returns the objects as
// they were applied.
func (c *Cluster) InstallChart(ctx context.Context, dir, release, namespace string, values map[string]any, mutate func(*unstructured.Unstructured)) ([]*unstructured.Unstructured, error) {
	capabilities, err := c.capabilities()
	if err != nil {
		return nil, err
	}
	objects, err := renderChart(dir, release, namespace, values, capabilities)
	if err != nil {
		return nil, err
	}
	if mutate != nil {
		for _, o := range objects {
			mutate(o)
		}
	}
	return objects, c.applyAll(ctx, objects, namespace)
}

// renderChart returns the chart's objects in Helm's order of installation.
func renderChart(dir, release, namespace string, values map[string]any, capabilities *chartutil.Capabilities) ([]*unstructured.Unstructured, error) {
	chart, err := loader.LoadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("load chart %s: %w", dir, err)
	}
	if err := chartutil.ProcessDependencies(chart, values); err != nil {
		return nil, fmt.Errorf("chart %s: %w", dir, err)
	}
	options := chartutil.ReleaseOptions{Name: release, Namespace: namespace, Revision: 1, IsInstall: true}
	scope, err := chartutil.ToRenderValues(chart, values, options, capabilities)
	if err != nil {
		return nil, fmt.Errorf("values of chart %s: %w", dir, err)
	}
	files, err := engine.Engine{Strict: true}.Render(chart, scope)
	if err != nil {
		return nil, fmt.Errorf("render chart %s: %w", dir, err)
	}
	for name := range files {
		if path.Base(name) == notesFile {
			delete(files, name)
		}
	}
	_, manifests, err := releaseutil.SortManifests(files, capabilities.APIVersions, releaseutil.InstallOrder)
	if err != nil {
		return nil, fmt.Errorf("render chart %s: %w", dir, err)
	}
	var objects []*unstructured.Unstructured
	for _, crd := range chart.CRDObjects() {
		found, err := decodeManifests(crd.File.Data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", crd.Filename, err)
		}
		objects = append(objects, found...)
	}
	for _, m := range manifests {
		found, err := decodeManifests([]byte(m.Content))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.Name, err)
		}
		objects = append(objects, found...)
	}
	return objects, nil
}

// SchedulerConfiguration is the KubeSchedulerConfiguration that the chart in a
// directory makes of values, for who runs a scheduler without its Deployment.
func SchedulerConfiguration(dir string, values map[string]any) (map[string]any, error) {
	objects, err := renderChart(dir, "netlatency", "netlatency", values, chartutil.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	const file = "scheduler-config.yaml"
	for _, o := range objects {
		text, found, _ := unstructured.NestedString(o.Object, "data", file)
		if o.GetKind() != "ConfigMap" || !found {
			continue
		}
		var configuration map[string]any
		if err := yaml.Unmarshal([]byte(text), &configuration); err != nil {
			return nil, fmt.Errorf("read %s of chart %s: %w", file, dir, err)
		}
		return configuration, nil
	}
	return nil, fmt.Errorf("chart %s has no ConfigMap with %s", dir, file)
}

// notesFile is the text that Helm prints after an installation.
const notesFile = "NOTES.txt"

// capabilities are what a chart may ask about the cluster.
func (c *Cluster) capabilities() (*chartutil.Capabilities, error) {
	discovery := c.client.Discovery()
	version, err := discovery.ServerVersion()
	if err != nil {
		return nil, fmt.Errorf("version of the API server: %w", err)
	}
	kube, err := chartutil.ParseKubeVersion(version.GitVersion)
	if err != nil {
		return nil, fmt.Errorf("version of the API server: %w", err)
	}
	_, lists, err := discovery.ServerGroupsAndResources()
	if err != nil {
		return nil, fmt.Errorf("kinds of the API server: %w", err)
	}
	capabilities := &chartutil.Capabilities{KubeVersion: *kube, HelmVersion: chartutil.DefaultCapabilities.HelmVersion}
	for _, list := range lists {
		capabilities.APIVersions = append(capabilities.APIVersions, list.GroupVersion)
		for _, r := range list.APIResources {
			capabilities.APIVersions = append(capabilities.APIVersions, list.GroupVersion+"/"+r.Kind)
		}
	}
	return capabilities, nil
}
