package netlatency

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"k8s.io/client-go/kubernetes"

	"github.com/netlatency/netlatency/apis/config"
	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/source"
)

// matrixSource publishes a matrix over and over until its context ends.
type matrixSource interface {
	Run(context.Context)
	Stats() source.Stats
}

// opener prepares the source that args name; publish takes its matrices, and
// peers gives the nodes on which targets run.
type opener func(args *config.NetLatencyArgs, client kubernetes.Interface, peers func() []string, publish func(*latency.Matrix)) (matrixSource, error)

// openSource opens the one source that valid args have.
func openSource(args *config.NetLatencyArgs, client kubernetes.Interface, peers func() []string, publish func(*latency.Matrix)) (matrixSource, error) {
	hysteresis := latency.Hysteresis{
		Ratio:     args.Hysteresis.Ratio,
		Floor:     args.Hysteresis.Floor.Duration,
		Statistic: profileStatistic(args),
	}
	switch {
	case args.Source.Agents != nil:
		agents := args.Source.Agents
		return source.NewAgents(source.AgentsOptions{
			Client:     client,
			Namespace:  agents.Namespace,
			Service:    agents.Service,
			Port:       agents.Port,
			Interval:   agents.Interval.Duration,
			Timeout:    agents.Timeout.Duration,
			Window:     args.Window.Duration,
			StaleAfter: args.StaleAfter.Duration,
			Hysteresis: hysteresis,
			Publish:    publish,
		})
	case args.Source.Prometheus != nil:
		prometheus := args.Source.Prometheus
		return source.NewPrometheus(source.PrometheusOptions{
			Address:         prometheus.Address,
			Headers:         prometheus.Headers,
			BearerTokenFile: prometheus.BearerTokenFile,
			TLS:             source.TLSOptions(prometheus.TLS),
			Interval:        prometheus.Interval.Duration,
			Timeout:         prometheus.Timeout.Duration,
			MaxBytes:        prometheus.MaxBytes,
			Queries:         source.PrometheusQueries(prometheus.Queries),
			NodeLabel:       prometheus.NodeLabel,
			PeerLabel:       prometheus.PeerLabel,
			Scale:           prometheus.Scale,
			Peers:           peers,
			StaleAfter:      args.StaleAfter.Duration,
			Hysteresis:      hysteresis,
			Publish:         publish,
		})
	case args.Source.File != nil:
		file := args.Source.File
		return source.NewFile(source.FileOptions{
			Path:       file.Path,
			Interval:   file.Interval.Duration,
			Ageing:     file.Ageing,
			StaleAfter: args.StaleAfter.Duration,
			Publish:    publish,
		})
	}
	return nil, errors.New("the arguments name no source")
}

// feed is a running source with its newest matrix, shared by the profiles
// that ask for the same. The source's goroutine stores, everybody loads.
type feed struct {
	source matrixSource
	matrix atomic.Pointer[latency.Matrix]

	mu      sync.Mutex
	wakes   []chan<- struct{} // of the profiles
	peersOf []func() []string // of the profiles
}

func (f *feed) publish(matrix *latency.Matrix) {
	f.matrix.Store(matrix)
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, wake := range f.wakes {
		wakeUp(wake)
	}
}

// peers is the nodes on which targets of any of the profiles run.
func (f *feed) peers() []string {
	f.mu.Lock()
	profiles := f.peersOf
	f.mu.Unlock()
	unique := make(map[string]bool)
	for _, nodes := range profiles {
		for _, node := range nodes() {
			unique[node] = true
		}
	}
	return slices.Collect(maps.Keys(unique))
}

// feeds is the sources of one scheduler. Its profiles are made one after the
// other, but nothing promises that.
type feeds struct {
	open opener
	mu   sync.Mutex
	by   map[string]*feed // by feedKey
}

// feedKey spells all that the matrix depends on, but for the targets' nodes,
// which profiles that share a source bring together.
func feedKey(args *config.NetLatencyArgs) (string, error) {
	key, err := json.Marshal([]any{args.Source, args.Window, args.StaleAfter, args.Hysteresis, args.Statistic})
	return string(key), err
}

// subscribe returns the feed that args ask for, tells it where targets run, and
// lets it wake up the profile at each new matrix. The first profile that asks
// starts the source.
func (fs *feeds) subscribe(ctx context.Context, args *config.NetLatencyArgs, client kubernetes.Interface, peers func() []string, metrics *profileMetrics, wake chan<- struct{}) (*feed, error) {
	key, err := feedKey(args)
	if err != nil {
		return nil, fmt.Errorf("tell the source from others: %w", err)
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f, running := fs.by[key]
	if !running {
		f = &feed{}
		if f.source, err = fs.open(args, client, f.peers, f.publish); err != nil {
			return nil, fmt.Errorf("open the source of the matrix: %w", err)
		}
	}
	f.mu.Lock()
	f.wakes = append(f.wakes, wake)
	f.peersOf = append(f.peersOf, peers)
	f.mu.Unlock()
	if !running {
		if fs.by == nil {
			fs.by = make(map[string]*feed)
		}
		fs.by[key] = f
		go metrics.guard(ctx, "source", f.source.Run)
	}
	return f, nil
}
