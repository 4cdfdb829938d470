package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/source"
)

// doctorOptions is of "doctor".
type doctorOptions struct {
	*options
	output string
	// measurements reads the agents of a cluster.
	measurements func(context.Context, *cluster) (*latency.Matrix, source.Stats, error)
}

func newDoctorCommand(shared *options) *cobra.Command {
	o := &doctorOptions{options: shared}
	o.measurements = func(ctx context.Context, c *cluster) (*latency.Matrix, source.Stats, error) {
		return c.readAgents(ctx, o.timeout)
	}
	command := &cobra.Command{
		Use:   "doctor",
		Short: "Checks the whole chain from probes to placements, and says what to do",
		Long: `Checks everything between a probe and a placed pod: the installation, the agents
and what they measure, the scheduler, its permissions and profiles, the targets,
and the pods. Each finding comes with its remedy.

The exit code is 1 if anything is at fault, and 0 if there are only warnings.
What may not be read is said, and the rest is checked.`,
		Example: `  kubectl netlatency doctor
  kubectl netlatency doctor -o json`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			ctx, cancel := o.within(command)
			defer cancel()
			return o.run(ctx)
		},
	}
	command.Flags().StringVarP(&o.output, "output", "o", outputTable, "table, json or yaml.")
	_ = command.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{outputTable, outputJSON, outputYAML}, cobra.ShellCompDirectiveNoFileComp))
	return command
}

// level is how bad a finding is.
type level string

const (
	levelOK      level = "ok"
	levelUnknown level = "unknown" // it could not be checked
	levelWarning level = "warning" // works, but not as well as it could
	levelFault   level = "fault"
)

// finding is what a check has found.
type finding struct {
	Check  string `json:"check"`
	Level  level  `json:"level"`
	What   string `json:"what"`
	Remedy string `json:"remedy,omitempty"`
}

func ok(format string, args ...any) finding {
	return finding{Level: levelOK, What: fmt.Sprintf(format, args...)}
}

func fault(remedy, format string, args ...any) finding {
	return finding{Level: levelFault, What: fmt.Sprintf(format, args...), Remedy: remedy}
}

func warning(remedy, format string, args ...any) finding {
	return finding{Level: levelWarning, What: fmt.Sprintf(format, args...), Remedy: remedy}
}

// unknown is what could not be read.
func unknown(what string, err error) finding {
	return finding{Level: levelUnknown, What: fmt.Sprintf("%s: %v", what, err), Remedy: "Run doctor as somebody who may read that."}
}

func (o *doctorOptions) run(ctx context.Context) error {
	if err := oneOf("--output", o.output, []string{outputTable, outputJSON, outputYAML}); err != nil {
		return err
	}
	c, err := o.find(ctx)
	if err != nil {
		return err
	}
	return o.show(o.gather(ctx, c).findings(ctx))
}

func (o *doctorOptions) show(findings []finding) error {
	faults := 0
	for _, f := range findings {
		if f.Level == levelFault {
			faults++
		}
	}
	if o.output != outputTable {
		if err := o.print(o.output, map[string]any{"findings": findings}); err != nil {
			return err
		}
	} else {
		for _, f := range findings {
			sign := string(f.Level)
			if f.Level == levelFault {
				sign = "FAULT"
			}
			fmt.Fprintf(o.Out, "%-8s %-12s %s\n", sign, f.Check, f.What)
			if f.Remedy != "" {
				fmt.Fprintf(o.Out, "%-21s   %s\n", "", strings.ReplaceAll(f.Remedy, "\n", "\n"+strings.Repeat(" ", 24)))
			}
		}
	}
	if faults > 0 {
		return fmt.Errorf("found %s", count(faults, "fault"))
	}
	return nil
}

// findings runs all checks, in the order of the chain.
func (e *examination) findings(ctx context.Context) (findings []finding) {
	for _, check := range []struct {
		name string
		run  func(context.Context) []finding
	}{
		{"versions", e.checkVersions},
		{"agents", e.checkAgents},
		{"answers", e.checkAnswers},
		{"freshness", e.checkFreshness},
		{"methods", e.checkMethods},
		{"groups", e.checkGroups},
		{"scheduler", e.checkScheduler},
		{"permissions", e.checkPermissions},
		{"profiles", e.checkProfiles},
		{"targets", e.checkTargets},
		{"pods", e.checkPods},
		{"KubeRay", e.checkKubeRay},
	} {
		for _, f := range check.run(ctx) {
			f.Check = check.name
			findings = append(findings, f)
		}
	}
	return findings
}
