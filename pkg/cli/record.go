package cli

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	configv1 "github.com/netlatency/netlatency/apis/config/v1"
	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/source"
)

// recordOptions is of "record".
type recordOptions struct {
	*options
	output                        string
	prometheus, tokenFile, tenant string
}

func newRecordCommand(shared *options) *cobra.Command {
	o := &recordOptions{options: shared}
	command := &cobra.Command{
		Use:   "record -o FILE",
		Short: "Save the matrix to a file",
		Long: `Saves the latency matrix of the cluster, with what groups its nodes, to a file.
"matrix --matrix FILE" shows it, the scheduler's source.file uses it, and it
belongs to a report of a bug. It is read from the agents, or from a Prometheus
that records the chart's rules.`,
		Example: `  kubectl netlatency record -o matrix.jsonl.gz
  kubectl netlatency record -o matrix.jsonl.gz --prometheus http://localhost:9090`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			ctx, cancel := o.within(command)
			defer cancel()
			return o.run(ctx)
		},
	}
	flags := command.Flags()
	flags.StringVarP(&o.output, "output", "o", "", "File to write, packed by gzip if its name ends in .gz; - is standard output.")
	flags.StringVar(&o.prometheus, "prometheus", "", "URL of a server with the API of Prometheus to ask instead of the agents.")
	flags.StringVar(&o.tokenFile, "prometheus-token-file", "", "File with a bearer token for it.")
	flags.StringVar(&o.tenant, "prometheus-tenant", "", "X-Scope-OrgID for it.")
	return command
}

func (o *recordOptions) run(ctx context.Context) error {
	if o.output == "" {
		return errors.New("--output is not set: name the file to write, or - for standard output")
	}
	c, err := o.find(ctx)
	if err != nil && o.prometheus == "" {
		return err
	}
	if err != nil { // a recording without netlatency in the cluster, or without a cluster
		c, _ = o.connect()
	}
	var matrix *latency.Matrix
	origin := "agents"
	if o.prometheus == "" {
		matrix, _, err = o.readAgents(ctx, c)
	} else {
		origin = "prometheus"
		matrix, err = o.askPrometheus(ctx)
	}
	if err != nil {
		return err
	}
	groups := map[string]latency.NodeGroup{}
	if c != nil {
		nodes, err := c.nodes(ctx)
		if err != nil {
			fmt.Fprintln(o.ErrOut, "The nodes' groups are left out:", err)
		}
		groups = groupsOf(nodes, c.anyArgs(ctx).ProviderLabels)
	}
	if err := o.write(matrix, groups, origin); err != nil {
		return err
	}
	fmt.Fprintf(o.ErrOut, "Recorded %d pairs of nodes, and the groups of %d nodes, in %s.\n", matrix.Pairs(), len(groups), o.output)
	return nil
}

// everyPeer is what the peers in the default queries are for a recording: it
// is made once, and by a person.
const everyPeer = ".+"

func (o *recordOptions) askPrometheus(ctx context.Context) (*latency.Matrix, error) {
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
			NodeLabel: "node", PeerLabel: "peer", Scale: 1, StaleAfter: o.timeout + oldest, Publish: publish,
		})
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("ask Prometheus at %s: %w", o.prometheus, reasonOf(ctx, err))
	case stats.LastSuccess.IsZero():
		return nil, fmt.Errorf("Prometheus at %s could not be asked: %v; more is said above", o.prometheus, stats.Failures)
	case matrix.Pairs() == 0:
		return nil, fmt.Errorf("Prometheus at %s knows no pair of nodes: does it scrape the agents and evaluate the chart's files/rules.yaml?", o.prometheus)
	}
	return matrix, nil
}

func (o *recordOptions) write(matrix *latency.Matrix, groups map[string]latency.NodeGroup, origin string) (err error) {
	out := o.Out
	if o.output != "-" {
		var file *os.File
		if file, err = os.Create(o.output); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		out = file
	}
	if !strings.HasSuffix(o.output, ".gz") {
		return source.Record(out, matrix, groups, origin, matrix.Taken())
	}
	packed := gzip.NewWriter(out)
	return errors.Join(source.Record(packed, matrix, groups, origin, matrix.Taken()), packed.Close())
}

// readFile reads a recording.
func readFile(path string) (*source.Recording, error) {
	var in io.ReadCloser = os.Stdin
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		in = file
	}
	defer func() { _ = in.Close() }()
	recording, err := source.ReadRecording(in)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return recording, nil
}
