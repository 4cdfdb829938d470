package cluster

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/netlatency/netlatency/test/sandbox/namespace"
)

// startAPIServer starts etcd and the API server and waits for /readyz.
func (c *Cluster) startAPIServer(ctx context.Context) error {
	started := time.Now()
	etcd, err := freeAddress()
	if err != nil {
		return err
	}
	if err := c.run("etcd", nil, Kubernetes,
		"--data-dir="+filepath.Join(c.options.Dir, "etcd"),
		"--listen-client-urls=http://"+etcd,
		"--advertise-client-urls=http://"+etcd,
		"--listen-peer-urls=http://127.0.0.1:0",
		// The data is thrown away with the sandbox: fsync would only tie its
		// speed to the disk.
		"--unsafe-no-fsync",
		"--log-level=warn",
	); err != nil {
		return err
	}
	// The API server waits for etcd itself.
	if err := c.run("kube-apiserver", nil, c.kubernetes("kube-apiserver"), c.apiServerFlags(etcd)...); err != nil {
		return err
	}
	if err := c.waitReadyz(ctx); err != nil {
		return err
	}
	c.progress(started, "API server ready")
	return nil
}

func (c *Cluster) apiServerFlags(etcd string) []string {
	file := c.credentials.file
	return []string{
		"--etcd-servers=http://" + etcd,
		"--bind-address=0.0.0.0",
		"--advertise-address=" + namespace.Control.String(),
		fmt.Sprintf("--secure-port=%d", Port),
		"--service-cluster-ip-range=" + serviceNetwork.String(),
		"--tls-cert-file=" + file("apiserver.crt"),
		"--tls-private-key-file=" + file("apiserver.key"),
		"--token-auth-file=" + file("tokens.csv"),
		"--authorization-mode=RBAC",
		// Client and front proxy CAs are what the API server publishes as
		// kube-system/extension-apiserver-authentication, which a scheduler
		// reads to authenticate those who scrape it.
		"--client-ca-file=" + file("ca.crt"),
		"--requestheader-client-ca-file=" + file("ca.crt"),
		"--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file=" + file("front-proxy.crt"),
		"--proxy-client-key-file=" + file("front-proxy.key"),
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + file("service-accounts.key"),
		"--service-account-signing-key-file=" + file("service-accounts.key"),
		"--profiling=false",
	}
}

// controllers are those a cluster without volumes, clouds and real kubelets
// has work for; each of the others would cost memory and watches.
var controllers = []string{
	"clusterrole-aggregation-controller",
	"daemonset-controller",
	"deployment-controller",
	"disruption-controller",
	"endpoints-controller", // the API server proxies to Services by Endpoints
	"endpointslice-controller",
	"garbage-collector-controller",
	"job-controller",
	"namespace-controller",
	"node-lifecycle-controller",
	"pod-garbage-collector-controller",
	"replicaset-controller",
	"root-ca-certificate-publisher-controller",
	"serviceaccount-controller",
	"statefulset-controller",
	"taint-eviction-controller",
}

// kubernetes is the binary of a program whose version the options choose.
func (c *Cluster) kubernetes(program string) Binary {
	if c.options.Kubernetes == "" {
		return Kubernetes
	}
	return kubernetesOf(c.options.Kubernetes, program)
}

// startControllers starts the controller manager, the default scheduler and
// kwok. What they do is waited for later, by those who need it.
func (c *Cluster) startControllers(ctx context.Context) error {
	admin, scheduler := c.credentials.file("admin.kubeconfig"), c.credentials.file("scheduler.kubeconfig")
	if err := c.WriteKubeconfig(admin, c.URL()); err != nil {
		return err
	}
	if err := c.credentials.writeKubeconfig(scheduler, c.URL(), userScheduler, c.credentials.tokens[userScheduler]); err != nil {
		return err
	}
	stages, err := c.writeKwokStages(ctx)
	if err != nil {
		return err
	}

	if err := c.run("kube-controller-manager", nil, c.kubernetes("kube-controller-manager"),
		"--kubeconfig="+admin,
		"--controllers="+strings.Join(controllers, ","),
		"--service-account-private-key-file="+c.credentials.file("service-accounts.key"),
		"--root-ca-file="+c.credentials.file("ca.crt"),
		"--leader-elect=false",
		"--kube-api-qps=500",
		"--kube-api-burst=1000",
		// Nobody renews node leases here. A node is down when its Ready
		// condition says so, not when a heartbeat is late on a busy machine.
		"--node-monitor-grace-period=24h",
		"--secure-port=0",
		"--profiling=false",
	); err != nil {
		return err
	}
	// The default scheduler is the yardstick: nothing of it is tuned.
	if err := c.run("kube-scheduler", nil, c.kubernetes("kube-scheduler"),
		"--kubeconfig="+scheduler,
		"--leader-elect=false",
		"--secure-port=0",
		"--profiling=false",
	); err != nil {
		return err
	}
	return c.run("kwok", nil, Kwok,
		"--kubeconfig="+admin,
		"--config="+stages,
		"--manage-all-nodes",
		"--cidr="+namespace.Pods.String(),
		"--node-lease-duration-seconds=0",
		"--node-port=0",
	)
}

// waitReadyz waits for the API server without authenticating: the bootstrap
// policy is written while it becomes ready.
func (c *Cluster) waitReadyz(ctx context.Context) error {
	client := &http.Client{
		Timeout: time.Second,
		// Nothing is sent that must stay secret, and all later clients verify.
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}, //nolint:gosec // see above
	}
	defer client.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	return c.poll(ctx, "the API server", func(ctx context.Context) string {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL()+"/readyz", nil)
		if err != nil {
			return err.Error()
		}
		response, err := client.Do(request)
		if err != nil {
			return err.Error()
		}
		defer func() { _ = response.Body.Close() }()
		body, _ := io.ReadAll(io.LimitReader(response.Body, 4096))
		if response.StatusCode != http.StatusOK {
			return fmt.Sprintf("%s: %s", response.Status, body)
		}
		return ""
	})
}

// freeAddress finds a port on the loopback for a server that cannot be handed
// a listener.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String(), nil
}
