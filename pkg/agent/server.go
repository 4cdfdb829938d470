package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"k8s.io/klog/v2"

	"github.com/netlatency/netlatency/pkg/exposition"
)

const (
	// maxReads bounds how many readers of /matrix or /metrics are served at
	// once: a Prometheus pair, two schedulers and a person, doubled. A read of
	// a thousand peers holds about a megabyte.
	maxReads = 10
	// shutdownTimeout is how long readers have to finish when the agent stops.
	shutdownTimeout = time.Second
)

// handler serves the agent's HTTP endpoints.
func (a *Agent) handler(logger klog.Logger) http.Handler {
	log := scrapeLog{logger}
	metrics := promhttp.HandlerFor(a.metrics.registry, promhttp.HandlerOpts{ErrorLog: log, ErrorHandling: promhttp.ContinueOnError})
	matrix := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		span, ok := windowOf(r)
		if !ok {
			http.Error(w, fmt.Sprintf("The parameter %s is %q: give a positive duration with its unit, for instance 2m or 90s.",
				exposition.WindowParameter, r.URL.Query().Get(exposition.WindowParameter)), http.StatusBadRequest)
			return
		}
		gatherer := prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) { return exposition.Families(a.Window(span)), nil })
		promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{ErrorLog: log}).ServeHTTP(w, r)
	})

	mux := http.NewServeMux()
	mux.Handle("GET "+exposition.MetricsPath, atMost(maxReads, metrics))
	mux.Handle("GET "+exposition.MatrixPath, atMost(maxReads, matrix))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		// The sockets are open before this handler serves.
		if !a.discovery.Synced() {
			http.Error(w, "The EndpointSlices of the agents' Service have not been read yet.", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	if a.options.SampleStream {
		mux.Handle("GET "+samplesPath, a.stream)
	}
	return mux
}

// windowOf reads the span that a reader of the matrix asks for, 0 when it
// does not. ok is false if what it asks for is no span.
func windowOf(r *http.Request) (span time.Duration, ok bool) {
	query := r.URL.Query()
	if !query.Has(exposition.WindowParameter) {
		return 0, true
	}
	span, err := time.ParseDuration(query.Get(exposition.WindowParameter))
	return span, err == nil && span > 0
}

// atMost refuses requests beyond n at once, so that no crowd of readers can
// exhaust the agent's memory.
func atMost(n int, next http.Handler) http.Handler {
	slots := make(chan struct{}, n)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
			next.ServeHTTP(w, r)
		default:
			http.Error(w, fmt.Sprintf("This agent is serving %d readers of %s already. Try again later.", n, r.URL.Path), http.StatusServiceUnavailable)
		}
	})
}

// listen listens for HTTP at each of the agent's addresses.
func (a *Agent) listen(ctx context.Context) (listeners []net.Listener, err error) {
	for _, own := range a.own {
		address := netip.AddrPortFrom(own, uint16(a.options.HTTPPort)).String()
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
		if err != nil {
			for _, other := range listeners {
				_ = other.Close()
			}
			return nil, fmt.Errorf("listen for HTTP on %s: %w", address, err)
		}
		listeners = append(listeners, l)
	}
	return listeners, nil
}

// serve answers on the listeners until ctx ends, and then lets readers finish.
func (a *Agent) serve(ctx context.Context, listeners []net.Listener) error {
	logger := klog.FromContext(ctx)
	server := &http.Server{
		Handler:           a.handler(logger),
		BaseContext:       func(net.Listener) context.Context { return ctx }, // ends sample streams
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
	served := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() {
			if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				served <- fmt.Errorf("serve HTTP on %s: %w", l.Addr(), err)
				return
			}
			served <- nil
		}()
	}
	select {
	case err := <-served:
		_ = server.Close()
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		logger.V(2).Info("Closing connections whose requests did not finish", "err", err)
		err = server.Close()
		if err != nil {
			return fmt.Errorf("close the HTTP server: %w", err)
		}
	}
	for range listeners {
		if err := <-served; err != nil {
			return err
		}
	}
	return nil
}

// scrapeLog lets promhttp say what went wrong with a read.
type scrapeLog struct{ logger klog.Logger }

// Println implements promhttp.Logger.
func (l scrapeLog) Println(v ...any) {
	l.logger.V(2).Info("A read was not served in full", "reason", fmt.Sprint(v...))
}
