package kubelet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/kubernetes/pkg/api/v1/resource"
	"k8s.io/kubernetes/pkg/fieldpath"
	"k8s.io/kubernetes/third_party/forked/golang/expansion"
)

// searchPath is the PATH of an image that sets none, as container runtimes
// have it.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environment reads a pod's values where its manifest says they are.
type environment struct {
	client  kubernetes.Interface
	pod     *v1.Pod
	address netip.Addr
	// apiServer is where pods find the API server: host and port.
	apiServer [2]string
}

// variables are the container's environment in the order in which they are
// defined, each "name=value", and by name.
func (e environment) variables(ctx context.Context, c *v1.Container) ([]string, map[string]string, error) {
	var list []string
	byName := map[string]string{}
	define := func(name, value string) {
		byName[name] = value
		list = append(list, name+"="+value)
	}
	define("PATH", searchPath)
	define("HOSTNAME", e.pod.Name)
	define("KUBERNETES_SERVICE_HOST", e.apiServer[0])
	define("KUBERNETES_SERVICE_PORT", e.apiServer[1])
	define("KUBERNETES_SERVICE_PORT_HTTPS", e.apiServer[1])
	for _, variable := range c.Env {
		value := expansion.Expand(variable.Value, expansion.MappingFuncFor(byName))
		if variable.ValueFrom != nil {
			var (
				found bool
				err   error
			)
			value, found, err = e.from(ctx, c, variable.ValueFrom)
			if err != nil {
				return nil, nil, fmt.Errorf("environment variable %s: %w", variable.Name, err)
			}
			if !found {
				continue
			}
		}
		define(variable.Name, value)
	}
	return list, byName, nil
}

// command is the container's program and arguments, with $(NAME) replaced.
func command(c *v1.Container, entrypoint string, variables map[string]string) []string {
	words := []string{entrypoint}
	if len(c.Command) > 0 {
		words = c.Command
	}
	expanded := make([]string, 0, len(words)+len(c.Args))
	for _, list := range [][]string{words, c.Args} {
		for _, word := range list {
			expanded = append(expanded, expansion.Expand(word, expansion.MappingFuncFor(variables)))
		}
	}
	return expanded
}

// from is the value of a variable that is found elsewhere; found is false for
// an optional one that is not there.
func (e environment) from(ctx context.Context, c *v1.Container, source *v1.EnvVarSource) (value string, found bool, err error) {
	switch {
	case source.FieldRef != nil:
		value, err = e.field(source.FieldRef.FieldPath)
		return value, true, err
	case source.ResourceFieldRef != nil:
		value, err = e.resource(ctx, c, source.ResourceFieldRef)
		return value, true, err
	case source.ConfigMapKeyRef != nil:
		ref := source.ConfigMapKeyRef
		files, err := e.configMap(ctx, ref.Name, ref.Optional)
		if err != nil {
			return "", false, err
		}
		return pick(files, "ConfigMap", ref.Name, ref.Key, ref.Optional)
	case source.SecretKeyRef != nil:
		ref := source.SecretKeyRef
		files, err := e.secret(ctx, ref.Name, ref.Optional)
		if err != nil {
			return "", false, err
		}
		return pick(files, "Secret", ref.Name, ref.Key, ref.Optional)
	default:
		return "", false, errors.New("valueFrom needs fieldRef, resourceFieldRef, configMapKeyRef or secretKeyRef")
	}
}

func pick(files map[string][]byte, kind, name, key string, optional *bool) (string, bool, error) {
	content, found := files[key]
	if !found && !isTrue(optional) {
		return "", false, fmt.Errorf("couldn't find key %s in %s %s", key, kind, name)
	}
	return string(content), found, nil
}

// field is the downward API's value of a field path. A pod's address is its
// node's.
func (e environment) field(path string) (string, error) {
	switch path {
	case "spec.nodeName":
		return e.pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return e.pod.Spec.ServiceAccountName, nil
	case "status.podIP", "status.podIPs", "status.hostIP", "status.hostIPs":
		return e.address.String(), nil
	}
	return fieldpath.ExtractFieldPathAsString(e.pod, path)
}

// resource is a container's request or limit; a limit that is not set is what
// the node has, as in Kubernetes.
func (e environment) resource(ctx context.Context, c *v1.Container, ref *v1.ResourceFieldSelector) (string, error) {
	node, err := e.client.CoreV1().Nodes().Get(ctx, e.pod.Spec.NodeName, metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("node's allocatable resources: %w", err)
	}
	name := ref.ContainerName
	if name == "" {
		name = c.Name
	}
	return resource.ExtractResourceValueByContainerNameAndNodeAllocatable(ref, e.pod, name, node.Status.Allocatable)
}

// configMap is a ConfigMap's content, nil when it is optional and missing.
func (e environment) configMap(ctx context.Context, name string, optional *bool) (map[string][]byte, error) {
	object, err := e.client.CoreV1().ConfigMaps(e.pod.Namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) && isTrue(optional) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for key, content := range object.Data {
		files[key] = []byte(content)
	}
	maps.Copy(files, object.BinaryData)
	return files, nil
}

// secret is a Secret's content, nil when it is optional and missing.
func (e environment) secret(ctx context.Context, name string, optional *bool) (map[string][]byte, error) {
	object, err := e.client.CoreV1().Secrets(e.pod.Namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) && isTrue(optional) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return object.Data, nil
}

func isTrue(b *bool) bool { return b != nil && *b }
