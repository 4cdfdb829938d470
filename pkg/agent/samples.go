package agent

import (
	"encoding/json"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/netlatency/netlatency/pkg/probe"
)

// samplesPath serves the stream.
const samplesPath = "/samples"

const (
	// maxStreams is how many clients may read the stream of samples at once.
	maxStreams = 4
	// streamBuffer is how many samples wait for a client: two seconds at the
	// default cap of 500 packets a second.
	streamBuffer = 1024
	// streamWriteTimeout ends the stream to a client that takes nothing.
	streamWriteTimeout = 10 * time.Second
)

// streamedSample is one line of the stream.
type streamedSample struct {
	Node string `json:"node"`
	Peer string `json:"peer"`
	// Session is decimal in a string: JSON numbers are exact up to 2^53 only.
	Session string            `json:"session"`
	Seq     uint32            `json:"seq"`
	RTT     int64             `json:"rtt_ns"`
	Stamps  probe.StampSource `json:"stamps"`
	Sent    int64             `json:"sent_unix_ns"`
}

// stream hands finished samples to the clients that are connected. It never
// waits for one: who is too slow misses samples, and dropped counts them.
type stream struct {
	node    string
	dropped atomic.Uint64

	mu      sync.Mutex
	clients map[chan streamedSample]struct{}
}

func newStream(node string) *stream {
	return &stream{node: node, clients: make(map[chan streamedSample]struct{})}
}

// Publish offers the sample of an outcome to every client.
func (s *stream) Publish(peer string, o probe.Outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.clients) == 0 {
		return
	}
	line := streamedSample{
		Node: s.node, Peer: peer, Session: strconv.FormatUint(o.Session, 10), Seq: o.Seq,
		RTT: o.RTT.Nanoseconds(), Stamps: o.Stamps, Sent: o.Sent.UnixNano(),
	}
	for client := range s.clients {
		select {
		case client <- line:
		default:
			s.dropped.Add(1)
		}
	}
}

func (s *stream) join() (chan streamedSample, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.clients) >= maxStreams {
		return nil, false
	}
	client := make(chan streamedSample, streamBuffer)
	s.clients[client] = struct{}{}
	return client, true
}

func (s *stream) leave(client chan streamedSample) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.clients, client)
}

// ServeHTTP writes one JSON object a line until the client leaves or the
// request's context ends.
func (s *stream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	client, ok := s.join()
	if !ok {
		http.Error(w, "The sample stream has "+strconv.Itoa(maxStreams)+" clients, which is all it serves. Try again when one has left.", http.StatusServiceUnavailable)
		return
	}
	defer s.leave(client)
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	control := http.NewResponseController(w)
	encoder := json.NewEncoder(w)
	// In place of the server's own write timeout, which would end every stream.
	extend := func() bool { return control.SetWriteDeadline(time.Now().Add(streamWriteTimeout)) == nil }
	// The client is to know that it is connected before there is a sample.
	if !extend() || control.Flush() != nil {
		return
	}
	for {
		select {
		case <-r.Context().Done():
			return
		case line := <-client:
			if !extend() || encoder.Encode(line) != nil {
				return
			}
			if len(client) == 0 && control.Flush() != nil {
				return
			}
		}
	}
}
