// Command scheduler is kube-scheduler with the NetLatency plugin, to run beside
// the cluster's own scheduler, or instead of it.
package main

import (
	"os"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"          // --logging-format=json
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // metrics of the client and its queues
	_ "k8s.io/component-base/metrics/prometheus/version"  // kubernetes_build_info
	"k8s.io/kubernetes/cmd/kube-scheduler/app"

	_ "github.com/netlatency/netlatency/apis/config/scheme" // NetLatencyArgs in configuration files
	"github.com/netlatency/netlatency/pkg/memory"
	"github.com/netlatency/netlatency/pkg/plugins/netlatency"
)

func main() {
	memory.Use()
	os.Exit(cli.Run(newCommand()))
}

func newCommand() *cobra.Command {
	command := app.NewSchedulerCommand(plugins()...)
	command.Use = "netlatency-scheduler"
	return command
}

// plugins is what makes the difference to kube-scheduler.
func plugins() []app.Option {
	return []app.Option{app.WithPlugin(netlatency.Name, netlatency.New())}
}
