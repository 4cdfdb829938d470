package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"

	"github.com/netlatency/netlatency/test/sandbox/namespace"
)

// serviceNetwork holds addresses nobody answers: there is no kube-proxy.
var serviceNetwork = netip.MustParsePrefix("10.96.0.0/16")

// Port of the API server, which listens on all addresses of the control side.
const Port = 6443

// Options of a cluster.
type Options struct {
	// Dir is an empty or missing directory for data, credentials and logs
	// (Dir/logs). The caller removes it.
	Dir string
	// BinDir is where Build put the ControlPlane.
	BinDir string
	// Kubernetes is the minor version of the API server, the controller manager
	// and the default scheduler: one of OtherKubernetes, which Build must have
	// built, or "" for the version we link.
	Kubernetes string
	// Nodes to create; all of them are Ready when Start returns.
	Nodes []NodeSpec
	// KubeRay adds the KubeRay operator and the Ray dashboard, which needs the
	// control side of package namespace.
	KubeRay bool
	// Progress gets a line for each step; nil for none.
	Progress func(string)
}

// Cluster is a running cluster. Its methods may be called concurrently.
type Cluster struct {
	options     Options
	credentials *credentials
	config      *rest.Config
	client      kubernetes.Interface
	dynamic     dynamic.Interface
	mapper      *restmapper.DeferredDiscoveryRESTMapper

	// alive ends, with the reason as its cause, when the cluster is stopped or
	// one of its processes ends.
	alive context.Context
	end   context.CancelCauseFunc

	mu        sync.Mutex
	processes []*process // in the order of their start
	dashboard *dashboard
	stopOnce  sync.Once
}

var errStopped = errors.New("the cluster was stopped")

// Start starts a cluster and returns when its nodes are Ready and its
// controllers work. It stops by Stop or with ctx. On an error nothing is left
// running.
func Start(ctx context.Context, options Options) (*Cluster, error) {
	if options.Progress == nil {
		options.Progress = func(string) {}
	}
	if options.Kubernetes != "" {
		if _, err := KubernetesOf(options.Kubernetes); err != nil {
			return nil, err
		}
	}
	c := &Cluster{options: options}
	c.alive, c.end = context.WithCancelCause(ctx)
	if err := c.start(c.alive); err != nil {
		if cause := context.Cause(c.alive); cause != nil {
			err = cause // a process that crashed says more than a wait cut short
		}
		c.Stop()
		return nil, fmt.Errorf("start cluster: %w", err)
	}
	context.AfterFunc(ctx, c.Stop)
	return c, nil
}

func (c *Cluster) start(ctx context.Context) error {
	if err := os.MkdirAll(c.logDir(), 0o755); err != nil {
		return err
	}
	var err error
	first := serviceNetwork.Addr().Next() // the address of the Service "kubernetes"
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if c.credentials, err = newCredentials(filepath.Join(c.options.Dir, "credentials"), []netip.Addr{loopback, namespace.Control, first}); err != nil {
		return err
	}
	if err := c.connect(); err != nil {
		return err
	}
	if err := c.startAPIServer(ctx); err != nil {
		return err
	}
	if c.options.KubeRay {
		if err := c.defineRay(ctx); err != nil {
			return err
		}
	}
	if err := c.startControllers(ctx); err != nil {
		return err
	}
	if err := c.createNodes(ctx, c.options.Nodes); err != nil {
		return err
	}
	if c.options.KubeRay {
		if err := c.startKubeRay(ctx); err != nil {
			return err
		}
	}
	if err := c.waitNodesReady(ctx); err != nil {
		return err
	}
	return c.waitNamespaceUsable(ctx, metav1.NamespaceDefault)
}

// connect makes the clients; nothing is sent yet.
func (c *Cluster) connect() error {
	c.config = &rest.Config{
		Host:            c.URL(),
		BearerToken:     c.credentials.tokens[userAdmin],
		TLSClientConfig: rest.TLSClientConfig{CAData: c.credentials.ca},
		UserAgent:       "netlatency-sandbox",
		// A burst of a hundred pods must not wait for its own client.
		QPS:   1000,
		Burst: 2000,
	}
	// Typed objects travel as protobuf: a burst is watched by the program that
	// also measures it.
	typed := rest.CopyConfig(c.config)
	typed.ContentType = "application/vnd.kubernetes.protobuf"
	typed.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	client, err := kubernetes.NewForConfig(typed)
	if err != nil {
		return err
	}
	c.client = client
	if c.dynamic, err = dynamic.NewForConfig(c.config); err != nil {
		return err
	}
	c.mapper = restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery()))
	return nil
}

// Stop ends every process and waits for it; what depends on another goes
// first. Further calls wait for the first and do nothing.
func (c *Cluster) Stop() {
	c.stopOnce.Do(func() {
		c.end(errStopped)
		c.mu.Lock()
		processes, dashboard := c.processes, c.dashboard
		c.processes, c.dashboard = nil, nil
		c.mu.Unlock()
		for _, p := range slices.Backward(processes) {
			p.stop()
		}
		if dashboard != nil {
			dashboard.stop()
		}
	})
}

// Done is closed when the cluster no longer runs as a whole; Err says why.
func (c *Cluster) Done() <-chan struct{} { return c.alive.Done() }

// Err is nil while the cluster runs. When one of its processes ended by itself
// it holds the last lines of that one's log.
func (c *Cluster) Err() error { return context.Cause(c.alive) }

// Config returns a new configuration for a client that may do everything.
func (c *Cluster) Config() *rest.Config { return rest.CopyConfig(c.config) }

// Client is a client that may do everything.
func (c *Cluster) Client() kubernetes.Interface { return c.client }

// Dynamic is a client for objects of any kind that may do everything.
func (c *Cluster) Dynamic() dynamic.Interface { return c.dynamic }

// URL of the API server, as seen from inside the sandbox.
func (c *Cluster) URL() string {
	return "https://" + net.JoinHostPort(namespace.Control.String(), strconv.Itoa(Port))
}

// WriteKubeconfig writes an administrator's kubeconfig. server is URL(), or
// what is forwarded to it; the certificate also holds for 127.0.0.1.
func (c *Cluster) WriteKubeconfig(path, server string) error {
	return c.credentials.writeKubeconfig(path, server, userAdmin, c.credentials.tokens[userAdmin])
}

// CreateNamespace creates a namespace, or updates its labels, and waits until
// pods can be created in it.
func (c *Cluster) CreateNamespace(ctx context.Context, name string, labels map[string]string) error {
	namespace := &corev1.Namespace{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels},
	}
	if err := c.ApplyObjects(ctx, namespace); err != nil {
		return err
	}
	return c.waitNamespaceUsable(ctx, name)
}

// waitNamespaceUsable waits for what the controllers put into a namespace
// and pods cannot start without.
func (c *Cluster) waitNamespaceUsable(ctx context.Context, name string) error {
	return c.poll(ctx, "namespace "+name, func(ctx context.Context) string {
		if _, err := c.client.CoreV1().ServiceAccounts(name).Get(ctx, "default", metav1.GetOptions{}); err != nil {
			return fmt.Sprintf("no ServiceAccount default: %v", err)
		}
		if _, err := c.client.CoreV1().ConfigMaps(name).Get(ctx, "kube-root-ca.crt", metav1.GetOptions{}); err != nil {
			return fmt.Sprintf("no ConfigMap kube-root-ca.crt: %v", err)
		}
		return ""
	})
}

// run starts a process that belongs to the cluster: when it ends by itself,
// so does the cluster. It finds its name in argv[0], by which the Kubernetes
// binary knows which of its programs to be.
func (c *Cluster) run(name string, env []string, binary Binary, args ...string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.Err(); err != nil {
		return err
	}
	p, err := startProcess(name, c.logDir(), filepath.Join(c.options.BinDir, binary.Name), args, env, func(err error) { c.end(err) })
	if err != nil {
		return err
	}
	c.processes = append(c.processes, p)
	return nil
}

func (c *Cluster) logDir() string { return filepath.Join(c.options.Dir, "logs") }

func (c *Cluster) progress(started time.Time, what string) {
	c.options.Progress(fmt.Sprintf("%s (%.1f s)", what, time.Since(started).Seconds()))
}
