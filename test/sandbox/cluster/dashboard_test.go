package cluster

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDashboardRunsWhatWasDeployedOnThatHead(t *testing.T) {
	d := &dashboard{heads: map[netip.Addr][]serveApplication{}}
	server := httptest.NewUnstartedServer(d.dashboardHandler())
	_ = server.Listener.Close()
	listener, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	server.Listener = listener
	server.Start()
	defer server.Close()
	port := strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)

	call := func(method, head, body string) string {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), method, "http://"+net.JoinHostPort(head, port)+"/api/serve/applications/", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = response.Body.Close() }()
		answer, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return strconv.Itoa(response.StatusCode) + " " + string(answer)
	}
	if got := call(http.MethodPut, "127.0.0.1", `{"applications": [{"name": "search", "route_prefix": "/", "deployments": [{"name": "Search"}]}]}`); !strings.HasPrefix(got, "200") {
		t.Fatalf("deployment was answered with %s", got)
	}
	if got := call(http.MethodPut, "127.0.0.1", `{"applications": 1}`); !strings.HasPrefix(got, "400") {
		t.Errorf("a malformed deployment was answered with %s", got)
	}
	for head, want := range map[string]string{
		"127.0.0.1": `{"applications": {"search": {"name": "search", "status": "RUNNING", "route_prefix": "/", "deployments": {"Search": {"name": "Search", "status": "HEALTHY"}}}}}`,
		"127.0.0.2": `{"applications": {}}`,
	} {
		var got, wanted any
		answer, _ := strings.CutPrefix(call(http.MethodGet, head, ""), "200 ")
		if err := json.Unmarshal([]byte(answer), &got); err != nil {
			t.Fatalf("%s: %v", answer, err)
		}
		if err := json.Unmarshal([]byte(want), &wanted); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(wanted, got); diff != "" {
			t.Errorf("applications of head %s (-want +got):\n%s", head, diff)
		}
	}
}
