package sandbox

import (
	"context"
	"fmt"
	"io"
	"net/http"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/netlatency/netlatency/pkg/exposition"
)

const schedulerPort = 10259

// SchedulerPods lists the pods of our scheduler that are ready.
func (s *Sandbox) SchedulerPods(ctx context.Context) ([]corev1.Pod, error) {
	pods, err := s.Cluster.Client().CoreV1().Pods(Namespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=scheduler"})
	if err != nil {
		return nil, err
	}
	var ready []corev1.Pod
	for _, p := range pods.Items {
		if podReady(&p) {
			ready = append(ready, p)
		}
	}
	return ready, nil
}

// SchedulerMetrics reads the /metrics of one of our schedulers, authorized by
// the API server as any reader of a kube-scheduler is.
func (s *Sandbox) SchedulerMetrics(ctx context.Context, pod *corev1.Pod) (map[string]*dto.MetricFamily, error) {
	config := s.Cluster.Config()
	// The scheduler signs its serving certificate itself.
	config.TLSClientConfig = rest.TLSClientConfig{Insecure: true, CertData: config.CertData, KeyData: config.KeyData, CertFile: config.CertFile, KeyFile: config.KeyFile}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("https://%s:%d/metrics", pod.Status.PodIP, schedulerPort), nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("read metrics of pod %s: %w", pod.Name, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("read metrics of pod %s: %s", pod.Name, response.Status)
	}
	families, err := parse(response.Body)
	if err != nil {
		return nil, fmt.Errorf("read metrics of pod %s: %w", pod.Name, err)
	}
	return families, nil
}

// AgentMetrics reads the /metrics of the agent on a node.
func (s *Sandbox) AgentMetrics(ctx context.Context, node string) (map[string]*dto.MetricFamily, error) {
	response, err := s.get(ctx, client, node, exposition.MetricsPath)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	families, err := parse(response.Body)
	if err != nil {
		return nil, fmt.Errorf("read metrics of the agent on node %q: %w", node, err)
	}
	return families, nil
}

func parse(text io.Reader) (map[string]*dto.MetricFamily, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	return parser.TextToMetricFamilies(text)
}

// MetricValue sums the values of a counter or gauge over the series that have
// all the given labels; 0 when there is none.
func MetricValue(families map[string]*dto.MetricFamily, name string, labels map[string]string) float64 {
	var sum float64
	for _, m := range families[name].GetMetric() {
		matching := 0
		for _, l := range m.GetLabel() {
			if want, ok := labels[l.GetName()]; ok && want == l.GetValue() {
				matching++
			}
		}
		if matching == len(labels) {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}

// SchedulersKnow waits until every ready scheduler, of which there are as many
// as the chart asks for, holds a matrix of at least that many pairs.
func (s *Sandbox) SchedulersKnow(ctx context.Context, replicas, pairs int) error {
	return s.until(ctx, "the schedulers to know the latencies", func() (string, error) {
		pods, err := s.SchedulerPods(ctx)
		if err != nil {
			return "", err
		}
		if len(pods) < replicas {
			return fmt.Sprintf("%d of %d schedulers are ready", len(pods), replicas), nil
		}
		for i := range pods {
			families, err := s.SchedulerMetrics(ctx, &pods[i])
			if err != nil {
				return "", err
			}
			known := MetricValue(families, "netlatency_matrix_pairs", map[string]string{"profile": SchedulerName})
			if int(known) < pairs {
				return fmt.Sprintf("pod %s knows %.0f of %d pairs", pods[i].Name, known, pairs), nil
			}
		}
		return "", nil
	})
}
