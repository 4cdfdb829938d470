package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/placement"
	"github.com/netlatency/netlatency/pkg/plugins/netlatency"
	"github.com/netlatency/netlatency/pkg/simulation"
)

// explainOptions is of "explain".
type explainOptions struct {
	sceneOptions
	output, colour string
	all            bool
}

func newExplainCommand(shared *options) *cobra.Command {
	o := &explainOptions{sceneOptions: sceneOptions{options: shared}}
	command := &cobra.Command{
		Use:   "explain POD",
		Short: "Why a pod is where it is, or why it waits",
		Long: `Shows for each node what a pod would cost there, how the scheduler's plugins
score it, and what keeps the pod from it.

The scheduler's own plugins are run over the cluster as it is now, without the
pod: what they say can differ from what they said when the pod was placed. Where
the scheduler is told to annotate pods with their placement, that is shown too.`,
		Example: `  kubectl netlatency explain search-worker-x2x4p
  kubectl netlatency explain search-worker-x2x4p -o wide          # the score of each plugin
  kubectl netlatency explain search-worker-x2x4p --set hetzner:gthost=12ms
  kubectl netlatency explain nginx --profile netlatency-scheduler # a pod of another scheduler`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: shared.completePods,
		RunE: func(command *cobra.Command, args []string) error {
			ctx, cancel := o.within(command)
			defer cancel()
			return o.run(ctx, args[0])
		},
	}
	o.addFlags(command)
	flags := command.Flags()
	flags.BoolVar(&o.all, "all", false, "Show all nodes, not the first of them.")
	flags.StringVarP(&o.output, "output", "o", outputTable, "table, wide (with the score of each plugin), json or yaml.")
	flags.StringVar(&o.colour, "color", colourAuto, "auto, always or never.")
	for flag, values := range map[string][]string{"output": outputs, "color": colours} {
		_ = command.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
	return command
}

// explanation is what -o json and yaml have. Latencies are in milliseconds;
// those that are not known are absent.
type explanation struct {
	Namespace string `json:"namespace"`
	Pod       string `json:"pod"`
	Profile   string `json:"profile"`
	// Node is where the pod is, and Choice where it would be put now.
	Node   string `json:"node,omitempty"`
	Choice string `json:"choice,omitempty"`
	// Nearest is the node that costs least, refused or not.
	Nearest     string          `json:"nearest,omitempty"`
	Annotation  string          `json:"annotation_fault,omitempty"`
	Missing     []string        `json:"targets_without_nodes,omitempty"`
	Uninformed  []string        `json:"targets_without_measurements,omitempty"`
	WantsTarget bool            `json:"wants_to_be_near_something"`
	Nodes       []nodeReport    `json:"nodes"`
	Recorded    json.RawMessage `json:"recorded,omitempty"` // the scheduler's annotation

	targets []string
	plugins []string
}

type nodeReport struct {
	Node      string                   `json:"node"`
	Provider  string                   `json:"provider,omitempty"`
	Cost      *float64                 `json:"cost_ms,omitempty"`
	Targets   []placement.TargetRecord `json:"targets,omitempty"`
	Total     int64                    `json:"score"`
	Scores    map[string]int64         `json:"scores,omitempty"`
	RefusedBy string                   `json:"refused_by,omitempty"`
	Reason    string                   `json:"reason,omitempty"`
}

func (o *explainOptions) run(ctx context.Context, name string) error {
	if err := oneOf("--output", o.output, outputs); err != nil {
		return err
	}
	if err := oneOf("--color", o.colour, colours); err != nil {
		return err
	}
	namespace, _, err := o.config.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return fmt.Errorf("find the namespace: %w", err)
	}
	f, err := o.gather(ctx)
	if err != nil {
		return err
	}
	return o.show(ctx, f, namespace, strings.TrimPrefix(name, "pod/"))
}

func (o *explainOptions) show(ctx context.Context, f *facts, namespace, name string) error {
	pod, err := f.client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read the pod: %w", reasonOf(ctx, err))
	}
	p, err := o.profileFor(f, pod.Spec.SchedulerName, "pod "+name)
	if err != nil {
		return err
	}
	changes, err := o.parseChanges(f, p)
	if err != nil {
		return err
	}
	s, err := o.open(ctx, f, p, changes)
	if err != nil {
		return err
	}
	result, err := s.Search(ctx, pod)
	if err != nil {
		return fmt.Errorf("look for a place: %w", reasonOf(ctx, err))
	}
	e := explain(pod, p, result, f.providers(p))
	if o.output == outputJSON || o.output == outputYAML {
		return o.print(o.output, e)
	}
	if err := e.table(o.output == outputWide, o.all).write(o.Out, o.painter(o.colour)); err != nil {
		return err
	}
	_, err = fmt.Fprint(o.Out, "\n"+strings.Join(e.sentences(), "\n")+"\n")
	return err
}

func explain(pod *corev1.Pod, p profile, result *simulation.Result, providers map[string]string) *explanation {
	e := &explanation{
		Namespace: pod.Namespace, Pod: pod.Name, Profile: p.SchedulerName, Node: pod.Spec.NodeName,
		Missing: result.Missing, Uninformed: result.Uninformed, WantsTarget: result.Targets,
	}
	if result.Fault != nil {
		e.Annotation = result.Fault.Error()
	}
	if text, ok := pod.Annotations[netlatency.PlacementAnnotation]; ok && json.Valid([]byte(text)) {
		e.Recorded = json.RawMessage(text)
	}
	if choice, ok := result.Chosen(); ok {
		e.Choice = choice.Name
	}
	nearest := placement.Unknown
	plugins := make(map[string]bool)
	for _, n := range result.Nodes {
		r := nodeReport{
			Node: n.Name, Provider: providers[n.Name], Cost: placement.Milliseconds(n.Cost), Targets: placement.RecordParts(n.Parts),
			Total: n.Total, Scores: n.Scores, RefusedBy: n.RefusedBy, Reason: n.Reason,
		}
		for plugin := range n.Scores {
			plugins[plugin] = true
		}
		if n.Cost != placement.Unknown && (n.Cost < nearest || e.Nearest == "") {
			nearest, e.Nearest = n.Cost, n.Name
		}
		if len(e.targets) == 0 {
			for _, part := range n.Parts {
				e.targets = append(e.targets, part.Target)
			}
		}
		e.Nodes = append(e.Nodes, r)
	}
	for plugin := range plugins {
		if plugin != netlatency.Name {
			e.plugins = append(e.plugins, plugin)
		}
	}
	slices.Sort(e.plugins)
	return e
}

// node is what is said of the node of that name.
func (e *explanation) node(name string) *nodeReport {
	for i := range e.Nodes {
		if e.Nodes[i].Node == name {
			return &e.Nodes[i]
		}
	}
	return nil
}

// shortTable is how many nodes a table has unless all are asked for.
const shortTable = 20

func (e *explanation) table(wide, all bool) table {
	header := []field{{}, {text: "NODE"}, {text: "PROVIDER"}, {text: "COST [ms]", right: true}}
	for _, target := range e.targets {
		header = append(header, field{text: strings.ToUpper(target), right: true})
	}
	header = append(header, field{text: "LATENCY'S SCORE", right: true})
	if wide {
		for _, plugin := range e.plugins {
			header = append(header, field{text: plugin, right: true})
		}
	}
	t := table{append(header, field{text: "TOTAL", right: true}, field{text: "REFUSED BY"})}
	for i := range e.Nodes {
		n := &e.Nodes[i]
		if i >= shortTable && !all && n.Node != e.Node && n.Node != e.Nearest {
			continue
		}
		mark := ""
		switch n.Node {
		case e.Node:
			mark = "is on"
		case e.Choice:
			mark = "now best"
			if e.Node == "" {
				mark = "best"
			}
		}
		row := []field{{text: mark}, {text: n.Node}, {text: cmp.Or(n.Provider, "-")}, latencyField(n.Cost, "")}
		for _, part := range n.Targets {
			row = append(row, latencyField(part.MS, part.Basis))
		}
		for len(row) < 4+len(e.targets) {
			row = append(row, field{text: "?", right: true})
		}
		score := func(of int64) field {
			if n.RefusedBy != "" {
				return field{text: "-", right: true}
			}
			return field{text: strconv.FormatInt(of, 10), right: true}
		}
		row = append(row, score(n.Scores[netlatency.Name]))
		if wide {
			for _, plugin := range e.plugins {
				row = append(row, score(n.Scores[plugin]))
			}
		}
		refused := n.RefusedBy
		if n.Reason != "" {
			refused += ": " + n.Reason
		}
		t = append(t, append(row, score(n.Total), field{text: refused}))
	}
	return t
}

// latencyField is a latency; one that nobody has measured begins with "~".
func latencyField(ms *float64, basis string) field {
	if ms == nil {
		return field{text: "?", right: true}
	}
	f := field{text: number(*ms), right: true, heat: ms}
	if basis == latency.Group.String() {
		f.text = "~" + f.text
	}
	return f
}

// sentences say what a person wants to know first.
func (e *explanation) sentences() []string {
	var all []string
	say := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	if !e.WantsTarget {
		say("Pod %s wants to be near nothing: no rule of profile %s and no annotation netlatency.io/near names a target. The other plugins alone place it.", e.Pod, e.Profile)
	}
	if e.Annotation != "" {
		say("Its annotation is wrong, and the profile's rules count instead: %s.", e.Annotation)
	}
	switch {
	case e.Choice == "" && e.Node == "":
		say("Pod %s waits: no node takes it. %s", e.Pod, e.refusals())
	case e.Choice == "":
		say("Pod %s is on %s. No node would take it now. %s", e.Pod, e.Node, e.refusals())
	case e.Node == "":
		say("Pod %s would go to %s, %s.", e.Pod, e.Choice, e.from(e.Choice))
	case e.Node == e.Choice:
		say("Pod %s is on %s, %s. %s would put it there again.", e.Pod, e.Node, e.from(e.Node), e.Profile)
	case e.same():
		say("Pod %s is on %s, %s. No node is better.", e.Pod, e.Node, e.from(e.Node))
	default:
		say("Pod %s is on %s, %s. %s would put it on %s now, %s.", e.Pod, e.Node, e.from(e.Node), e.Profile, e.Choice, e.from(e.Choice))
	}
	if nearest := e.node(e.Nearest); nearest != nil && e.Nearest != e.Choice {
		switch {
		case nearest.RefusedBy != "":
			say("Nearest of all is %s, %s; %s keeps the pod from it: %s.", e.Nearest, e.from(e.Nearest), nearest.RefusedBy, nearest.Reason)
		default:
			say("Nearest of all is %s, %s; %s.", e.Nearest, e.from(e.Nearest), e.outvoted(nearest))
		}
	}
	for _, target := range e.Missing {
		say("Target %s runs nowhere and is left out.", target)
	}
	for _, target := range e.Uninformed {
		say("No way to target %s is measured: it is left out.", target)
	}
	if e.Recorded != nil {
		say("When it was placed, the scheduler noted: %s", e.Recorded)
	}
	return all
}

// same says that the node of the pod is as good as the first choice.
func (e *explanation) same() bool {
	is, choice := e.node(e.Node), e.node(e.Choice)
	return is != nil && is.RefusedBy == "" && is.Total == choice.Total
}

// outvoted says why a node that is nearest was not chosen although it is free.
func (e *explanation) outvoted(nearest *nodeReport) string {
	choice := e.node(e.Choice)
	if choice == nil {
		return "it is free"
	}
	if nearest.Scores[netlatency.Name] == choice.Scores[netlatency.Name] {
		return fmt.Sprintf("to latency both are equally near (within the band), and other plugins prefer %s", e.Choice)
	}
	return fmt.Sprintf("its score for latency is higher by %d, and other plugins' for %s by %d",
		nearest.Scores[netlatency.Name]-choice.Scores[netlatency.Name], e.Choice,
		choice.Total-choice.Scores[netlatency.Name]-nearest.Total+nearest.Scores[netlatency.Name])
}

// from says how far a node is from the pod's targets.
func (e *explanation) from(name string) string {
	n := e.node(name)
	switch {
	case !e.WantsTarget:
		return "which nothing measured speaks for or against"
	case n == nil || n.Cost == nil:
		return "of which nothing is measured"
	}
	return number(*n.Cost) + " ms from its targets"
}

// refusals counts why nodes refuse the pod.
func (e *explanation) refusals() string {
	count := make(map[string]int)
	for i := range e.Nodes {
		if e.Nodes[i].RefusedBy != "" {
			count[e.Nodes[i].Reason]++
		}
	}
	var reasons []string
	for reason, n := range count {
		reasons = append(reasons, fmt.Sprintf("%d %s", n, reason))
	}
	slices.SortFunc(reasons, func(a, b string) int { return strings.Compare(b, a) })
	return strings.Join(reasons, ", ") + "."
}

// completePods names the pods of the namespace.
func (o *options) completePods(command *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := o.within(command)
	defer cancel()
	c, err := o.connect()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	namespace, _, err := o.config.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	pods, err := c.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for i := range pods.Items {
		names = append(names, pods.Items[i].Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
