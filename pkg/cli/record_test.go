package cli

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/netlatency/netlatency/pkg/exposition"
	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/source"
)

const millisecond = time.Millisecond

// schedulerConfiguration is what the chart would have installed.
const schedulerConfiguration = `
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
profiles:
- schedulerName: netlatency-scheduler
  plugins: {multiPoint: {enabled: [{name: NetLatency}]}}
  pluginConfig:
  - name: NetLatency
    args:
      targets:
      - {name: qdrant, weight: 3, maxRTT: 5ms, pods: {labelSelector: {matchLabels: {app: qdrant}}}}
      - {name: gpu, nodes: {resource: nvidia.com/gpu}}
      - {name: head, pods: {labelSelector: {matchLabels: {ray.io/node-type: head}}, matchLabelKeys: [ray.io/cluster]}}
      - {name: nowhere, service: {namespace: search, name: nothing}}
`

// apiServer is as much of one as reading the agents needs: nodes, the agents'
// Service and EndpointSlice, the scheduler's configuration, and the way to the
// agents' pods.
func apiServer(t *testing.T) *httptest.Server {
	t.Helper()
	send := func(w http.ResponseWriter, object any) {
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(object); err != nil {
			t.Error(err)
		}
	}
	slice := discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "netlatency", Name: "agents", Labels: map[string]string{discoveryv1.LabelServiceName: "netlatency-agent"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(9465))}},
	}
	mux := http.NewServeMux()
	for node, peer := range map[string]string{"a": "b", "b": "a"} {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{map[string]string{"a": "10.0.0.1", "b": "10.0.0.2"}[node]}, NodeName: new(node),
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: "agent-of-" + node},
		})
		mux.HandleFunc("GET /api/v1/namespaces/netlatency/pods/http:agent-of-"+node+":9465/proxy/matrix", func(w http.ResponseWriter, r *http.Request) {
			now := time.Now()
			window := exposition.Window{Node: node, Now: now, Rows: []exposition.Row{{Peer: peer, Distribution: latency.Distribution{
				Mean: 2 * millisecond, P50: 2 * millisecond, P90: 3 * millisecond, P99: 4 * millisecond, Min: 1 * millisecond, Samples: 100, Newest: now.Add(-time.Second), Method: "udp",
			}}}}
			families := func() ([]*dto.MetricFamily, error) { return exposition.Families(window), nil }
			promhttp.HandlerFor(prometheus.GathererFunc(families), promhttp.HandlerOpts{}).ServeHTTP(w, r)
		})
	}
	mux.HandleFunc("GET /apis/discovery.k8s.io/v1/namespaces/netlatency/endpointslices", func(w http.ResponseWriter, r *http.Request) {
		switch query := r.URL.Query(); {
		case query.Has("sendInitialEvents"): // as servers that do not stream lists
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusUnprocessableEntity)
			_ = json.NewEncoder(w).Encode(apierrors.NewInvalid(schema.GroupKind{Kind: "EndpointSlice"}, "", nil).Status())
			return
		case query.Has("watch"):
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			return
		}
		send(w, discoveryv1.EndpointSliceList{
			TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSliceList"}, ListMeta: metav1.ListMeta{ResourceVersion: "1"},
			Items: []discoveryv1.EndpointSlice{slice},
		})
	})
	mux.HandleFunc("GET /api/v1/nodes", func(w http.ResponseWriter, _ *http.Request) {
		send(w, corev1.NodeList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "NodeList"}, Items: []corev1.Node{
			{ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{"claudie.io/provider": "hetzner", corev1.LabelTopologyZone: "1"}}},
			{ObjectMeta: metav1.ObjectMeta{Name: "b"}, Spec: corev1.NodeSpec{ProviderID: "gthost://b"}},
		}})
	})
	mux.HandleFunc("GET /api/v1/services", func(w http.ResponseWriter, r *http.Request) {
		if got, want := r.URL.Query().Get("labelSelector"), "app.kubernetes.io/name=netlatency,app.kubernetes.io/component=agent"; got != want {
			t.Errorf("asked for Services with %q, want %q", got, want)
		}
		send(w, corev1.ServiceList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceList"}, Items: []corev1.Service{
			{ObjectMeta: metav1.ObjectMeta{Namespace: "netlatency", Name: "netlatency-agent"}},
		}})
	})
	mux.HandleFunc("GET /api/v1/namespaces/netlatency/configmaps", func(w http.ResponseWriter, _ *http.Request) {
		send(w, corev1.ConfigMapList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMapList"}, Items: []corev1.ConfigMap{
			{ObjectMeta: metav1.ObjectMeta{Namespace: "netlatency", Name: "netlatency-scheduler-config"}, Data: map[string]string{"scheduler-config.yaml": schedulerConfiguration}},
		}})
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("asked for %s", r.URL)
		http.NotFound(w, r)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server
}

// kubeconfig is a file that leads to server.
func kubeconfig(t *testing.T, server string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	err := clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"c": {Server: server}},
		Contexts:       map[string]*clientcmdapi.Context{"c": {Cluster: "c"}},
		CurrentContext: "c",
	}, path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func recorded(t *testing.T, path string) *source.Recording {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	r, err := source.ReadRecording(file)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// kubectl runs the program and returns what it printed.
func kubectl(t *testing.T, args ...string) (out, notes string, code int) {
	t.Helper()
	streams, _, stdout, stderr := genericiooptions.NewTestIOStreams()
	code = Run(streams, args)
	return stdout.String(), stderr.String(), code
}

func TestTheAgentsOfAClusterAreRecordedThroughItsAPIServer(t *testing.T) {
	output := filepath.Join(t.TempDir(), "matrix.jsonl.gz")
	_, notes, code := kubectl(t, "record", "-o", output, "--kubeconfig", kubeconfig(t, apiServer(t).URL))
	if code != 0 {
		t.Fatal(notes)
	}
	r := recorded(t, output)
	if r.Origin != "agents" || len(r.Observed) != 2 || r.Observed[latency.Pair{Node: "a", Peer: "b"}].Mean != 2*millisecond {
		t.Errorf("recorded from %q: %v", r.Origin, r.Observed)
	}
	groups := map[string]latency.NodeGroup{"a": {Provider: "hetzner", Zone: "1"}, "b": {Provider: "gthost"}}
	if diff := cmp.Diff(groups, r.Groups); diff != "" {
		t.Errorf("groups (-want +got):\n%s", diff)
	}
	if want := "Recorded 2 pairs of nodes, and the groups of 2 nodes, in "; !strings.HasPrefix(notes, want) {
		t.Errorf("noted %q, want %q...", notes, want)
	}
}

func TestAPrometheusIsRecorded(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query, value := r.FormValue("query"), "0.002"
		switch {
		case !strings.Contains(query, `{peer=~".+"}`):
			t.Errorf("asked %s: a recording is of all peers", query)
		case strings.Contains(query, "timestamp"):
			value = "999"
		case strings.Contains(query, "samples"), strings.Contains(query, "sent"):
			value = "100"
		case strings.Contains(query, "lost"):
			value = "0"
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"status":"success","data":{"resultType":"vector","result":[{"metric":{"node":"a","peer":"b"},"value":[1000,"` + value + `"]}]}}`))
	}))
	t.Cleanup(server.Close)
	output := filepath.Join(t.TempDir(), "matrix.jsonl")
	if _, notes, code := kubectl(t, "record", "-o", output, "--kubeconfig", kubeconfig(t, apiServer(t).URL), "--prometheus", server.URL, "--timeout", "20s"); code != 0 {
		t.Fatal(notes)
	}
	r := recorded(t, output)
	d := r.Observed[latency.Pair{Node: "a", Peer: "b"}]
	// A second when it was asked for, and older by what the answers took.
	age := r.At.Sub(d.Newest)
	if r.Origin != "prometheus" || d.Mean != 2*millisecond || age < time.Second || age > 21*time.Second || len(r.Groups) != 2 {
		t.Errorf("recorded from %q at %v: %v, groups %v", r.Origin, r.At, r.Observed, r.Groups)
	}
}

func TestWhyNothingIsRecordedIsSaid(t *testing.T) {
	api := kubeconfig(t, apiServer(t).URL)
	empty := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"status":"success","data":{"resultType":"vector","result":[]}}`))
	}))
	t.Cleanup(empty.Close)
	output := filepath.Join(t.TempDir(), "m")
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"no file to write", []string{"--kubeconfig", api}, "--output is not set: name the file to write"},
		{"no cluster", []string{"--kubeconfig", "/nowhere", "-o", output}, "find the cluster: "},
		{"a Prometheus without our rules", []string{"--kubeconfig", api, "-o", output, "--prometheus", empty.URL}, "knows no pair of nodes: does it scrape the agents"},
		{"no Prometheus", []string{"--kubeconfig", api, "-o", output, "--prometheus", "http://127.0.0.1:1"}, "could not be asked: map[connect:1]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, notes, code := kubectl(t, append([]string{"record", "--timeout", "10s"}, c.args...)...)
			if code == 0 || !strings.Contains(notes, c.want) {
				t.Errorf("exit code %d and %q, want an error with %s", code, notes, c.want)
			}
			if _, err := os.Stat(output); err == nil {
				t.Error("a file was written although nothing was recorded")
			}
		})
	}
}
