package chart_test

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

const dashboardFile = chartDirectory + "/dashboards/netlatency.json"

// dashboardPanel is a panel as far as tests look at it. The queries themselves
// are run in test/integration.
type dashboardPanel struct {
	ID                       int
	Type, Title, Description string
	GridPos                  struct{ X, Y, W, H int }
	Targets                  []struct{ Expr string }
}

func readDashboard(t *testing.T) (text string, panels []dashboardPanel) {
	t.Helper()
	data, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct{ Panels []dashboardPanel }
	if err := json.Unmarshal(data, &dashboard); err != nil {
		t.Fatal(err)
	}
	return string(data), dashboard.Panels
}

func TestThePanelsOfTheDashboard(t *testing.T) {
	_, panels := readDashboard(t)
	ids, titles, taken := make(map[int]bool), make(map[string]bool), make(map[[2]int]string)
	for _, p := range panels {
		if ids[p.ID] || titles[p.Title] {
			t.Errorf("there are two panels %d %q", p.ID, p.Title)
		}
		ids[p.ID], titles[p.Title] = true, true
		if p.Type != "row" && (p.Description == "" || len(p.Targets) == 0) {
			t.Errorf("%q shows nothing, or does not say what", p.Title)
		}
		if p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("%q is beyond the right edge", p.Title)
		}
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if other, ok := taken[at]; ok {
					t.Fatalf("%q is upon %q", p.Title, other)
				}
				taken[at] = p.Title
			}
		}
		for _, target := range p.Targets {
			for _, name := range unknownSeries(t, target.Expr) {
				t.Errorf("%q asks for %s, which there is not", p.Title, name)
			}
		}
	}
}

func TestTheChartShipsTheDashboard(t *testing.T) {
	text, _ := readDashboard(t)
	if _, there := render(t, "")["ConfigMap netlatency/netlatency-dashboard"]; there {
		t.Error("it is there by default")
	}
	shipped := get[*corev1.ConfigMap](t, render(t, "dashboard: {enabled: true, annotations: {grafana_folder: Scheduling}}"), "ConfigMap netlatency/netlatency-dashboard")
	if diff := cmp.Diff(text, shipped.Data["netlatency.json"]); diff != "" {
		t.Errorf("dashboard (-file +ConfigMap):\n%s", diff)
	}
	if shipped.Labels["grafana_dashboard"] != "1" || shipped.Annotations["grafana_folder"] != "Scheduling" {
		t.Errorf("labels %v and annotations %v: the sidecar does not see it", shipped.Labels, shipped.Annotations)
	}
}
