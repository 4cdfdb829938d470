package ui

import (
	"bytes"
	"compress/gzip"
	"embed"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io/fs"
	"mime"
	"net"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

//go:embed assets
var assets embed.FS

// policy lets the page do nothing but what it must: no source of anything is
// another than this server, and nothing in the page itself is a script or a
// style.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Server serves the page and what it asks for. It is an http.Handler, safe for
// concurrent use. One goroutine publishes; readers load an immutable view.
type Server struct {
	mux     *http.ServeMux
	local   bool
	started string
	view    atomic.Pointer[view]
	count   uint64 // of snapshots; of who publishes
	history *history
}

// NewServer returns a server that has nothing to show yet. A local one answers
// only requests that were sent to a name or address of this machine's own: a
// foreign page may have its own name point to 127.0.0.1, and must not read
// what is here.
func NewServer(local bool) (*Server, error) {
	s := &Server{mux: http.NewServeMux(), local: local, started: strconv.FormatInt(time.Now().UnixNano(), 36), history: newHistory()}
	if err := s.handleAssets(); err != nil {
		return nil, err
	}
	s.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintln(w, "ok")
	})
	s.mux.HandleFunc("GET /api/overview", s.whole(func(v *view, _ *http.Request) (func() body, bool) { return v.overview, true }))
	s.mux.HandleFunc("GET /api/targets", s.whole(func(v *view, _ *http.Request) (func() body, bool) { return v.targets, true }))
	s.mux.HandleFunc("GET /api/placements", s.whole(func(v *view, _ *http.Request) (func() body, bool) { return v.placed, true }))
	s.mux.HandleFunc("GET /api/matrix", s.whole(func(v *view, r *http.Request) (func() body, bool) {
		matrix, ok := v.matrices[r.URL.Query().Get("show")]
		return matrix, ok
	}))
	s.mux.HandleFunc("GET /api/cell", s.whole(func(v *view, r *http.Request) (func() body, bool) {
		i, from := v.index[r.URL.Query().Get("from")]
		j, to := v.index[r.URL.Query().Get("to")]
		return func() body {
			var c *course
			if v.Recording == "" {
				c = s.history.of(v.nodes[i].Name, v.nodes[j].Name)
			}
			return pack(v.encodeCell(i, j, c))
		}, from && to
	}))
	s.mux.HandleFunc("GET /api/node", s.whole(func(v *view, r *http.Request) (func() body, bool) {
		i, ok := v.index[r.URL.Query().Get("name")]
		return func() body { return pack(v.encodeNode(i)) }, ok
	}))
	return s, nil
}

// Publish makes the page show snapshot from now on. It must not be called
// concurrently.
func (s *Server) Publish(snapshot *Snapshot) {
	s.count++
	v := newView(snapshot, fmt.Sprintf("%s-%d", s.started, s.count), s.history)
	if snapshot.Recording == "" {
		s.history.add(v)
	}
	s.view.Store(v)
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Security-Policy", policy)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	// To be kept, but asked for again each time: the answer is mostly 304.
	header.Set("Cache-Control", "no-cache")
	if s.local && !isLocal(r.Host) {
		fail(w, http.StatusMisdirectedRequest, fmt.Sprintf("this server answers on this machine's own addresses only, not as %q", r.Host))
		return
	}
	s.mux.ServeHTTP(w, r)
}

// isLocal reports whether host, perhaps with a port, is this machine by itself.
func isLocal(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return ip != nil && ip.IsLoopback()
}

// fail answers with a reason, in JSON like all else of the API.
func fail(w http.ResponseWriter, status int, reason string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": reason}) // whoever asked may be gone
}

// whole answers with a part of the view of the moment. Its version is the
// answer's tag.
func (s *Server) whole(part func(*view, *http.Request) (func() body, bool)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		// When it is here, so that ages count on the server's clock alone.
		w.Header().Set("X-Now", strconv.FormatInt(time.Now().UnixMilli(), 10))
		v := s.view.Load()
		if v == nil {
			w.Header().Set("Retry-After", "1")
			fail(w, http.StatusServiceUnavailable, "the cluster has not been read yet")
			return
		}
		encode, ok := part(v, r)
		if !ok {
			fail(w, http.StatusNotFound, "there is no such node or quantity")
			return
		}
		tag := `W/"` + v.version + `"` // the same whether packed or not
		w.Header().Set("ETag", tag)
		w.Header().Set("Vary", "Accept-Encoding")
		if r.Header.Get("If-None-Match") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		encode().write(w, r)
	}
}

// handleAssets serves what is embedded.
func (s *Server) handleAssets() error {
	return fs.WalkDir(assets, "assets", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := assets.ReadFile(name)
		if err != nil {
			return err
		}
		packed := pack(text)
		sum := fnv.New64a()
		_, _ = sum.Write(text) // it never fails
		tag := fmt.Sprintf(`W/"%x"`, sum.Sum64())
		kind := mime.TypeByExtension(path.Ext(name))
		if kind == "" || path.Ext(name) == ".js" { // machines differ in what they know
			kind = "text/javascript; charset=utf-8"
		}
		at := "/" + strings.TrimPrefix(name, "assets/")
		if at == "/index.html" {
			at = "/{$}"
		}
		s.mux.HandleFunc("GET "+at, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.Header().Set("ETag", tag)
			w.Header().Set("Vary", "Accept-Encoding")
			if r.Header.Get("If-None-Match") == tag {
				w.WriteHeader(http.StatusNotModified)
				return
			}
			packed.write(w, r)
		})
		return nil
	})
}

// body is an answer, packed by gzip.
type body []byte

func pack(text []byte) body {
	var packed bytes.Buffer
	// The fastest level: the way to a browser is short or a port-forward.
	writer, _ := gzip.NewWriterLevel(&packed, gzip.BestSpeed)
	_, _ = writer.Write(text) // into memory
	_ = writer.Close()
	return packed.Bytes()
}

// write sends the body as r accepts it.
func (b body) write(w http.ResponseWriter, r *http.Request) {
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Content-Length", strconv.Itoa(len(b)))
		_, _ = w.Write(b)
		return
	}
	reader, err := gzip.NewReader(bytes.NewReader(b))
	if err == nil {
		var text bytes.Buffer
		if _, err = text.ReadFrom(reader); err == nil {
			_, _ = w.Write(text.Bytes())
			return
		}
	}
	fail(w, http.StatusInternalServerError, err.Error())
}
