// Command agent is the probe agent of netlatency: it runs on every node,
// measures the round trips to the others and serves them.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/component-base/cli"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-base/cli/globalflag"
	"k8s.io/component-base/featuregate"
	"k8s.io/component-base/logs"
	logsapi "k8s.io/component-base/logs/api/v1"
	_ "k8s.io/component-base/logs/json/register" // --logging-format=json
	"k8s.io/component-base/term"
	"k8s.io/klog/v2"

	"github.com/netlatency/netlatency/pkg/agent"
	"github.com/netlatency/netlatency/pkg/probe"
	"github.com/netlatency/netlatency/pkg/version"
)

const program = "netlatency-agent"

func main() {
	// An agent allocates little but when it is read, and runs on every node:
	// its memory is worth more than the processor that more collections take.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	os.Exit(cli.Run(newCommand()))
}

func newCommand() *cobra.Command {
	options := agent.DefaultOptions()
	logging := logsapi.NewLoggingConfiguration()
	var kubeconfig string

	cmd := &cobra.Command{
		Use: program,
		Long: `The netlatency agent measures the round trips from its node to the nodes of
the other agents, which it finds in the EndpointSlices of their headless
Service. It serves them as Prometheus metrics: histograms at /metrics, and at
/matrix the statistics that the scheduler reads.`,
		Version: version.String(),
		// Here because it is before logging is set up: what is wrong with the
		// flags is for a person, as plain lines and not as a log entry.
		Args: func(cmd *cobra.Command, args []string) error {
			if err := errors.Join(cobra.NoArgs(cmd, args), options.Validate()); err != nil {
				return fmt.Errorf("%s cannot start with these arguments:\n%w", program, err)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			// Without its gates logsapi refuses --logging-format=json.
			gates := featuregate.NewFeatureGate()
			if err := logsapi.AddFeatureGates(gates); err != nil {
				return fmt.Errorf("set up logging: %w", err)
			}
			if err := logsapi.ValidateAndApply(logging, gates); err != nil {
				return fmt.Errorf("set up logging: %w", err)
			}
			// Once, so that a second signal ends a process that hangs.
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			context.AfterFunc(ctx, stop)
			return run(klog.NewContext(ctx, klog.Background()), options, kubeconfig)
		},
	}
	cmd.SetContext(context.Background())
	// Not verflag, which says "Kubernetes" before the version.
	cmd.SetVersionTemplate("{{.Name}} {{.Version}}\n")

	var sets cliflag.NamedFlagSets
	options.AddFlags(&sets)
	sets.FlagSet("identity").StringVar(&kubeconfig, "kubeconfig", "", "Kubeconfig file of the cluster. Default: the pod's own ServiceAccount.")
	logsapi.AddFlags(logging, sets.FlagSet("logs"))
	globalflag.AddGlobalFlags(sets.FlagSet("global"), program, logs.SkipLoggingConfigurationFlags())
	sets.FlagSet("global").Bool("version", false, "Print the version and quit.")
	for _, name := range sets.Order {
		cmd.Flags().AddFlagSet(sets.FlagSets[name])
	}
	columns, _, _ := term.TerminalSize(cmd.OutOrStdout())
	cliflag.SetUsageAndHelpFunc(cmd, sets, columns)
	return cmd
}

func run(ctx context.Context, options agent.Options, kubeconfig string) error {
	// Where the kernel stamps packets nothing is in a hurry, and on a node with
	// many processors most of what an agent takes is to wake them for each other.
	// It never takes more than one, whoever reads it or floods it.
	if os.Getenv("GOMAXPROCS") == "" && !slices.Contains(options.Methods, string(probe.MethodPortable)) {
		runtime.GOMAXPROCS(1)
	}
	config, err := clientConfig(kubeconfig)
	if err != nil {
		return err
	}
	config.UserAgent = program + "/" + version.String()
	endpoints, err := agent.EndpointSlices(config, options.Namespace, options.Service, options.TargetsService)
	if err != nil {
		return err
	}
	a, err := agent.New(options, version.String(), endpoints)
	if err != nil {
		return err
	}
	return a.Run(ctx)
}

func clientConfig(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		config, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("find the cluster that this pod is in (give --kubeconfig outside of a pod): %w", err)
		}
		return config, nil
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read --kubeconfig %s: %w", kubeconfig, err)
	}
	return config, nil
}
