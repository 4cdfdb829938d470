package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"runtime"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/klog/v2"

	"github.com/netlatency/netlatency/pkg/ui"
)

// uiOptions is of "ui".
type uiOptions struct {
	*options
	file     string
	address  string
	port     uint16
	open     bool
	interval time.Duration
}

func newUICommand(shared *options) *cobra.Command {
	o := &uiOptions{options: shared}
	command := &cobra.Command{
		Use:   "ui",
		Short: "A page with the matrix, targets and placements",
		Long: `Serves a page, to this machine alone unless --address says otherwise: the latency
matrix as a heatmap, each node's row and column, where targets and those who want
to be near them run, and where pods were placed and why. It reads the agents every
interval and remembers what it read for as long as it runs.

It changes nothing in the cluster. It asks nobody who he is: whoever reaches the
address sees node names, latencies and the names of pods of our profiles.`,
		Example: `  kubectl netlatency ui --open
  kubectl netlatency ui --matrix matrix.jsonl.gz   # of a recording`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return o.run(klog.NewContext(command.Context(), klog.Background()))
		},
	}
	flags := command.Flags()
	flags.StringVar(&o.file, "matrix", "", "A file that record wrote, instead of the cluster; - is standard input.")
	flags.StringVar(&o.address, "address", "127.0.0.1", "IP address to listen on.")
	flags.Uint16Var(&o.port, "port", 0, "Port to listen on; 0 takes a free one.")
	flags.BoolVar(&o.open, "open", false, "Open the page in the browser.")
	flags.DurationVar(&o.interval, "interval", 10*time.Second, "How often the agents are read.")
	return command
}

// minInterval is how often the agents may be read: each read is a request to
// the API server for every node.
const minInterval = time.Second

func (o *uiOptions) run(ctx context.Context) error {
	if o.interval < minInterval {
		return fmt.Errorf("--interval is %v: want at least %v", o.interval, minInterval)
	}
	address := net.ParseIP(o.address)
	if address == nil {
		return fmt.Errorf("--address is %q: want an IP address such as 127.0.0.1", o.address)
	}
	server, err := ui.NewServer(address.IsLoopback())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watched := make(chan struct{})
	if o.file != "" {
		close(watched)
		r, err := o.readRecorded(o.file)
		if err != nil {
			return err
		}
		server.Publish(r.recorded(o.file))
	} else {
		w, err := o.newWatcher(ctx, server)
		if err != nil {
			return err
		}
		go func() {
			defer close(watched)
			w.run(ctx)
		}()
	}
	defer func() { cancel(nil); <-watched }()
	return o.serve(ctx, server)
}

// serve serves until ctx ends.
func (o *uiOptions) serve(ctx context.Context, handler http.Handler) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(o.address, strconv.Itoa(int(o.port))))
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	url := "http://" + listener.Addr().String() + "/"
	fmt.Fprintf(o.Out, "The page is at %s until this is interrupted.\n", url)
	if o.open {
		if err := openBrowser(ctx, url); err != nil {
			fmt.Fprintln(o.ErrOut, "warning: the browser could not be opened:", err)
		}
	}
	server := &http.Server{
		Handler: handler,
		// Nobody needs long for a request without a body, and a port that is
		// open to a cluster must not collect connections.
		ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: time.Minute, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 16 << 10,
	}
	stopped := context.AfterFunc(ctx, func() {
		patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		_ = server.Shutdown(patience) // what is left is cut off by the program's end
	})
	defer stopped()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the page: %w", err)
	}
	return nil
}

// openBrowser opens url as the desktop does.
func openBrowser(ctx context.Context, url string) error {
	var command []string
	switch runtime.GOOS {
	case "darwin":
		command = []string{"open", url}
	case "windows":
		command = []string{"rundll32", "url.dll,FileProtocolHandler", url}
	default:
		command = []string{"xdg-open", url}
	}
	c := exec.CommandContext(ctx, command[0], command[1:]...)
	if err := c.Start(); err != nil {
		return err
	}
	go func() { _ = c.Wait() }() // how it ends is the desktop's affair
	return nil
}

// recorded is a recording as the page shows it.
func (r *reading) recorded(file string) *ui.Snapshot {
	args := defaultArgs()
	s := &ui.Snapshot{
		Taken: r.matrix.Taken(), Recording: file, Matrix: r.matrix, Estimates: r.estimates,
		Statistic: r.statistic, StaleAfter: args.StaleAfter.Duration,
	}
	for _, node := range r.nodes {
		s.Nodes = append(s.Nodes, ui.Node{Name: node, Group: r.groups[node], Agent: ui.Agent{State: ui.AgentRecorded}})
	}
	return s
}
