package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

const (
	kubeRayModule    = "github.com/ray-project/kuberay/ray-operator"
	kubeRayNamespace = "ray-system"
	kubeRayAccount   = "kuberay-operator"
)

// Files of the operator's module, below config. The definitions are up to
// 1.3 MB each: more than an annotation of a client-side apply could hold.
var (
	kubeRayDefinitions = []string{
		"crd/bases/ray.io_rayclusters.yaml",
		"crd/bases/ray.io_rayjobs.yaml",
		"crd/bases/ray.io_rayservices.yaml",
	}
	kubeRayPermissions = []string{
		"rbac/service_account.yaml",
		"rbac/role.yaml",
		"rbac/role_binding.yaml",
	}
)

// defineRay makes the API server serve Ray's kinds. This comes before the
// controller manager, whose garbage collector looks for new kinds only every
// half minute, and the first RayService would be that long in dying; and before
// the operator, which looks again only after ten seconds.
func (c *Cluster) defineRay(ctx context.Context) error {
	started := time.Now()
	if err := c.applyKubeRayFiles(ctx, kubeRayDefinitions); err != nil {
		return err
	}
	for _, kind := range []string{"RayCluster", "RayJob", "RayService"} {
		if _, err := c.mapping(ctx, rayVersion.WithKind(kind)); err != nil {
			return err
		}
	}
	c.progress(started, "Ray's kinds defined")
	return nil
}

// startKubeRay starts the KubeRay operator under its own ServiceAccount, and
// the dashboard that all Ray heads share.
func (c *Cluster) startKubeRay(ctx context.Context) error {
	started := time.Now()
	dashboard, err := startDashboard()
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.dashboard = dashboard
	c.mu.Unlock()

	if err := c.CreateNamespace(ctx, kubeRayNamespace, nil); err != nil {
		return err
	}
	if err := c.applyKubeRayFiles(ctx, kubeRayPermissions); err != nil {
		return err
	}
	kubeconfig := c.credentials.file(kubeRayAccount + ".kubeconfig")
	token, err := c.accountToken(ctx, kubeRayNamespace, kubeRayAccount)
	if err != nil {
		return err
	}
	if err := c.credentials.writeKubeconfig(kubeconfig, c.URL(), kubeRayAccount, token); err != nil {
		return err
	}
	if err := c.run(KubeRay.Name, []string{"KUBECONFIG=" + kubeconfig}, KubeRay,
		// The dashboard is reached through the API server: there is neither
		// DNS nor kube-proxy here.
		"--use-kubernetes-proxy",
		"--enable-leader-election=false",
		"--metrics-addr=0",
		"--health-probe-bind-address=0",
	); err != nil {
		return err
	}
	c.progress(started, "KubeRay operator started")
	return nil
}

func (c *Cluster) applyKubeRayFiles(ctx context.Context, names []string) error {
	root, err := repositoryRoot(ctx)
	if err != nil {
		return err
	}
	module, err := moduleDir(ctx, filepath.Join(root, "hack", "tools", "kuberay"), kubeRayModule)
	if err != nil {
		return err
	}
	var objects []*unstructured.Unstructured
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join(module, "config", filepath.FromSlash(name)))
		if err != nil {
			return err
		}
		found, err := decodeManifests(data)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		for _, o := range found {
			if err := adaptKubeRay(o); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		objects = append(objects, found...)
	}
	return c.applyAll(ctx, objects, kubeRayNamespace)
}

// adaptKubeRay changes what the operator's files leave to an installation.
func adaptKubeRay(o *unstructured.Unstructured) error {
	switch o.GetKind() {
	case "CustomResourceDefinition":
		return keepStorageVersion(o)
	case "ClusterRoleBinding":
		// The file does not say in which namespace the ServiceAccount is.
		return changeEach(o, func(subject map[string]any) bool {
			subject["namespace"] = kubeRayNamespace
			return true
		}, "subjects")
	}
	return nil
}

// keepStorageVersion drops the deprecated versions of a definition, which
// nobody uses here: each costs the API server of a starting cluster about a
// second of CPU and 50 MB.
func keepStorageVersion(definition *unstructured.Unstructured) error {
	return changeEach(definition, func(version map[string]any) bool {
		stored, _ := version["storage"].(bool)
		return stored
	}, "spec", "versions")
}

// changeEach calls change with the objects of a list and keeps those for which
// it returns true.
func changeEach(o *unstructured.Unstructured, change func(map[string]any) bool, path ...string) error {
	list, _, err := unstructured.NestedSlice(o.Object, path...)
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(item any) bool {
		object, ok := item.(map[string]any)
		return !ok || !change(object)
	})
	return unstructured.SetNestedSlice(o.Object, list, path...)
}

// accountToken is good for longer than any sandbox lives.
func (c *Cluster) accountToken(ctx context.Context, namespace, name string) (string, error) {
	const lifetime = 30 * 24 * time.Hour
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: new(int64(lifetime.Seconds())),
	}}
	response, err := c.client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, name, request, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("token of ServiceAccount %s/%s: %w", namespace, name, err)
	}
	return response.Status.Token, nil
}
