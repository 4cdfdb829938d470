// Package browser drives a real Chromium for tests of the page.
package browser

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// variableChromium names the browser where it is not on the PATH.
const variableChromium = "CHROMIUM"

// chromium is the path of the browser. A test that is skipped for want of it
// would test nothing on a machine where nobody looks.
func chromium(tb testing.TB) string {
	tb.Helper()
	for _, name := range []string{os.Getenv(variableChromium), "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"} {
		if name == "" {
			continue
		}
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	tb.Fatalf("there is no Chromium on the PATH: hack/test-ui.sh installs one by apt-get, and %s=file names another", variableChromium)
	return ""
}

// browser is one Chromium for all tests.
var browser = struct {
	sync.Once
	ctx  context.Context
	stop func()
}{}

// Stop ends the browser, if there is one; the end of a TestMain calls it.
func Stop() {
	if browser.stop != nil {
		browser.stop()
	}
}

// Start starts the browser, unless it runs already.
func Start(tb testing.TB) context.Context {
	tb.Helper()
	path := chromium(tb)
	browser.Do(func() {
		options := append(chromedp.DefaultExecAllocatorOptions[:],
			chromedp.ExecPath(path),
			// A sandbox of its own needs rights that a container lacks. It opens
			// nothing but our page.
			chromedp.NoSandbox,
			chromedp.Flag("disable-dev-shm-usage", true),
			chromedp.Flag("hide-scrollbars", false),
			// The first start on a busy machine takes a while.
			chromedp.WSURLReadTimeout(time.Minute),
		)
		allocator, stopAllocator := chromedp.NewExecAllocator(context.Background(), options...)
		ctx, stop := chromedp.NewContext(allocator)
		browser.ctx, browser.stop = ctx, func() { stop(); stopAllocator() }
		if err := chromedp.Run(ctx); err != nil {
			tb.Fatalf("start %s: %v", path, err)
		}
	})
	return browser.ctx
}

// Tab is a page in the browser, and what it complained of. Its methods fail the
// test.
type Tab struct {
	testing.TB
	ctx context.Context
	url string
	dir string // of screenshots

	mu         sync.Mutex
	complaints []string
	foreign    []string // requests to elsewhere
}

const patience = 20 * time.Second

// Open opens url in a new tab of that size, in dark or light colours. What is
// to be seen is kept in the directory pictures.
func Open(tb testing.TB, pictures, url string, width, height int64, dark bool) *Tab {
	tb.Helper()
	ctx, closeTab := chromedp.NewContext(Start(tb))
	tb.Cleanup(closeTab)
	root, _, _ := strings.Cut(url, "#")
	p := &Tab{TB: tb, ctx: ctx, url: root, dir: pictures}
	chromedp.ListenTarget(ctx, func(event any) {
		p.mu.Lock()
		defer p.mu.Unlock()
		switch e := event.(type) {
		case *runtime.EventConsoleAPICalled:
			if e.Type == runtime.APITypeError || e.Type == runtime.APITypeWarning {
				text := make([]string, 1, 1+len(e.Args))
				text[0] = string(e.Type)
				for _, a := range e.Args {
					text = append(text, string(a.Value)+a.Description)
				}
				p.complaints = append(p.complaints, strings.Join(text, " "))
			}
		case *runtime.EventExceptionThrown:
			p.complaints = append(p.complaints, e.ExceptionDetails.Error())
		case *log.EventEntryAdded:
			if e.Entry.Level == log.LevelError || e.Entry.Level == log.LevelWarning {
				p.complaints = append(p.complaints, fmt.Sprintf("%s %s %s", e.Entry.Source, e.Entry.Text, e.Entry.URL))
			}
		case *network.EventRequestWillBeSent:
			if !strings.HasPrefix(e.Request.URL, p.url) && !strings.HasPrefix(e.Request.URL, "data:") {
				p.foreign = append(p.foreign, e.Request.URL)
			}
		}
	})
	// The tab lasts as long as the context of its first action.
	if err := chromedp.Run(ctx); err != nil {
		tb.Fatal(err)
	}
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	p.Run(network.Enable(), log.Enable(), runtime.Enable(),
		emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}}),
		chromedp.EmulateViewport(width, height),
		chromedp.Navigate(url))
	return p
}

// Run fails the test if an action does.
func (p *Tab) Run(actions ...chromedp.Action) {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if err := chromedp.Run(ctx, actions...); err != nil {
		p.Fatal(err)
	}
}

// Text is that of the first element that selector chooses.
func (p *Tab) Text(selector string) (text string) {
	p.Helper()
	p.Run(chromedp.Evaluate(fmt.Sprintf("document.querySelector(%q)?.innerText ?? ''", selector), &text))
	return text
}

// Value is that of an expression.
func Value[T any](p *Tab, expression string) (v T) {
	p.Helper()
	await := func(e *runtime.EvaluateParams) *runtime.EvaluateParams { return e.WithAwaitPromise(true) }
	switch any(&v).(type) {
	case *any: // what it is does not matter, and it may be nothing
		p.Run(chromedp.Evaluate(expression, nil, await))
	default:
		p.Run(chromedp.Evaluate(expression, &v, await))
	}
	return v
}

// Until waits for an expression to be true.
func (p *Tab) Until(what, expression string) {
	p.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if Value[bool](p, "!!("+expression+")") {
			return
		}
		if time.Now().After(end) {
			p.Screenshot("failed-" + strings.ReplaceAll(p.Name(), "/", "-"))
			p.Fatalf("waited for %s: %s; the page says %q", what, expression, p.Text("body"))
		}
	}
}

// Drawn waits until the heatmaps are.
func (p *Tab) Drawn() {
	p.Helper()
	p.Until("the heatmap", `performance.getEntriesByName("netlatency-drawn").length > 0`)
}

// Press presses a key, with modifiers before it.
func (p *Tab) Press(key string, options ...chromedp.KeyOption) {
	p.Helper()
	p.Run(chromedp.KeyEvent(key, options...))
}

// Screenshot keeps what is to be seen for a person.
func (p *Tab) Screenshot(name string) {
	p.Helper()
	var png []byte
	p.Run(chromedp.ActionFunc(func(ctx context.Context) (err error) {
		png, err = page.CaptureScreenshot().Do(ctx)
		return err
	}))
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		p.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.dir, name+".png"), png, 0o644); err != nil {
		p.Fatal(err)
	}
}

// Quiet checks that the page complained of nothing and asked nobody else.
func (p *Tab) Quiet() {
	p.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.complaints {
		p.Errorf("the page complains: %s", c)
	}
	for _, url := range p.foreign {
		p.Errorf("the page asks %s", url)
	}
}

// Close closes the tab before the test ends.
func (p *Tab) Close() {
	p.Helper()
	if err := chromedp.Cancel(p.ctx); err != nil {
		p.Fatal(err)
	}
}
