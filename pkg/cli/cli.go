// Package cli is "kubectl netlatency": what a person asks of the latencies in a
// cluster. It needs a kubeconfig and nothing else; the agents are read through
// the API server.
package cli

import (
	"context"
	"flag"
	"fmt"
	"os/signal"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/klog/v2"

	"github.com/netlatency/netlatency/pkg/version"
)

// Run runs the program with args, which are without its own name, and returns
// its exit code.
func Run(streams genericiooptions.IOStreams, args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	command := NewCommand(streams)
	command.SetArgs(args)
	if err := command.ExecuteContext(ctx); err != nil {
		fmt.Fprintf(streams.ErrOut, "error: %v\n", err)
		return 1
	}
	return 0
}

// options is what all commands share: how to reach the cluster, and which
// installation of netlatency is meant.
type options struct {
	genericiooptions.IOStreams
	config *genericclioptions.ConfigFlags

	system  string // namespace of the installation; "" finds it
	timeout time.Duration
}

// NewCommand is the root of all commands.
func NewCommand(streams genericiooptions.IOStreams) *cobra.Command {
	o := &options{IOStreams: streams, config: genericclioptions.NewConfigFlags(true)}
	command := &cobra.Command{
		Use:   "netlatency",
		Short: "Measured latency between nodes, and where it puts pods",
		Long: `Shows what the netlatency agents have measured between the nodes of a cluster,
and what that means to its pods. It reads the agents through the API server,
which takes the permission to get pods/proxy in their namespace.`,
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl netlatency"},
		Version:       version.String(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	command.SetOut(streams.Out)
	command.SetErr(streams.ErrOut)
	command.SetVersionTemplate("kubectl-netlatency {{.Version}}\n")
	flags := command.PersistentFlags()
	o.config.AddFlags(flags)
	flags.StringVar(&o.system, "system-namespace", "", "Namespace in which netlatency is installed. By default it is looked for in all.")
	flags.DurationVar(&o.timeout, "timeout", 30*time.Second, "How long reading the cluster may take.")
	verbosity := flag.NewFlagSet("", flag.ContinueOnError)
	klog.InitFlags(verbosity)
	flags.AddGoFlag(verbosity.Lookup("v"))
	command.AddCommand(newMatrixCommand(o), newTargetsCommand(o), newExplainCommand(o), newSimulateCommand(o), newDoctorCommand(o), newRecordCommand(o), newUICommand(o))
	return command
}

// errorsOnly passes on nothing else.
type errorsOnly struct{ logr.LogSink }

func (errorsOnly) Enabled(int) bool { return false }

func (e errorsOnly) WithValues(values ...any) logr.LogSink {
	return errorsOnly{e.LogSink.WithValues(values...)}
}

func (e errorsOnly) WithName(name string) logr.LogSink { return errorsOnly{e.LogSink.WithName(name)} }

// within is a context that ends with the command, or after --timeout.
func (o *options) within(command *cobra.Command) (context.Context, context.CancelFunc) {
	logger := klog.Background()
	if !logger.V(1).Enabled() {
		// The scheduler's parts tell a scheduler's log what a person did not ask.
		logger = logr.New(errorsOnly{logger.GetSink()})
	}
	ctx := klog.NewContext(command.Context(), logger)
	return context.WithTimeoutCause(ctx, o.timeout, fmt.Errorf("it took longer than %v; --timeout gives more", o.timeout))
}
