package cli

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/simulation"
)

// sceneOptions say what a search for a place is made in: by default, the
// cluster as it is, with the matrix and the scheduler that it has.
type sceneOptions struct {
	*options
	matrix    string   // a recording instead of the agents
	scheduler string   // a file instead of the installed configuration
	profile   string   // instead of the one that the pod names
	changes   []string // of latencies
}

func (o *sceneOptions) addFlags(command *cobra.Command) {
	flags := command.Flags()
	flags.StringVar(&o.matrix, "matrix", "", "A file that record wrote, instead of asking the agents.")
	flags.StringVar(&o.scheduler, "scheduler-config", "", "A file with a KubeSchedulerConfiguration, instead of the installed one: to try it out.")
	flags.StringVar(&o.profile, "profile", "", "The schedulerName of the profile; by default the pod's own.")
	flags.StringArrayVar(&o.changes, "set", nil, "What if: the latency between two providers or nodes, as in hetzner:gthost=12ms. May be given again.")
}

// facts are what is known of a cluster before anything is searched for.
type facts struct {
	*cluster
	profiles []profile
	matrix   *latency.Matrix
	nodes    []corev1.Node
}

// gather reads the cluster.
func (o *sceneOptions) gather(ctx context.Context) (*facts, error) {
	f := &facts{}
	var err error
	if o.matrix != "" && o.scheduler != "" {
		f.cluster, err = o.connect() // nothing of ours need be installed
	} else {
		f.cluster, err = o.find(ctx)
	}
	if err != nil {
		return nil, err
	}
	if o.scheduler != "" {
		text, err := os.ReadFile(o.scheduler)
		if err != nil {
			return nil, err
		}
		if f.profiles, err = decodeProfiles(text); err != nil {
			return nil, fmt.Errorf("%s: %w", o.scheduler, err)
		}
	} else if f.profiles, err = f.cluster.profiles(ctx); err != nil {
		return nil, reasonOf(ctx, err)
	}
	if f.nodes, err = f.cluster.nodes(ctx); err != nil {
		return nil, reasonOf(ctx, err)
	}
	if o.matrix != "" {
		recording, err := readFile(o.matrix)
		if err != nil {
			return nil, err
		}
		f.matrix = recording.Matrix(time.Now())
		return f, nil
	}
	f.matrix, _, err = o.readAgents(ctx, f.cluster)
	return f, err
}

// profileFor is the profile that places a pod of that schedulerName, or the
// one that --profile names; what says whose name it is.
func (o *sceneOptions) profileFor(f *facts, schedulerName, what string) (profile, error) {
	if o.profile != "" {
		return profileOf(f.profiles, o.profile)
	}
	p, err := profileOf(f.profiles, schedulerName)
	if err != nil {
		name := f.profiles[0].SchedulerName
		return p, fmt.Errorf("%s has schedulerName %s, which is not netlatency's: write schedulerName: %s, or see what that would do with --profile %s", what, schedulerName, name, name)
	}
	return p, nil
}

// open prepares searches with a profile over the cluster as it is now.
func (o *sceneOptions) open(ctx context.Context, f *facts, p profile, changes []change) (*simulation.Scheduler, error) {
	defer o.progress("Reading the pods and nodes of the cluster")()
	s, err := simulation.New(ctx, f.client, p.KubeSchedulerProfile.DeepCopy(), f.changed(changes, p))
	if err != nil {
		return nil, reasonOf(ctx, err)
	}
	return s, nil
}

// providers are the providers of nodes as profile p sees them.
func (f *facts) providers(p profile) map[string]string {
	groups := groupsOf(f.nodes, p.args.ProviderLabels)
	providers := make(map[string]string, len(f.nodes))
	for i := range f.nodes {
		name := f.nodes[i].Name
		providers[name] = groups[name].Provider
	}
	return providers
}

// change is a latency that is to be different: between all nodes of two
// providers, or two nodes, in both directions.
type change struct {
	from, to string
	rtt      time.Duration
}

// maxChange is a latency that nobody means.
const maxChange = time.Minute

func parseChange(text string) (change, error) {
	fail := func(why string) (change, error) {
		return change{}, fmt.Errorf("--set %q: %s; want FROM:TO=LATENCY, each of them a provider or a node, as in hetzner:gthost=12ms", text, why)
	}
	pair, value, ok := strings.Cut(text, "=")
	if !ok {
		return fail("there is no =")
	}
	from, to, ok := strings.Cut(pair, ":")
	if !ok || from == "" || to == "" {
		return fail("there are no two places before the =")
	}
	rtt, err := time.ParseDuration(value)
	if err != nil {
		return fail(fmt.Sprintf("%q is no duration", value))
	}
	if rtt <= 0 || rtt > maxChange {
		return fail(fmt.Sprintf("%v is not above 0 and at most %v", rtt, maxChange))
	}
	return change{from, to, rtt}, nil
}

// parseChanges reads those of the flag, whose places must be among the nodes
// and their providers.
func (o *sceneOptions) parseChanges(f *facts, p profile) ([]change, error) {
	providers := f.providers(p)
	known := make(map[string]bool)
	for node, provider := range providers {
		known[node], known[provider] = true, true
	}
	delete(known, "")
	var changes []change
	for _, text := range o.changes {
		c, err := parseChange(text)
		if err != nil {
			return nil, err
		}
		for _, place := range []string{c.from, c.to} {
			if !known[place] {
				return nil, fmt.Errorf("--set %q: there is no provider and no node %q; there are %s", text, place, someOf(known))
			}
		}
		changes = append(changes, c)
	}
	return changes, nil
}

// someOf names a few of what there is.
func someOf(known map[string]bool) string {
	var names []string
	for name := range known {
		names = append(names, name)
	}
	slices.Sort(names)
	if most := 12; len(names) > most {
		names = append(names[:most], "…")
	}
	return strings.Join(names, ", ")
}

// changed is the matrix with the changes made, each as if it had been measured
// as often as anything could be.
func (f *facts) changed(changes []change, p profile) *latency.Matrix {
	if len(changes) == 0 {
		return f.matrix
	}
	observed := make(map[latency.Pair]latency.Distribution, f.matrix.Pairs())
	maps.Insert(observed, f.matrix.All())
	providers := f.providers(p)
	is := func(node, place string) bool { return node == place || providers[node] == place }
	now := time.Now()
	for _, c := range changes {
		d := latency.Distribution{Mean: c.rtt, P50: c.rtt, P90: c.rtt, P99: c.rtt, Min: c.rtt, Samples: 1000, Sent: 1000, Newest: now}
		for node := range providers {
			for peer := range providers {
				if node != peer && (is(node, c.from) && is(peer, c.to) || is(node, c.to) && is(peer, c.from)) {
					observed[latency.Pair{Node: node, Peer: peer}] = d
				}
			}
		}
	}
	return latency.NewMatrix(now, observed)
}
