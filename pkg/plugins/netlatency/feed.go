package netlatency

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

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

// opener prepares the source that args name; publish takes its matrices.
type opener func(args *config.NetLatencyArgs, client kubernetes.Interface, publish func(*latency.Matrix)) (matrixSource, error)

// openSource opens the probe agents.
func openSource(args *config.NetLatencyArgs, client kubernetes.Interface, publish func(*latency.Matrix)) (matrixSource, error) {
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
		Hysteresis: latency.Hysteresis{
			Ratio:     args.Hysteresis.Ratio,
			Floor:     args.Hysteresis.Floor.Duration,
			Statistic: profileStatistic(args),
		},
		Publish: publish,
	})
}

// feed is a running source with its newest matrix, shared by the profiles
// that ask for the same. The source's goroutine stores, everybody loads.
type feed struct {
	source matrixSource
	matrix atomic.Pointer[latency.Matrix]

	mu    sync.Mutex
	wakes []chan<- struct{} // of the profiles
}

func (f *feed) publish(matrix *latency.Matrix) {
	f.matrix.Store(matrix)
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, wake := range f.wakes {
		wakeUp(wake)
	}
}

// feeds is the sources of one scheduler. Its profiles are made one after the
// other, but nothing promises that.
type feeds struct {
	open opener
	mu   sync.Mutex
	by   map[feedKey]*feed
}

// feedKey is all that the matrix depends on.
type feedKey struct {
	agents             config.AgentsSource
	window, staleAfter time.Duration
	hysteresis         config.Hysteresis
	statistic          config.Statistic
}

// subscribe returns the feed that args ask for, and lets it wake up the
// profile at each new matrix. The first profile that asks starts the source.
func (fs *feeds) subscribe(ctx context.Context, args *config.NetLatencyArgs, client kubernetes.Interface, metrics *profileMetrics, wake chan<- struct{}) (*feed, error) {
	key := feedKey{
		agents:     *args.Source.Agents,
		window:     args.Window.Duration,
		staleAfter: args.StaleAfter.Duration,
		hysteresis: args.Hysteresis,
		statistic:  args.Statistic,
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f, running := fs.by[key]
	if !running {
		f = &feed{}
		var err error
		if f.source, err = fs.open(args, client, f.publish); err != nil {
			return nil, fmt.Errorf("open the source of the matrix: %w", err)
		}
	}
	f.mu.Lock()
	f.wakes = append(f.wakes, wake)
	f.mu.Unlock()
	if !running {
		if fs.by == nil {
			fs.by = make(map[feedKey]*feed)
		}
		fs.by[key] = f
		go metrics.guard(ctx, "source", f.source.Run)
	}
	return f, nil
}
