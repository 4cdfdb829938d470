package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/utils/clock"

	"github.com/netlatency/netlatency/apis/config"
	"github.com/netlatency/netlatency/pkg/placement"
	"github.com/netlatency/netlatency/pkg/simulation"
	"github.com/netlatency/netlatency/pkg/target"
)

// targetsOptions is of "targets".
type targetsOptions struct {
	*options
	output, profile string
}

func newTargetsCommand(shared *options) *cobra.Command {
	o := &targetsOptions{options: shared}
	command := &cobra.Command{
		Use:   "targets",
		Short: "What pods want to be near, and where it runs",
		Long: `Shows the targets of a scheduler profile, what each chooses, and on which nodes
that runs now: the nodes that pods are put near.`,
		Example: `  kubectl netlatency targets
  kubectl netlatency targets -o wide   # with the nodes`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			ctx, cancel := o.within(command)
			defer cancel()
			return o.run(ctx)
		},
	}
	flags := command.Flags()
	flags.StringVarP(&o.output, "output", "o", outputTable, "table, wide (with the nodes), json or yaml.")
	flags.StringVar(&o.profile, "profile", "", "The schedulerName of the profile; by default the first.")
	_ = command.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(outputs, cobra.ShellCompDirectiveNoFileComp))
	return command
}

// targetReport is a target as -o json and yaml have it.
type targetReport struct {
	Name        string `json:"name"`
	Kind        string `json:"kind"`
	Chooses     string `json:"chooses"`
	Weight      int32  `json:"weight"`
	Aggregation string `json:"aggregation"`
	// TrafficDistribution is that of the Service, if it keeps traffic near.
	TrafficDistribution string          `json:"traffic_distribution,omitempty"`
	MaxRTT              string          `json:"max_rtt,omitempty"`
	PerPod              bool            `json:"differs_per_pod,omitempty"`
	Replicas            int             `json:"replicas"`
	Nodes               []targetOnNode  `json:"nodes"`
	Providers           []providerCount `json:"providers"`
}

type targetOnNode struct {
	Node     string `json:"node"`
	Provider string `json:"provider,omitempty"`
	Replicas int    `json:"replicas"`
}

type providerCount struct {
	Provider string `json:"provider"`
	Replicas int    `json:"replicas"`
}

func (o *targetsOptions) run(ctx context.Context) error {
	if err := oneOf("--output", o.output, outputs); err != nil {
		return err
	}
	c, err := o.find(ctx)
	if err != nil {
		return err
	}
	return o.show(ctx, c)
}

func (o *targetsOptions) show(ctx context.Context, c *cluster) error {
	profiles, err := c.profiles(ctx)
	if err != nil {
		return reasonOf(ctx, err)
	}
	p, err := profileOf(profiles, o.profile)
	if err != nil {
		return err
	}
	reports, err := c.targets(ctx, p.args)
	if err != nil {
		return err
	}
	if o.output == outputJSON || o.output == outputYAML {
		return o.print(o.output, map[string]any{"profile": p.SchedulerName, "targets": reports})
	}
	t := table{{{text: "NAME"}, {text: "KIND"}, {text: "CHOOSES"}, {text: "WEIGHT", right: true}, {text: "MAXRTT", right: true}, {text: "REPLICAS", right: true}, {text: "NODES", right: true}, {text: "PROVIDERS"}}}
	if o.output == outputWide {
		t[0] = append(t[0], field{text: "WHERE"})
	}
	for _, r := range reports {
		replicas, nodes := strconv.Itoa(r.Replicas), strconv.Itoa(len(r.Nodes))
		if r.PerPod {
			replicas, nodes = "per pod", "-"
		}
		row := []field{
			{text: r.Name}, {text: r.Kind}, {text: r.Chooses}, {text: strconv.Itoa(int(r.Weight)), right: true}, {text: cmp.Or(r.MaxRTT, "-"), right: true},
			{text: replicas, right: true}, {text: nodes, right: true}, {text: cmp.Or(providersOf(r), "-")},
		}
		if o.output == outputWide {
			row = append(row, field{text: cmp.Or(nodesOf(r), "-")})
		}
		t = append(t, row)
	}
	if err := t.write(o.Out, painter{}); err != nil {
		return err
	}
	for _, r := range reports {
		if r.Replicas == 0 && !r.PerPod {
			fmt.Fprintf(o.ErrOut, "\nwarning: target %s runs nowhere: it is left out of every pod's cost until it does. Is what it chooses right, and ready?\n", r.Name)
		}
	}
	return nil
}

// targets finds where the targets of a profile run, by the same index that the
// scheduler has.
func (c *cluster) targets(ctx context.Context, args *config.NetLatencyArgs) ([]targetReport, error) {
	nodes, err := c.nodes(ctx)
	if err != nil {
		return nil, reasonOf(ctx, err)
	}
	groups := groupsOf(nodes, args.ProviderLabels)
	factory := informers.NewSharedInformerFactory(c.client, 0)
	index, err := target.NewIndex(args.Targets, factory, c.client, clock.RealClock{})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	factory.StartWithContext(ctx)
	defer factory.Shutdown()
	defer cancel() // before Shutdown, which waits
	for kind, synced := range factory.WaitForCacheSync(ctx.Done()) {
		if !synced {
			return nil, fmt.Errorf("list %v: %w", kind, context.Cause(ctx))
		}
	}
	go index.Run(ctx)
	patience, enough := context.WithTimeout(ctx, simulation.Patience)
	defer enough()
	index.Settle(patience)
	sets := index.Sets()
	reports := make([]targetReport, len(args.Targets))
	for i, t := range args.Targets {
		r := &reports[i]
		kind, chooses := describe(t, sets[i].Distribution)
		*r = targetReport{Name: t.Name, Kind: kind, Chooses: chooses, Weight: t.Weight, Aggregation: string(t.Aggregation), PerPod: index.Configured(i) == nil, Nodes: []targetOnNode{}, Providers: []providerCount{}}
		r.TrafficDistribution = string(sets[i].Distribution)
		if t.MaxRTT != nil {
			r.MaxRTT = t.MaxRTT.Duration.Round(time.Microsecond).String()
		}
		byProvider := make(map[string]int)
		for _, replica := range sets[i].Replicas {
			provider := groups[replica.Node].Provider
			r.Nodes = append(r.Nodes, targetOnNode{replica.Node, provider, replica.Count})
			r.Replicas += replica.Count
			byProvider[cmp.Or(provider, "-")] += replica.Count
		}
		for provider, n := range byProvider {
			r.Providers = append(r.Providers, providerCount{provider, n})
		}
		slices.SortFunc(r.Providers, func(a, b providerCount) int {
			return cmp.Or(cmp.Compare(b.Replicas, a.Replicas), cmp.Compare(a.Provider, b.Provider))
		})
	}
	return reports, nil
}

// describe says what a target chooses, and to which of that it leads if not to
// all.
func describe(t config.Target, distribution placement.Distribution) (kind, chooses string) {
	switch {
	case t.Pods != nil:
		chooses = metav1.FormatLabelSelector(t.Pods.LabelSelector)
		if keys := t.Pods.MatchLabelKeys; len(keys) > 0 {
			chooses += ", same " + strings.Join(keys, ", ")
		}
		if len(t.Pods.Namespaces) > 0 {
			chooses += " in " + strings.Join(t.Pods.Namespaces, ", ")
		}
		return "pods", chooses
	case t.Service != nil:
		chooses = t.Service.Namespace + "/" + t.Service.Name
		if distribution != placement.ToAll {
			chooses += fmt.Sprintf(" (%s)", distribution)
		}
		return "service", chooses
	case t.Nodes != nil:
		var parts []string
		if t.Nodes.LabelSelector != nil {
			parts = append(parts, metav1.FormatLabelSelector(t.Nodes.LabelSelector))
		}
		if t.Nodes.Resource != "" {
			parts = append(parts, "with "+t.Nodes.Resource)
		}
		return "nodes", strings.Join(parts, " ")
	}
	return "-", "-"
}

func providersOf(r targetReport) string {
	var parts []string
	for _, p := range r.Providers {
		parts = append(parts, fmt.Sprintf("%s %d", p.Provider, p.Replicas))
	}
	return strings.Join(parts, ", ")
}

func nodesOf(r targetReport) string {
	var parts []string
	for _, n := range r.Nodes {
		part := n.Node
		if n.Replicas > 1 {
			part += fmt.Sprintf(" (%d)", n.Replicas)
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ", ")
}
