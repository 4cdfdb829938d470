package main

import (
	"bytes"
	"context"
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
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/netlatency/netlatency/pkg/exposition"
	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/source"
)

const ms = time.Millisecond

// apiServer is as much of one as a recording needs: nodes, the agents'
// EndpointSlice, and the way to their pods.
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
				Mean: 2 * ms, P50: 2 * ms, P90: 3 * ms, P99: 4 * ms, Min: 1 * ms, Samples: 100, Newest: now.Add(-time.Second), Method: "udp",
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

func TestTheAgentsOfAClusterAreRecordedThroughItsAPIServer(t *testing.T) {
	output := filepath.Join(t.TempDir(), "matrix.jsonl.gz")
	o := options{
		output: output, kubeconfig: kubeconfig(t, apiServer(t).URL),
		namespace: "netlatency", service: "netlatency-agent", port: "http", timeout: 20 * time.Second,
	}
	var notes bytes.Buffer
	if err := run(t.Context(), o, &notes); err != nil {
		t.Fatal(err)
	}
	r := recorded(t, output)
	if r.Origin != "agents" || len(r.Observed) != 2 || r.Observed[latency.Pair{Node: "a", Peer: "b"}].Mean != 2*ms {
		t.Errorf("recorded from %q: %v", r.Origin, r.Observed)
	}
	groups := map[string]latency.NodeGroup{"a": {Provider: "hetzner", Zone: "1"}, "b": {Provider: "gthost"}}
	if diff := cmp.Diff(groups, r.Groups); diff != "" {
		t.Errorf("groups (-want +got):\n%s", diff)
	}
	if want := "Recorded 2 pairs of nodes, and the groups of 2 nodes, in "; !strings.HasPrefix(notes.String(), want) {
		t.Errorf("noted %q, want %q...", notes.String(), want)
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
	o := options{output: output, kubeconfig: kubeconfig(t, apiServer(t).URL), prometheus: server.URL, timeout: 20 * time.Second}
	if err := run(t.Context(), o, &bytes.Buffer{}); err != nil {
		t.Fatal(err)
	}
	r := recorded(t, output)
	d := r.Observed[latency.Pair{Node: "a", Peer: "b"}]
	// A second when it was asked for, and older by what the answers took.
	age := r.At.Sub(d.Newest)
	if r.Origin != "prometheus" || d.Mean != 2*ms || age < time.Second || age > time.Second+o.timeout || len(r.Groups) != 2 {
		t.Errorf("recorded from %q at %v: %v, groups %v", r.Origin, r.At, r.Observed, r.Groups)
	}
}

func TestWhyNothingIsRecordedIsSaid(t *testing.T) {
	api := kubeconfig(t, apiServer(t).URL)
	empty := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"status":"success","data":{"resultType":"vector","result":[]}}`))
	}))
	t.Cleanup(empty.Close)
	for _, c := range []struct {
		name   string
		change func(*options)
		want   string
	}{
		{"no file to write", func(o *options) { o.output = "" }, "-o is not set: name the file to write"},
		{"no cluster", func(o *options) { o.kubeconfig = "/nowhere" }, "find the cluster: "},
		{"a Service without agents", func(o *options) { o.port = "https" }, "none of 2 agents answered: map[port:2]"},
		{"a Prometheus without our rules", func(o *options) { o.prometheus = empty.URL }, "knows no pair of nodes: does it scrape the agents"},
		{"no Prometheus", func(o *options) { o.prometheus = "http://127.0.0.1:1" }, "could not be asked: map[connect:1]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := options{output: filepath.Join(t.TempDir(), "m"), kubeconfig: api, namespace: "netlatency", service: "netlatency-agent", port: "http", timeout: 10 * time.Second}
			c.change(&o)
			err := run(context.Background(), o, &bytes.Buffer{})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got error %v, want one with %s", err, c.want)
			}
			if _, err := os.Stat(o.output); err == nil {
				t.Error("a file was written although nothing was recorded")
			}
		})
	}
}
