package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"sigs.k8s.io/yaml"

	"github.com/netlatency/netlatency/test/sandbox/kubelet"
)

const kwokModule = "sigs.k8s.io/kwok"

// kwokStages are the behaviours taken from kwok's own module, below
// kustomize/stage: nodes become Ready, pods run at once, Jobs complete, what
// is deleted goes.
var kwokStages = []string{
	"node/fast/node-initialize.yaml",
	"node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
	"pod/fast/pod-ready.yaml",
	"pod/fast/pod-complete.yaml",
	"pod/fast/pod-delete.yaml",
}

// A kwokRequirement is a further condition on the objects of a stage: a jq
// expression that must yield nothing.
type kwokRequirement struct {
	Key      string `json:"key"`
	Operator string `json:"operator"`
}

// kwokExceptions are what kwok leaves alone: pods with a container of our own,
// which the sandbox's kubelet runs, and nodes that are down.
var kwokExceptions = map[string]kwokRequirement{
	"Pod": {
		Key:      `.spec.containers.[] | select( .image | startswith("` + kubelet.ImagePrefix + `") ) | .image`,
		Operator: "DoesNotExist",
	},
	"Node": {
		Key:      `.metadata.annotations["` + annotationDown + `"]`,
		Operator: "DoesNotExist",
	},
}

// writeKwokStages writes kwok's configuration and returns its path.
func (c *Cluster) writeKwokStages(ctx context.Context) (string, error) {
	root, err := repositoryRoot(ctx)
	if err != nil {
		return "", err
	}
	module, err := moduleDir(ctx, filepath.Join(root, "hack", "tools", "kwok"), kwokModule)
	if err != nil {
		return "", err
	}
	var config bytes.Buffer
	for _, name := range kwokStages {
		upstream, err := os.ReadFile(filepath.Join(module, "kustomize", "stage", filepath.FromSlash(name)))
		if err != nil {
			return "", err
		}
		stage, err := exceptOurs(upstream)
		if err != nil {
			return "", fmt.Errorf("kwok stage %s: %w", name, err)
		}
		config.WriteString("---\n")
		config.Write(stage)
	}
	path := filepath.Join(c.options.Dir, "kwok.yaml")
	return path, os.WriteFile(path, config.Bytes(), 0o644)
}

// exceptOurs adds to a stage's selector that it leaves alone what the sandbox
// itself plays.
func exceptOurs(upstream []byte) ([]byte, error) {
	var stage map[string]any
	if err := yaml.Unmarshal(upstream, &stage); err != nil {
		return nil, err
	}
	spec, _ := stage["spec"].(map[string]any)
	ref, _ := spec["resourceRef"].(map[string]any)
	kind, _ := ref["kind"].(string)
	exception, ok := kwokExceptions[kind]
	if !ok {
		return nil, fmt.Errorf("is for kind %q, which nothing here expects", kind)
	}
	selector, ok := spec["selector"].(map[string]any)
	if !ok {
		return nil, errors.New("has no selector")
	}
	expressions, _ := selector["matchExpressions"].([]any)
	selector["matchExpressions"] = append(expressions, exception)
	return yaml.Marshal(stage)
}
