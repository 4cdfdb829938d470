package ui

import (
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/netlatency/netlatency/pkg/ui"
	"github.com/netlatency/netlatency/test/ui/browser"
)

const (
	width  = 1440
	height = 1000
)

func TestMain(m *testing.M) {
	code := m.Run()
	browser.Stop()
	os.Exit(code)
}

func open(tb testing.TB, url string, width, height int64, dark bool) *browser.Tab {
	tb.Helper()
	return browser.Open(tb, filepath.Join("..", "..", "build", "ui"), url, width, height, dark)
}

// served is a snapshot at a URL.
func served(tb testing.TB, s *ui.Snapshot) string {
	tb.Helper()
	server, err := ui.NewServer(true)
	if err != nil {
		tb.Fatal(err)
	}
	server.Publish(s)
	web := httptest.NewServer(server)
	tb.Cleanup(web.Close)
	return web.URL + "/"
}

// cell is the selector of a cell of the table between nodes, by its label.
func cell(from, to string) string {
	return fmt.Sprintf(`.nodes td[aria-label^="%s to %s:"]`, from, to)
}

func TestARecordingIsShown(t *testing.T) {
	now := time.Now()
	p := open(t, browser.Serve(t, "--matrix", smallCluster(now, 1).file(t, now)), width, height, false)
	p.Drawn()
	if n := browser.Value[int](p, `document.querySelectorAll(".nodes td.cell").length`); n != 12*12 {
		t.Errorf("the heatmap has %d cells: want 144", n)
	}
	if status := p.Text("#status"); !strings.Contains(status, "Recording") {
		t.Errorf("the status is %q", status)
	}
	p.Run(chromedp.Click(cell("hetzner-1", "gthost-1")))
	p.Until("the details", `document.querySelector(".details .numbers")`)
	if details := p.Text(".details"); !strings.Contains(details, "it has no history") || !strings.Contains(details, "120") {
		t.Errorf("the details are %q", details)
	}
	for _, view := range []string{"targets", "placements"} {
		browser.Value[any](p, "location.hash = "+fmt.Sprintf("%q", view))
		p.Until(view, `document.querySelector("main").innerText.includes("A recording has latencies alone")`)
	}
	p.Screenshot("recording-placements")
	p.Quiet()
}

func TestTheMatrixOfACluster(t *testing.T) {
	_, url, publish := live(t)
	p := open(t, url, width, height, false)
	p.Drawn()
	p.Screenshot("matrix-12-light")

	// Measured, estimated, its own, stale, and with losses.
	for _, want := range []struct{ from, to, text, says string }{
		{"gthost-1", "hetzner-1", "0.5", "measured"},
		{"gthost-1", "gthost-2", "~0.2", "measured the other way"},
		{"gthost-3", "neuralrack-2", "~1", "estimated from the groups of the nodes"},
		{"hetzner-2", "gthost-1", "", "measured"},
		{"gthost-1", "gthost-1", "", "the node itself"},
	} {
		text, label := p.Text(cell(want.from, want.to)), browser.Value[string](p, fmt.Sprintf("document.querySelector(%q).ariaLabel", cell(want.from, want.to)))
		if !strings.HasPrefix(text, want.text) || !strings.Contains(label, want.says) {
			t.Errorf("%s to %s: it shows %q and says %q, want %s… and %s", want.from, want.to, text, label, want.text, want.says)
		}
	}
	for name, want := range map[string]string{"Loss": "1.59", "Basis": "measured", "Method": "udp", "Age": " s", "p50": "0.", "p99": "0."} {
		choose(p, "Show", name)
		p.Until(name, fmt.Sprintf(`document.querySelector(%q).innerText.includes(%q)`, cell("hetzner-2", "gthost-1"), want))
		p.Screenshot("matrix-12-" + strings.ToLower(name))
	}
	choose(p, "Show", "Latency")

	p.Run(chromedp.Click(cell("hetzner-1", "neuralrack-1")))
	p.Until("the chart", `document.querySelector(".details .uplot canvas")`)
	details := p.Text(".details")
	for _, want := range []string{"hetzner-1 → neuralrack-1", "120", "none lost", "udp", "since it started, at", "points"} {
		if !strings.Contains(details, want) {
			t.Errorf("the details lack %q: %q", want, details)
		}
	}
	p.Screenshot("details-light")
	if told := p.Text("#problems"); !strings.Contains(told, "neuralrack-3 did not answer") {
		t.Errorf("of the silent agent it says %q", told)
	}

	publish(func(s *ui.Snapshot) {
		s.Nodes[11].Agent = s.Nodes[0].Agent
		s.Problems = []string{"list and watch pods: pods is forbidden"}
	})
	p.Until("the next snapshot", `document.querySelector("#status").innerText === "12 of 12 agents answered" && document.querySelector("#problems").innerText.includes("Pods is forbidden") === false`)
	p.Until("the problem", `document.querySelector("#problems").innerText.includes("ist and watch pods")`)
	p.Until("the details to stay", `document.querySelector(".details .uplot canvas")`)
	p.Quiet()
}

// choose presses a radio button.
func choose(p *browser.Tab, legend, label string) {
	p.Helper()
	browser.Value[any](p, fmt.Sprintf(`[...document.querySelectorAll("fieldset")].find(f => f.querySelector("legend").textContent === %q).querySelectorAll("label").forEach(l => l.textContent === %q && l.click())`, legend, label))
}

func TestNodesTargetsAndPlacements(t *testing.T) {
	_, url, _ := live(t)
	for _, dark := range []bool{false, true} {
		mode := map[bool]string{false: "light", true: "dark"}[dark]
		t.Run(mode, func(t *testing.T) {
			p := open(t, url+"#nodes/hetzner-2", width, height, dark)
			for _, view := range []struct {
				name, ready string
				want        []string
			}{
				{"nodes", `document.querySelectorAll(".one tbody tr").length === 11`, []string{"12 nodes; 11 of 12 agents answered, 1 did not", "does not answer for 4 min", "from hetzner-2", "to hetzner-2", "eu-central, fsn1"}},
				{"targets", `document.querySelectorAll(".target").length === 4`, []string{"3 replicas, 22 pods want to be near", "weight 3 · Mean · at most 5ms", "It runs nowhere", "another one for each pod", "app.kubernetes.io/name=qdrant", "0.57 ms"}},
				{"placements", `document.querySelectorAll(".placements-view tbody tr").length === 21`, []string{"21 pods, 1 of them waiting", "beyond maxRTT 5ms of target qdrant", "Nearest of 9 nodes", "By latency the 4th of 6 nodes", "but for the plugin NodeResourcesFit", "but for something that cannot be told", "NetLatencyFar", "qdrant 0.56 ms"}},
			} {
				if view.name != "nodes" {
					browser.Value[any](p, fmt.Sprintf("location.hash = %q", view.name))
				}
				p.Until(view.name, view.ready)
				text := p.Text("main")
				for _, want := range view.want {
					if !strings.Contains(text, want) {
						t.Errorf("%s lacks %q: %q", view.name, want, text)
					}
				}
				p.Screenshot(view.name + "-" + mode)
			}
			browser.Value[any](p, `location.hash = "nodes"`)
			p.Until("the filter", `document.querySelector("#search")`)
			p.Run(chromedp.SendKeys("#search", "neural"))
			p.Until("three nodes", `document.querySelectorAll(".nodes-view .columns > section:first-child tbody tr").length === 3`)
			p.Quiet()
		})
	}
}

func TestTheKeyboardAlone(t *testing.T) {
	_, url, _ := live(t)
	p := open(t, url, width, height, true)
	p.Drawn()
	browser.Value[any](p, `document.querySelector(".nodes td.cell[tabindex='0']").focus()`)
	focused := func() string {
		return strings.SplitN(browser.Value[string](p, `document.activeElement.ariaLabel ?? ""`), ":", 2)[0]
	}
	for _, step := range []struct {
		key  string
		with chromedp.KeyOption
		want string
	}{
		{kb.ArrowDown, nil, "gthost-2 to gthost-2"},
		{kb.ArrowRight, nil, "gthost-2 to gthost-3"},
		{kb.ArrowRight, chromedp.KeyModifiers(2), "gthost-2 to hetzner-1"},
		{kb.ArrowDown, chromedp.KeyModifiers(2), "hetzner-1 to hetzner-1"},
		{kb.End, nil, "hetzner-1 to neuralrack-3"},
		{kb.ArrowLeft, nil, "hetzner-1 to neuralrack-2"},
	} {
		if step.with != nil {
			p.Press(step.key, step.with)
		} else {
			p.Press(step.key)
		}
		if got := focused(); got != step.want {
			t.Fatalf("the focus is on %q, want %q", got, step.want)
		}
	}
	if n := browser.Value[int](p, `document.querySelectorAll(".nodes td[tabindex='0']").length`); n != 1 {
		t.Errorf("%d cells are stops of the Tab key: want one", n)
	}
	p.Press(kb.Enter)
	p.Until("the details", `document.querySelector(".details .numbers")`)
	p.Screenshot("details-dark")
	if got := focused(); got != "hetzner-1 to neuralrack-2" {
		t.Errorf("after Enter the focus is on %q", got)
	}
	browser.Value[any](p, `document.querySelector(".details .icon").focus()`)
	p.Press(kb.Escape)
	p.Until("the details to close", `!document.querySelector(".details .numbers")`)
	p.Quiet()
}

func TestFiveHundredNodes(t *testing.T) {
	now := time.Now()
	url := served(t, largeCluster(500, now).snapshot(now))
	for _, dark := range []bool{false, true} {
		mode := map[bool]string{false: "light", true: "dark"}[dark]
		t.Run(mode, func(t *testing.T) {
			p := open(t, url, width, height, dark)
			p.Drawn()
			p.Until("the canvas", `document.querySelector(".scroller").dataset.drawn`)
			p.Screenshot("matrix-500-" + mode)
			// The middle of the whole is between two providers, and no empty paper.
			colours := browser.Value[int](p, `(() => { const c = document.querySelector(".scroller canvas"); const d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data; const s = new Set(); for (let i = 0; i < d.length; i += 4) s.add(d[i] << 16 | d[i+1] << 8 | d[i+2]); return s.size; })()`)
			if colours < 100 {
				t.Errorf("the canvas has %d colours: want those of a quarter of a million cells", colours)
			}

			p.Run(chromedp.Focus(".scroller"))
			p.Press(kb.ArrowRight, chromedp.KeyModifiers(2))
			p.Press(kb.ArrowDown)
			p.Until("the cell to be said", `/^\S+ to \S+: Latency .* ms|µs/.test(document.querySelector(".canvas [aria-live]").textContent)`)
			said := p.Text(".canvas [aria-live]")
			p.Press(kb.Enter)
			p.Until("the details", `document.querySelector(".details .numbers")`)
			head, _, _ := strings.Cut(strings.ReplaceAll(p.Text(".details h2"), " → ", " to "), "\n")
			if !strings.HasPrefix(said, head+":") {
				t.Errorf("the details are of %q, where the focus was on %q", head, said)
			}
			p.Screenshot("details-500-" + mode)

			p.Run(chromedp.Click(`.providers td[aria-label^="provider-0 to provider-1:"]`))
			p.Until("one block", `document.querySelector("#from").value === "provider-0" && document.querySelector("#to").value === "provider-1"`)
			for range 6 {
				p.Run(chromedp.Click(`.zoom button[aria-label="Zoom in"]`))
			}
			p.Screenshot("matrix-500-zoomed-" + mode)
			choose(p, "View", "Table")
			p.Until("the table", `document.querySelectorAll(".nodes .list tbody tr").length === 100`)
			if pages := p.Text(".pages"); !strings.Contains(pages, "of 279") { // 167 · 167 pairs
				t.Errorf("the table says %q", pages)
			}
			p.Screenshot("table-500-" + mode)
			p.Quiet()
		})
	}
}

func TestMoreNodesThanAreDrawn(t *testing.T) {
	now := time.Now()
	c := largeCluster(40, now)
	for i := range 1000 {
		c.nodes = append(c.nodes, ui.Node{Name: fmt.Sprintf("bare-%d", i), Agent: ui.Agent{State: ui.AgentNone}})
	}
	p := open(t, served(t, c.snapshot(now)), width, height, false)
	p.Drawn()
	if text := p.Text(".nodes"); !strings.Contains(text, "more than the 1000 of which every pair is shown") {
		t.Errorf("it says %q", text)
	}
	if text := p.Text(`.providers td[aria-label^="provider-0 to provider-1:"]`); !strings.HasPrefix(text, "0.") {
		t.Errorf("between providers it shows %q", text)
	}
	p.Quiet()
}

func TestAServerThatIsGoneIsSaid(t *testing.T) {
	now := time.Now()
	server, err := ui.NewServer(true)
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(server)
	defer web.Close()
	p := open(t, web.URL+"/", width, height, false)
	p.Until("that it reads", `document.querySelector("main").innerText.includes("Reading the cluster")`)
	s := smallCluster(now, 1).snapshot(now)
	s.Interval = time.Second
	server.Publish(s)
	p.Drawn()
	web.CloseClientConnections()
	web.Close()
	p.Until("that the server is gone", `document.querySelector("#status").innerText === "Server unreachable"`)
	if told := p.Text("#problems"); !strings.Contains(told, "has not answered for") || !strings.Contains(told, "What is shown was read") {
		t.Errorf("it says %q", told)
	}
	p.Screenshot("unreachable")
}

func TestAnEmptyCluster(t *testing.T) {
	now := time.Now()
	s := (&cluster{}).snapshot(now)
	s.Problems = []string{"there is no ready agent"}
	p := open(t, served(t, s), width, height, false)
	p.Until("that there is nothing", `document.querySelector(".nodes")?.innerText.includes("There are no nodes yet")`)
	for view, want := range map[string]string{"nodes": "no nodes yet", "targets": "could not be read", "placements": "No pod has the schedulerName"} {
		browser.Value[any](p, fmt.Sprintf("location.hash = %q", view))
		p.Until(view, fmt.Sprintf(`document.querySelector("main").innerText.includes(%q)`, want))
	}
	p.Quiet()
}

// axe is what judges accessibility.
func axe(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "web", "node_modules", "axe-core", "axe.min.js"))
	if err != nil {
		t.Fatalf("axe-core is not there: hack/test-ui.sh installs it by npm: %v", err)
	}
	return string(text)
}

func TestAccessibility(t *testing.T) {
	now := time.Now()
	_, url, _ := live(t)
	large := served(t, largeCluster(60, now).snapshot(now))
	script := axe(t)
	for _, dark := range []bool{false, true} {
		for _, size := range []int64{width, 480} {
			t.Run(fmt.Sprintf("dark=%v,width=%d", dark, size), func(t *testing.T) {
				p := open(t, url, size, height, dark)
				p.Drawn()
				// What a debugger evaluates is no part of the page, and its policy
				// need not be lifted.
				browser.Value[any](p, script+"; true")
				judge := func(what string) {
					t.Helper()
					found := browser.Value[[]string](p, `axe.run(document, {resultTypes: ["violations"]}).then(r => r.violations.filter(v => ["serious", "critical"].includes(v.impact)).map(v => v.impact + " " + v.id + ": " + v.help + ": " + v.nodes.slice(0, 3).map(n => n.html.slice(0, 160) + " " + (n.any[0]?.message ?? "")).join(" | ")))`)
					for _, violation := range found {
						t.Errorf("%s: %s", what, violation)
					}
					if over := browser.Value[int](p, `document.documentElement.scrollWidth - innerWidth`); over > 0 {
						t.Errorf("%s: the page is %d pixels wider than the window", what, over)
					}
				}
				judge("the matrix")
				p.Run(chromedp.Evaluate(fmt.Sprintf("document.querySelector(%q).click()", cell("hetzner-1", "neuralrack-1")), nil))
				p.Until("the details", `document.querySelector(".details .uplot canvas")`)
				judge("the details")
				choose(p, "View", "Table")
				judge("the table")
				for view, ready := range map[string]string{
					"nodes/hetzner-2": `document.querySelectorAll(".one tbody tr").length === 11`,
					"targets":         `document.querySelectorAll(".target").length === 4`,
					"placements":      `document.querySelectorAll(".placements-view tbody tr").length === 21`,
				} {
					browser.Value[any](p, fmt.Sprintf("location.hash = %q", view))
					p.Until(view, ready)
					judge(view)
				}
				q := open(t, large, size, height, dark)
				q.Drawn()
				browser.Value[any](q, script+"; true")
				p = q
				judge("the matrix of 60 nodes")
				p.Quiet()
			})
		}
	}
}
