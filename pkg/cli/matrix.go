package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/netlatency/netlatency/pkg/latency"
)

// matrixOptions is of "matrix".
type matrixOptions struct {
	*options
	file, by, show, output, colour string
	from, to                       []string
}

const (
	byProvider = "provider"
	byNode     = "node"
)

func newMatrixCommand(shared *options) *cobra.Command {
	o := &matrixOptions{options: shared}
	command := &cobra.Command{
		Use:   "matrix",
		Short: "The latencies between providers, or between nodes",
		Long: `Shows the latency from each provider to each other, or from node to node: what
the scheduler compares, one of its parts, or what it rests on.

What the scheduler compares ("latency") is the mean with a share of the tail and
a price for losses. Pairs that nobody has measured are estimated as the scheduler
does; the table marks them with "~".`,
		Example: `  kubectl netlatency matrix                           # between providers
  kubectl netlatency matrix --by node --from hetzner  # from the nodes of one to all
  kubectl netlatency matrix --show p99                # or loss, age, basis, method
  kubectl netlatency matrix --by node -o wide         # all that is known of each pair
  kubectl netlatency matrix --matrix matrix.jsonl.gz  # of a recording`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			ctx, cancel := o.within(command)
			defer cancel()
			return o.run(ctx)
		},
	}
	flags := command.Flags()
	flags.StringVar(&o.file, "matrix", "", "A file that record wrote, instead of the cluster; - is standard input.")
	flags.StringVar(&o.by, "by", byProvider, "What rows and columns are: provider or node.")
	flags.StringVar(&o.show, "show", "latency", "What of each pair: "+strings.Join(names(quantities), ", ")+".")
	flags.StringSliceVar(&o.from, "from", nil, "Only from these providers or nodes.")
	flags.StringSliceVar(&o.to, "to", nil, "Only to these providers or nodes.")
	flags.StringVarP(&o.output, "output", "o", outputTable, "table, wide (a line for each pair), json or yaml.")
	flags.StringVar(&o.colour, "color", colourAuto, "auto, always or never.")
	for flag, values := range map[string][]string{"by": {byProvider, byNode}, "show": names(quantities), "output": outputs, "color": colours} {
		_ = command.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
	return command
}

// cell is what is known from one place to another. Latencies are in
// milliseconds; what is not known is absent.
type cell struct {
	From string `json:"from"`
	To   string `json:"to"`
	// Of pairs of nodes: how many there are between these places, and how many
	// of them are measured.
	Pairs    int      `json:"pairs"`
	Measured int      `json:"measured"`
	Latency  *float64 `json:"latency_ms,omitempty"`
	Error    *float64 `json:"error_ms,omitempty"`
	Basis    string   `json:"basis"`
	Mean     *float64 `json:"mean_ms,omitempty"`
	P50      *float64 `json:"p50_ms,omitempty"`
	P90      *float64 `json:"p90_ms,omitempty"`
	P99      *float64 `json:"p99_ms,omitempty"`
	Min      *float64 `json:"min_ms,omitempty"`
	Loss     *float64 `json:"loss_ratio,omitempty"`
	Samples  int      `json:"samples,omitempty"`
	Age      *float64 `json:"age_seconds,omitempty"`
	Method   string   `json:"method,omitempty"`
}

// quantity is what a table shows of a cell.
type quantity struct {
	name, unit string
	of         func(c *cell) *float64
	text       func(c *cell) string // instead of a number
}

var quantities = []quantity{
	{name: "latency", unit: "ms", of: func(c *cell) *float64 { return c.Latency }},
	{name: "mean", unit: "ms", of: func(c *cell) *float64 { return c.Mean }},
	{name: "min", unit: "ms", of: func(c *cell) *float64 { return c.Min }},
	{name: "p50", unit: "ms", of: func(c *cell) *float64 { return c.P50 }},
	{name: "p90", unit: "ms", of: func(c *cell) *float64 { return c.P90 }},
	{name: "p99", unit: "ms", of: func(c *cell) *float64 { return c.P99 }},
	{name: "error", unit: "ms", of: func(c *cell) *float64 { return c.Error }},
	{name: "loss", unit: "%", of: func(c *cell) *float64 {
		if c.Loss == nil {
			return nil
		}
		return new(100 * *c.Loss)
	}},
	{name: "age", unit: "s", of: func(c *cell) *float64 { return c.Age }},
	{name: "basis", text: func(c *cell) string { return c.Basis }},
	{name: "method", text: func(c *cell) string { return cmp.Or(c.Method, "-") }},
}

func names(of []quantity) (all []string) {
	for _, q := range of {
		all = append(all, q.name)
	}
	return all
}

// matrixReport is what -o json and yaml have.
type matrixReport struct {
	Origin         string    `json:"origin"`
	Taken          time.Time `json:"taken"`
	By             string    `json:"by"`
	Nodes          int       `json:"nodes"`
	Agents         int       `json:"agents,omitempty"`
	AgentsAnswered int       `json:"agents_answered,omitempty"`
	Pairs          int       `json:"pairs_measured"`
	Cells          []cell    `json:"cells"`
}

func (o *matrixOptions) run(ctx context.Context) error {
	at := slices.IndexFunc(quantities, func(q quantity) bool { return q.name == o.show })
	if at < 0 {
		return fmt.Errorf("--show is %q: want one of %s", o.show, strings.Join(names(quantities), ", "))
	}
	if o.by != byProvider && o.by != byNode {
		return fmt.Errorf("--by is %q: want provider or node", o.by)
	}
	if err := oneOf("--output", o.output, outputs); err != nil {
		return err
	}
	if err := oneOf("--color", o.colour, colours); err != nil {
		return err
	}
	r, err := o.read(ctx, o.file)
	if err != nil {
		return err
	}
	from, err := r.places("--from", o.by, o.from)
	if err != nil {
		return err
	}
	to, err := r.places("--to", o.by, o.to)
	if err != nil {
		return err
	}
	cells := r.cells(from, to)
	switch o.output {
	case outputJSON, outputYAML:
		return o.print(o.output, matrixReport{
			Origin: r.origin, Taken: r.matrix.Taken(), By: o.by, Nodes: len(r.nodes),
			Agents: r.agents, AgentsAnswered: r.answered, Pairs: r.matrix.Pairs(), Cells: cells,
		})
	case outputWide:
		return listing(cells).write(o.Out, painter{})
	}
	q := quantities[at]
	if err := crossTable(q, from, to, cells).write(o.Out, o.painter(o.colour)); err != nil {
		return err
	}
	return r.legend(o.Out, o.by, q, cells)
}

// place is a row or a column: a provider with its nodes, or a node.
type place struct {
	name  string
	nodes []string
}

// places are those that wanted names, or all; a provider's name stands for its
// nodes.
func (r *reading) places(flag, by string, wanted []string) ([]place, error) {
	nodes := slices.Clone(r.nodes)
	slices.SortFunc(nodes, func(a, b string) int {
		g, h := r.groups[a], r.groups[b]
		return cmp.Or(cmp.Compare(r.provider(a), r.provider(b)), cmp.Compare(g.Region, h.Region), cmp.Compare(g.Zone, h.Zone), cmp.Compare(a, b))
	})
	for _, name := range wanted {
		if !slices.ContainsFunc(nodes, func(node string) bool { return node == name || r.provider(node) == name }) {
			return nil, fmt.Errorf("%s: there is no provider and no node %q; the providers are %s", flag, name, strings.Join(r.providers(), ", "))
		}
	}
	var places []place
	for _, node := range nodes {
		if len(wanted) > 0 && !slices.Contains(wanted, node) && !slices.Contains(wanted, r.provider(node)) {
			continue
		}
		name := node
		if by == byProvider {
			name = r.provider(node)
		}
		if last := len(places) - 1; last >= 0 && places[last].name == name {
			places[last].nodes = append(places[last].nodes, node)
		} else {
			places = append(places, place{name, []string{node}})
		}
	}
	return places, nil
}

func (r *reading) providers() []string {
	known := make(map[string]bool)
	for _, node := range r.nodes {
		known[r.provider(node)] = true
	}
	var all []string
	for p := range known {
		all = append(all, p)
	}
	slices.Sort(all)
	return all
}

// cells has one for each two places between which there is a pair of nodes.
func (r *reading) cells(from, to []place) []cell {
	var cells []cell
	for _, a := range from {
		for _, b := range to {
			if c, ok := r.cell(a, b); ok {
				cells = append(cells, c)
			}
		}
	}
	return cells
}

// cell sums up the pairs between two places: the median of each number, but the
// mean of losses and the oldest age, and the weakest basis.
func (r *reading) cell(a, b place) (c cell, ok bool) {
	c = cell{From: a.name, To: b.name}
	var latencies, errors, means, mins, p50s, p90s, p99s, losses, ages []float64
	weakest := latency.Local
	methods := make(map[string]bool)
	for _, node := range a.nodes {
		for _, peer := range b.nodes {
			if node == peer {
				continue
			}
			c.Pairs++
			e := r.estimates.Estimate(node, peer)
			weakest = min(weakest, e.Basis)
			if e.Basis != latency.Unknown {
				latencies, errors = append(latencies, ms(e.Latency)), append(errors, ms(e.Error))
			}
			d, measured := r.matrix.Measured(node, peer)
			if !measured {
				continue
			}
			c.Measured++
			c.Samples += d.Samples
			methods[d.Method] = true
			means, mins, losses = append(means, ms(d.Mean)), append(mins, ms(d.Min)), append(losses, d.Loss())
			p50s, p90s, p99s = append(p50s, ms(d.P50)), append(p90s, ms(d.P90)), append(p99s, ms(d.P99))
			ages = append(ages, r.matrix.Taken().Sub(d.Newest).Seconds())
		}
	}
	if c.Pairs == 0 {
		return c, false
	}
	c.Basis = weakest.String()
	c.Latency, c.Error, c.Mean, c.Min = median(latencies), median(errors), median(means), median(mins)
	c.P50, c.P90, c.P99 = median(p50s), median(p90s), median(p99s)
	if c.Measured > 0 {
		var sum float64
		for _, loss := range losses {
			sum += loss
		}
		c.Loss, c.Age = new(sum/float64(c.Measured)), new(max(0, slices.Max(ages)))
	}
	var used []string
	for m := range methods {
		used = append(used, m)
	}
	slices.Sort(used)
	c.Method = strings.Join(used, ",")
	return c, true
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// median is nil of nothing.
func median(values []float64) *float64 {
	if len(values) == 0 {
		return nil
	}
	slices.Sort(values)
	return &values[len(values)/2]
}

// crossTable has a row for each place to start from and a column for each to go to.
func crossTable(q quantity, from, to []place, cells []cell) table {
	t := table{{{text: `FROM \ TO`}}}
	for _, b := range to {
		t[0] = append(t[0], field{text: b.name, right: q.text == nil})
	}
	at := 0
	for _, a := range from {
		row := []field{{text: a.name}}
		for _, b := range to {
			f := field{right: q.text == nil}
			if at < len(cells) && cells[at].From == a.name && cells[at].To == b.name {
				f = q.field(&cells[at])
				at++
			}
			row = append(row, f)
		}
		t = append(t, row)
	}
	return t
}

// field is how a table shows the quantity of a cell.
func (q quantity) field(c *cell) field {
	if q.text != nil {
		return field{text: q.text(c)}
	}
	v := q.of(c)
	if v == nil {
		return field{text: "?", right: true}
	}
	f := field{text: number(*v), right: true}
	if q.unit == "ms" {
		f.heat = v
	}
	if (q.name == "latency" || q.name == "error") && c.Measured == 0 {
		f.text = "~" + f.text
	}
	return f
}

// number has three digits that count.
func number(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v < 0.0995:
		return fmt.Sprintf("%.3f", v)
	case v < 9.95:
		return fmt.Sprintf("%.2f", v)
	case v < 99.5:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// listing has a row for each cell.
func listing(cells []cell) table {
	t := table{{{text: "FROM"}, {text: "TO"}}}
	shown := slices.DeleteFunc(slices.Clone(quantities), func(q quantity) bool { return q.name == "error" })
	for _, q := range shown {
		title := strings.ToUpper(q.name)
		if q.unit != "" {
			title += " [" + q.unit + "]"
		}
		t[0] = append(t[0], field{text: title, right: q.text == nil})
	}
	t[0] = append(t[0], field{text: "SAMPLES", right: true})
	for i := range cells {
		c := &cells[i]
		row := []field{{text: c.From}, {text: c.To}}
		for _, q := range shown {
			f := q.field(c)
			f.heat = nil
			row = append(row, f)
		}
		t = append(t, append(row, field{text: strconv.Itoa(c.Samples), right: true}))
	}
	return t
}

// legend says what a table shows and how much of it is known.
func (r *reading) legend(out io.Writer, by string, q quantity, cells []cell) error {
	pairs, measured := 0, 0
	for _, c := range cells {
		pairs, measured = pairs+c.Pairs, measured+c.Measured
	}
	what := q.name
	switch {
	case q.name == "latency" && r.statistic.TailWeight > 0:
		what = fmt.Sprintf("latency in ms: mean + %v·p99 + losses", r.statistic.TailWeight)
	case q.unit != "":
		what += " in " + q.unit
	}
	if by == byProvider && q.text == nil && q.name != "loss" && q.name != "age" {
		what += ", the median of the pairs of nodes"
	}
	_, err := fmt.Fprintf(out, "\n%s. %d of %d pairs are measured, by %s.\n", what, measured, pairs, r.origin)
	return err
}
