package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/source"
)

// reading is a matrix with what is needed to understand it.
type reading struct {
	matrix    *latency.Matrix
	groups    map[string]latency.NodeGroup // by node
	nodes     []string                     // all that there are, those without an agent too
	statistic latency.Statistic
	estimates *latency.Estimator
	// agents is how many there are, and answered how many of them were read; 0
	// for a recording.
	agents, answered int
	origin           string
}

// read reads the cluster, or the recording called file unless that is empty.
func (o *options) read(ctx context.Context, file string) (*reading, error) {
	if file != "" {
		return o.readRecorded(file)
	}
	c, err := o.find(ctx)
	if err != nil {
		return nil, err
	}
	args := c.anyArgs(ctx)
	r := &reading{
		statistic: latency.Statistic{TailWeight: args.Statistic.TailWeight, LossPenalty: args.Statistic.LossPenalty.Duration},
		origin:    "agents",
	}
	nodes, err := c.nodes(ctx)
	if err != nil {
		return nil, reasonOf(ctx, err)
	}
	for i := range nodes {
		r.nodes = append(r.nodes, nodes[i].Name)
	}
	r.groups = groupsOf(nodes, args.ProviderLabels)
	matrix, stats, err := o.readAgents(ctx, c)
	if err != nil {
		return nil, err
	}
	r.matrix, r.agents, r.answered = matrix, stats.Agents, stats.Answered
	r.estimate(args.StaleAfter.Duration)
	return r, nil
}

// readAgents reads the agents of c, and warns of those that did not answer.
func (o *options) readAgents(ctx context.Context, c *cluster) (*latency.Matrix, source.Stats, error) {
	defer o.progress("Reading the agents")()
	matrix, stats, err := c.readAgents(ctx, o.timeout)
	if err == nil && stats.Answered < stats.Agents {
		fmt.Fprintf(o.ErrOut, "warning: %d of %d agents did not answer: %v\n", stats.Agents-stats.Answered, stats.Agents, stats.Failures)
	}
	return matrix, stats, err
}

func (o *options) readRecorded(file string) (*reading, error) {
	recording, err := readFile(file)
	if err != nil {
		return nil, err
	}
	args := defaultArgs()
	r := &reading{
		matrix:    recording.Matrix(recording.At),
		groups:    recording.Groups,
		statistic: latency.Statistic{TailWeight: args.Statistic.TailWeight, LossPenalty: args.Statistic.LossPenalty.Duration},
		origin:    fmt.Sprintf("%s, recorded %s", file, recording.At.Format(time.RFC3339)),
	}
	named := make(map[string]bool)
	add := func(node string) {
		if !named[node] {
			named[node] = true
			r.nodes = append(r.nodes, node)
		}
	}
	for node := range recording.Groups {
		add(node)
	}
	for pair := range recording.Observed {
		add(pair.Node)
		add(pair.Peer)
	}
	r.estimate(args.StaleAfter.Duration)
	return r, nil
}

func (r *reading) estimate(staleAfter time.Duration) {
	r.estimates = latency.NewEstimator(r.matrix, r.statistic, staleAfter, r.groups, r.matrix.Taken())
}

// provider is that of a node, "-" where nothing says which.
func (r *reading) provider(node string) string {
	if p := r.groups[node].Provider; p != "" {
		return p
	}
	return "-"
}
