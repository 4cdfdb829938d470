// Command metrics writes docs/metrics.md, given as standard input, to standard
// output, with the tables of metrics made of the metrics themselves: it gathers
// one series of each.
package main

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/netlatency/netlatency/pkg/agent"
	"github.com/netlatency/netlatency/pkg/exposition"
	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/plugins/netlatency"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "metrics:", err)
		os.Exit(1)
	}
}

// A table stands between these, so that the rest is written by hand.
var tables = regexp.MustCompile(`(?s)(<!-- metrics of (\w+), written by hack/metrics -->\n).*?(<!-- end -->\n)`)

func run() error {
	page, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	sources := map[string]func() ([]*dto.MetricFamily, error){
		"agent": agent.Reference, "matrix": matrix, "scheduler": netlatency.Reference,
	}
	var failure error
	written := tables.ReplaceAllStringFunc(string(page), func(old string) string {
		parts := tables.FindStringSubmatch(old)
		gather, ok := sources[parts[2]]
		if !ok {
			failure = fmt.Errorf("there are no metrics of %q", parts[2])
			return old
		}
		delete(sources, parts[2])
		families, err := gather()
		if err != nil {
			failure = fmt.Errorf("gather the metrics of %s: %w", parts[2], err)
			return old
		}
		return parts[1] + table(families) + parts[3]
	})
	if failure != nil {
		return failure
	}
	for name := range sources {
		return fmt.Errorf("the page has no table of the metrics of %s", name)
	}
	_, err = os.Stdout.WriteString(written)
	return err
}

// matrix is what an agent serves for the scheduler.
func matrix() ([]*dto.MetricFamily, error) {
	now := time.Unix(1, 0)
	rtt := latency.Distribution{
		Mean: time.Millisecond, P50: time.Millisecond, P90: time.Millisecond, P99: time.Millisecond, Min: time.Millisecond,
		Samples: 1, Sent: 2, Lost: 1, Newest: now, Method: "udp",
	}
	return exposition.Families(exposition.Window{Node: "a", Version: "v", Now: now, Rows: []exposition.Row{{Peer: "b", Distribution: rtt}}}), nil
}

// table is Markdown. Metrics that are not ours, such as go_*, are left out.
func table(families []*dto.MetricFamily) string {
	var out strings.Builder
	out.WriteString("| metric | type | labels | meaning |\n|---|---|---|---|\n")
	for _, family := range families {
		if !strings.HasPrefix(family.GetName(), "netlatency_") {
			continue
		}
		fmt.Fprintf(&out, "| `%s` | %s | %s | %s |\n", family.GetName(), kind(family), labels(family), meaning(family))
	}
	return out.String()
}

func kind(family *dto.MetricFamily) string {
	name := strings.ToLower(family.GetType().String())
	if h := family.GetMetric()[0].GetHistogram(); h != nil && h.Schema != nil {
		name += ", native"
	}
	return name
}

func labels(family *dto.MetricFamily) string {
	names := make([]string, 0, 4)
	for _, label := range family.GetMetric()[0].GetLabel() {
		names = append(names, "`"+label.GetName()+"`")
	}
	if family.GetType() == dto.MetricType_SUMMARY {
		names = append(names, "`quantile`")
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// meaning is the help text, without what Kubernetes puts before it.
func meaning(family *dto.MetricFamily) string {
	help := strings.TrimPrefix(family.GetHelp(), "[ALPHA] ")
	return strings.NewReplacer("|", `\|`, "\n", " ").Replace(help)
}
