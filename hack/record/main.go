// Command record writes the latency matrix of a cluster to a file, which the
// scheduler's source.file, tests and simulations read. It reads the agents
// through the API server, as kubectl would, or a Prometheus that records the
// chart's rules.
//
// usage: go run ./hack/record -o matrix.jsonl.gz [-prometheus http://localhost:9090]
package main

import (
	"compress/gzip"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	configv1 "github.com/netlatency/netlatency/apis/config/v1"
	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/source"
)

type options struct {
	output, kubeconfig, kubeContext string
	namespace, service, port        string
	prometheus, tokenFile, tenant   string
	timeout                         time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.output, "o", "", "file to write, packed by gzip if its name ends in .gz; - is standard output")
	flag.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig file; the default is kubectl's")
	flag.StringVar(&o.kubeContext, "context", "", "context in it; the default is the current one")
	flag.StringVar(&o.namespace, "namespace", configv1.DefaultAgentsNamespace, "namespace of the agents")
	flag.StringVar(&o.service, "service", configv1.DefaultAgentsService, "their headless Service")
	flag.StringVar(&o.port, "port", configv1.DefaultAgentsPort, "name of its port that serves /matrix")
	flag.StringVar(&o.prometheus, "prometheus", "", "URL of a server with the API of Prometheus to ask instead of the agents")
	flag.StringVar(&o.tokenFile, "prometheus-token-file", "", "file with a bearer token for it")
	flag.StringVar(&o.tenant, "prometheus-tenant", "", "X-Scope-OrgID for it")
	flag.DurationVar(&o.timeout, "timeout", 30*time.Second, "how long all may take")
	klog.InitFlags(nil)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "record:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, notes io.Writer) error {
	if o.output == "" {
		return errors.New("-o is not set: name the file to write, or - for standard output")
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	client, config, err := connect(o)
	if err != nil && o.prometheus == "" {
		return err
	}
	var (
		matrix *latency.Matrix
		origin string
	)
	if o.prometheus != "" {
		origin = "prometheus"
		matrix, err = askPrometheus(ctx, o)
	} else {
		origin = "agents"
		matrix, err = readAgents(ctx, o, client, config)
	}
	if err != nil {
		return err
	}
	groups, err := nodeGroups(ctx, client)
	if err != nil {
		fmt.Fprintln(notes, "The nodes' groups are left out:", err)
	}
	if err := write(o.output, matrix, groups, origin); err != nil {
		return err
	}
	fmt.Fprintf(notes, "Recorded %d pairs of nodes, and the groups of %d nodes, in %s.\n", matrix.Pairs(), len(groups), o.output)
	return nil
}

func connect(o options) (kubernetes.Interface, *rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = o.kubeconfig
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: o.kubeContext}).ClientConfig()
	if err != nil {
		return nil, nil, fmt.Errorf("find the cluster: %w", err)
	}
	config.UserAgent = "netlatency-record"
	config.QPS, config.Burst = -1, -1 // one request an agent, through the transport alone
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, nil, fmt.Errorf("make a client of the cluster: %w", err)
	}
	return client, config, nil
}

// first runs a source until its first matrix.
func first(ctx context.Context, open func(publish func(*latency.Matrix)) (runner, error)) (*latency.Matrix, source.Stats, error) {
	ctx, cancel := context.WithCancel(klog.NewContext(ctx, klog.Background()))
	defer cancel()
	matrices := make(chan *latency.Matrix, 1)
	s, err := open(func(m *latency.Matrix) {
		select {
		case matrices <- m:
			cancel()
		default:
		}
	})
	if err != nil {
		return nil, source.Stats{}, err
	}
	s.Run(ctx)
	select {
	case m := <-matrices:
		return m, s.Stats(), nil
	default:
		return nil, source.Stats{}, errors.New("there was no answer in time; -timeout gives more")
	}
}

type runner interface {
	Run(context.Context)
	Stats() source.Stats
}

// everyPeer is what the peers in the default queries are for a recording: it
// is made once, and by a person.
const everyPeer = ".+"

func askPrometheus(ctx context.Context, o options) (*latency.Matrix, error) {
	q := configv1.DefaultPrometheusQueries()
	for _, query := range []*string{&q.Mean, &q.P50, &q.P90, &q.P99, &q.Samples, &q.Sent, &q.Loss, &q.Timestamp} {
		*query = strings.ReplaceAll(*query, source.PeersVariable, everyPeer)
	}
	headers := map[string]string{}
	if o.tenant != "" {
		headers["X-Scope-OrgID"] = o.tenant
	}
	matrix, stats, err := first(ctx, func(publish func(*latency.Matrix)) (runner, error) {
		return source.NewPrometheus(source.PrometheusOptions{
			Address: o.prometheus, Headers: headers, BearerTokenFile: o.tokenFile,
			Interval: o.timeout, Timeout: o.timeout, MaxBytes: 1 << 30, Queries: source.PrometheusQueries(q),
			NodeLabel: "node", PeerLabel: "peer", Scale: 1, StaleAfter: o.timeout + recordedAge, Publish: publish,
		})
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("ask Prometheus at %s: %w", o.prometheus, err)
	case stats.LastSuccess.IsZero():
		return nil, fmt.Errorf("Prometheus at %s could not be asked: %v; more is said above", o.prometheus, stats.Failures)
	case matrix.Pairs() == 0:
		return nil, fmt.Errorf("Prometheus at %s knows no pair of nodes: does it scrape the agents and evaluate manifests/chart/netlatency/files/rules.yaml?", o.prometheus)
	}
	return matrix, nil
}

// recordedAge is how old a pair may be to be recorded: older than any scheduler
// uses, for who looks for what went wrong.
const recordedAge = time.Hour

func write(name string, matrix *latency.Matrix, groups map[string]latency.NodeGroup, origin string) (err error) {
	out := os.Stdout
	if name != "-" {
		if out, err = os.Create(name); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, out.Close()) }()
	}
	if !strings.HasSuffix(name, ".gz") {
		return source.Record(out, matrix, groups, origin, matrix.Taken())
	}
	packed := gzip.NewWriter(out)
	return errors.Join(source.Record(packed, matrix, groups, origin, matrix.Taken()), packed.Close())
}
