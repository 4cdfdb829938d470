package cluster

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// Ports on which a Ray head answers.
const (
	rayDashboardPort = 8265
	rayServePort     = 8000
)

// dashboard answers the KubeRay operator in the place of every Ray head: Serve
// applications that were deployed run at once, and the Serve proxy is healthy.
// It listens on all addresses, those of the pods among them (namespace.Pods),
// and knows a head by the one it was asked at.
type dashboard struct {
	servers []*http.Server

	mu    sync.Mutex
	heads map[netip.Addr][]serveApplication
}

// serveApplication is the part that matters here of an application in Ray's
// Serve configuration.
type serveApplication struct {
	Name        string `json:"name"`
	RoutePrefix string `json:"route_prefix"`
	Deployments []struct {
		Name string `json:"name"`
	} `json:"deployments"`
}

func startDashboard() (*dashboard, error) {
	d := &dashboard{heads: map[netip.Addr][]serveApplication{}}
	for port, handler := range map[int]http.Handler{
		rayDashboardPort: d.dashboardHandler(),
		rayServePort:     http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("success")) }),
	} {
		listener, err := net.Listen("tcp", fmt.Sprintf("0.0.0.0:%d", port))
		if err != nil {
			d.stop()
			return nil, fmt.Errorf("listen for the Ray dashboard: %w", err)
		}
		server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
		d.servers = append(d.servers, server)
		go func() { _ = server.Serve(listener) }()
	}
	return d, nil
}

func (d *dashboard) stop() {
	for _, s := range d.servers {
		_ = s.Close()
	}
}

// dashboardHandler serves /api/serve/applications/ as the Ray dashboard does
// (docs.ray.io/en/latest/serve/api, "Serve REST API").
func (d *dashboard) dashboardHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /api/serve/applications/", func(w http.ResponseWriter, r *http.Request) {
		var config struct {
			Applications []serveApplication `json:"applications"`
		}
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&config); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		d.heads[headAddress(r)] = config.Applications
	})
	mux.HandleFunc("GET /api/serve/applications/", func(w http.ResponseWriter, r *http.Request) {
		d.mu.Lock()
		applications := d.heads[headAddress(r)]
		d.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(serveDetails(applications))
	})
	return mux
}

func headAddress(r *http.Request) netip.Addr {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if local == nil {
		return netip.Addr{}
	}
	return local.AddrPort().Addr().Unmap()
}

func serveDetails(applications []serveApplication) map[string]any {
	running := map[string]any{}
	for _, a := range applications {
		deployments := map[string]any{}
		for _, deployment := range a.Deployments {
			deployments[deployment.Name] = map[string]any{"name": deployment.Name, "status": "HEALTHY"}
		}
		running[a.Name] = map[string]any{
			"name": a.Name, "status": "RUNNING", "route_prefix": a.RoutePrefix, "deployments": deployments,
		}
	}
	return map[string]any{"applications": running}
}
