package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/netlatency/netlatency/pkg/placement"
	"github.com/netlatency/netlatency/pkg/simulation"
)

// simulateOptions is of "simulate".
type simulateOptions struct {
	sceneOptions
	file, output string
	replicas     int
}

func newSimulateCommand(shared *options) *cobra.Command {
	o := &simulateOptions{sceneOptions: sceneOptions{options: shared}}
	command := &cobra.Command{
		Use:   "simulate -f FILE",
		Short: "Where new pods would go, now or if latencies were different",
		Long: `Shows where the scheduler would put the pods of a manifest: the workers of a
RayService, RayCluster or RayJob, or the pods of a Deployment, StatefulSet,
ReplicaSet, Job or Pod. Nothing is created.

The scheduler's own plugins choose a place for one pod after the other, beside
the pods that are there. Of nodes with the same score the scheduler takes one at
random and this the first by name: the providers are foretold, not the nodes.`,
		Example: `  kubectl netlatency simulate -f rayservice.yaml
  kubectl netlatency simulate -f rayservice.yaml --replicas 96 -o wide        # by node
  kubectl netlatency simulate -f rayservice.yaml --set hetzner:gthost=12ms    # what if
  kubectl netlatency simulate -f rayservice.yaml --matrix yesterday.jsonl.gz
  kubectl netlatency simulate -f rayservice.yaml --scheduler-config tuned.yaml`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			ctx, cancel := o.within(command)
			defer cancel()
			return o.run(ctx)
		},
	}
	o.addFlags(command)
	flags := command.Flags()
	flags.StringVarP(&o.file, "filename", "f", "", "Manifest of the pods; - is standard input.")
	flags.IntVar(&o.replicas, "replicas", -1, "Pods of each group, instead of as many as the manifest says.")
	flags.StringVarP(&o.output, "output", "o", outputTable, "table, wide (by node), json or yaml.")
	_ = command.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(outputs, cobra.ShellCompDirectiveNoFileComp))
	return command
}

// forecast is what -o json and yaml have. Latencies are in milliseconds.
type forecast struct {
	Groups []groupForecast `json:"groups"`
}

type groupForecast struct {
	Group   string `json:"group"`
	Profile string `json:"profile"`
	Pods    int    `json:"pods"`
	Waiting int    `json:"waiting"`
	// Reasons are why no node takes the pods that wait: how many nodes of each.
	Reasons map[string]int  `json:"reasons,omitempty"`
	Places  []placeForecast `json:"places"`
	// MeanCost is of the pods with a place, as far as it is known.
	MeanCost *float64 `json:"mean_cost_ms,omitempty"`
	// Before is the forecast without the changes of --set.
	Before *groupForecast `json:"before,omitempty"`
}

type placeForecast struct {
	Provider string   `json:"provider,omitempty"`
	Node     string   `json:"node"`
	Pods     int      `json:"pods"`
	Cost     *float64 `json:"cost_ms,omitempty"`
}

func (o *simulateOptions) run(ctx context.Context) error {
	if err := oneOf("--output", o.output, outputs); err != nil {
		return err
	}
	if o.file == "" {
		return errors.New("--filename is not set: name a manifest, or - for standard input")
	}
	if o.replicas < -1 || o.replicas > maxReplicas {
		return fmt.Errorf("--replicas is %d: want 0 to %d", o.replicas, maxReplicas)
	}
	namespace, _, err := o.config.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return fmt.Errorf("find the namespace: %w", err)
	}
	groups, err := readGroupsFrom(o.file, namespace, o.In)
	if err != nil {
		return err
	}
	if o.replicas >= 0 {
		for i := range groups {
			groups[i].replicas = o.replicas
		}
	}
	f, err := o.gather(ctx)
	if err != nil {
		return err
	}
	return o.show(ctx, f, groups)
}

func (o *simulateOptions) show(ctx context.Context, f *facts, groups []podGroup) error {
	result, err := o.forecast(ctx, f, groups)
	if err != nil {
		return err
	}
	if o.output == outputJSON || o.output == outputYAML {
		return o.print(o.output, result)
	}
	t := table{{{text: "GROUP"}, {text: "PROVIDER"}}}
	if o.output == outputWide {
		t[0] = append(t[0], field{text: "NODE"})
	}
	if len(o.changes) > 0 {
		t[0] = append(t[0], field{text: "PODS NOW", right: true}, field{text: "PODS THEN", right: true}, field{text: "COST NOW [ms]", right: true}, field{text: "COST THEN [ms]", right: true})
	} else {
		t[0] = append(t[0], field{text: "PODS", right: true}, field{text: "COST [ms]", right: true})
	}
	for i := range result.Groups {
		t = append(t, result.Groups[i].rows(o.output == outputWide)...)
	}
	if err := t.write(o.Out, painter{}); err != nil {
		return err
	}
	for i := range result.Groups {
		if text := result.Groups[i].summary(); text != "" {
			fmt.Fprint(o.Out, "\n"+text+"\n")
		}
	}
	return nil
}

// forecast searches for the places of all groups, in the order of the
// manifest.
func (o *simulateOptions) forecast(ctx context.Context, f *facts, groups []podGroup) (*forecast, error) {
	f.adoptCluster(ctx, groups)
	result := &forecast{}
	after, before := make(map[string]*simulation.Scheduler), make(map[string]*simulation.Scheduler)
	for i := range groups {
		g := &groups[i]
		p, err := o.profileFor(f, g.pod(0).Spec.SchedulerName, "the template of "+g.name)
		if err != nil {
			return nil, err
		}
		changes, err := o.parseChanges(f, p)
		if err != nil {
			return nil, err
		}
		now, err := o.play(ctx, f, p, after, changes, g)
		if err != nil {
			return nil, err
		}
		if len(changes) > 0 {
			if now.Before, err = o.play(ctx, f, p, before, nil, g); err != nil {
				return nil, err
			}
		}
		result.Groups = append(result.Groups, *now)
	}
	return result, nil
}

// play places a group's pods. Pods of other profiles' groups are not beside
// them.
func (o *simulateOptions) play(ctx context.Context, f *facts, p profile, schedulers map[string]*simulation.Scheduler, changes []change, g *podGroup) (*groupForecast, error) {
	s := schedulers[p.SchedulerName]
	if s == nil {
		var err error
		if s, err = o.open(ctx, f, p, changes); err != nil {
			return nil, err
		}
		schedulers[p.SchedulerName] = s
	}
	defer o.progress(fmt.Sprintf("Looking for the places of %d pods", g.replicas))()
	result := &groupForecast{Group: g.name, Profile: p.SchedulerName, Pods: g.replicas, Places: []placeForecast{}}
	providers := f.providers(p)
	places := make(map[string]*placeForecast)
	var sum time.Duration
	known := 0
	for i := range g.replicas {
		pod := g.pod(i)
		found, err := s.Search(ctx, pod)
		if err != nil {
			return nil, fmt.Errorf("look for the place of %s: %w", pod.Name, reasonOf(ctx, err))
		}
		chosen, ok := found.Chosen()
		if !ok {
			// Nothing changes any more: those that follow wait for the same.
			result.Waiting = g.replicas - i
			result.Reasons = make(map[string]int)
			for _, n := range found.Nodes {
				result.Reasons[n.Reason]++
			}
			break
		}
		s.Assume(pod, chosen.Name)
		place := places[chosen.Name]
		if place == nil {
			place = &placeForecast{Provider: providers[chosen.Name], Node: chosen.Name, Cost: placement.Milliseconds(chosen.Cost)}
			places[chosen.Name] = place
		}
		place.Pods++
		if chosen.Cost != placement.Unknown {
			sum, known = sum+chosen.Cost, known+1
		}
	}
	for _, place := range places {
		result.Places = append(result.Places, *place)
	}
	slices.SortFunc(result.Places, func(a, b placeForecast) int {
		return cmp.Or(cmp.Compare(a.Provider, b.Provider), cmp.Compare(b.Pods, a.Pods), cmp.Compare(a.Node, b.Node))
	})
	if known > 0 {
		result.MeanCost = placement.Milliseconds(sum / time.Duration(known))
	}
	return result, nil
}

// spread is the pods at a place of a table, and the mean of their cost.
type spread struct {
	pods, known int
	cost        float64
}

func (s *spread) add(p placeForecast) {
	s.pods += p.Pods
	if p.Cost != nil {
		s.known += p.Pods
		s.cost += *p.Cost * float64(p.Pods)
	}
}

func (s spread) fields() (pods, cost field) {
	pods, cost = field{text: strconv.Itoa(s.pods), right: true}, field{text: "-", right: true}
	switch {
	case s.known > 0:
		cost.text = number(s.cost / float64(s.known))
	case s.pods > 0:
		cost.text = "?"
	}
	return pods, cost
}

// rows are the providers of a group, or its nodes.
func (g *groupForecast) rows(byNode bool) table {
	type where struct{ provider, node string }
	sum := func(of *groupForecast) map[where]spread {
		at := make(map[where]spread)
		for _, p := range of.Places {
			w := where{provider: cmp.Or(p.Provider, "-")}
			if byNode {
				w.node = p.Node
			}
			s := at[w]
			s.add(p)
			at[w] = s
		}
		return at
	}
	then := sum(g)
	now := map[where]spread{}
	if g.Before != nil {
		now = sum(g.Before)
	}
	var places []where
	for w := range then {
		places = append(places, w)
	}
	for w := range now {
		if _, ok := then[w]; !ok {
			places = append(places, w)
		}
	}
	slices.SortFunc(places, func(a, b where) int {
		return cmp.Or(cmp.Compare(then[b].pods, then[a].pods), cmp.Compare(now[b].pods, now[a].pods), cmp.Compare(a.provider, b.provider), cmp.Compare(a.node, b.node))
	})
	var t table
	row := func(provider, node string, was, is spread) {
		fields := []field{{text: g.Group}, {text: provider}}
		if byNode {
			fields = append(fields, field{text: node})
		}
		pods, cost := is.fields()
		if g.Before != nil {
			podsNow, costNow := was.fields()
			fields = append(fields, podsNow, pods, costNow, cost)
		} else {
			fields = append(fields, pods, cost)
		}
		t = append(t, fields)
	}
	for _, w := range places {
		row(w.provider, w.node, now[w], then[w])
	}
	waited := 0
	if g.Before != nil {
		waited = g.Before.Waiting
	}
	if g.Waiting > 0 || waited > 0 {
		row("(waiting)", "-", spread{pods: waited}, spread{pods: g.Waiting})
		last := t[len(t)-1]
		last[len(last)-1].text = "-"
		if g.Before != nil {
			last[len(last)-2].text = "-"
		}
	}
	return t
}

// summary says what the rows of a table do not.
func (g *groupForecast) summary() string {
	var text strings.Builder
	if g.MeanCost != nil {
		fmt.Fprintf(&text, "%s: %d of %d pods would have a place, %s ms from their targets in the mean", g.Group, g.Pods-g.Waiting, g.Pods, number(*g.MeanCost))
		if g.Before != nil && g.Before.MeanCost != nil {
			fmt.Fprintf(&text, "; now %d, %s ms", g.Before.Pods-g.Before.Waiting, number(*g.Before.MeanCost))
		}
		text.WriteString(".")
	}
	if g.Waiting > 0 {
		var reasons []string
		for reason, n := range g.Reasons {
			reasons = append(reasons, fmt.Sprintf("%d %s", n, reason))
		}
		slices.Sort(reasons)
		if text.Len() > 0 {
			text.WriteString(" ")
		}
		fmt.Fprintf(&text, "The others would wait: 0/%d nodes are available: %s.", sumOf(g.Reasons), strings.Join(reasons, ", "))
	}
	return text.String()
}

func sumOf(counts map[string]int) (sum int) {
	for _, n := range counts {
		sum += n
	}
	return sum
}

// readAll reads a file, or what is piped in for "-".
func readAll(file string, stdin io.Reader) ([]byte, error) {
	if file == "-" {
		return io.ReadAll(stdin)
	}
	return os.ReadFile(file)
}
