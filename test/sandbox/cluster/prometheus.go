package cluster

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
)

// Prometheus and Promtool are a Prometheus server and the tool that tests its
// rules. Nothing of the sandbox needs them: whoever starts one builds them.
var (
	Prometheus = Binary{Name: "prometheus", module: "hack/tools/prometheus", pkg: prometheusModule + "/cmd/prometheus", tags: prometheusTags}
	Promtool   = Binary{Name: "promtool", module: "hack/tools/prometheus", pkg: prometheusModule + "/cmd/promtool", tags: prometheusTags}
)

const (
	prometheusModule = "github.com/prometheus/prometheus"
	// prometheusTags leave out the clients of every cloud: targets are listed in
	// the configuration here.
	prometheusTags = "remove_all_sd"
)

// StartPrometheus starts a Prometheus server with a configuration, and returns
// its URL, inside the sandbox, when it is ready. It ends with the cluster.
// files, by name, are put beside the configuration, which may name them.
func (c *Cluster) StartPrometheus(ctx context.Context, config []byte, files map[string][]byte) (string, error) {
	dir := filepath.Join(c.options.Dir, "prometheus")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	configFile := filepath.Join(dir, "prometheus.yaml")
	if err := os.WriteFile(configFile, config, 0o644); err != nil {
		return "", err
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return "", err
		}
	}
	address, err := freeAddress()
	if err != nil {
		return "", err
	}
	if err := c.run("prometheus", nil, Prometheus,
		"--config.file="+configFile, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address, "--log.level=warn",
	); err != nil {
		return "", err
	}
	url := "http://" + address
	return url, c.poll(ctx, "Prometheus", func(ctx context.Context) string {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/-/ready", nil)
		if err != nil {
			return err.Error()
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err.Error()
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Sprintf("it is not ready: %s", response.Status)
		}
		return ""
	})
}
