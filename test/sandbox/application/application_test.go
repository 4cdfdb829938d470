package application

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSearchesGoThroughTheWorkersInTurn(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		Serve(ctx, listener)
	}()
	address := listener.Addr().String()
	load := Load{
		From:     []string{"a-1", "a-2", "a-1", "a-1", "a-2", "a-1", "a-1"},
		Steps:    []string{"qdrant", "gpu"},
		Replicas: map[string][]Replica{"qdrant": {{"b-1", address}}, "gpu": {{"c-1", address}}},
		Clients:  2, Session: 100,
		Dial: func(ctx context.Context, _, address string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", address)
		},
	}
	searches, err := load.Run(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var nodes []string
	for i, s := range searches {
		nodes = append(nodes, s.Node)
		if s.Session != 100+uint64(i) || s.Took <= 0 {
			t.Errorf("search %d: session %d took %v", i, s.Session, s.Took)
		}
		if diff := cmp.Diff([]string{"b-1", "c-1"}, s.Peers); diff != "" {
			t.Errorf("search %d went to (-want +got):\n%s", i, diff)
		}
	}
	if diff := cmp.Diff([]string{"a-1", "a-2", "a-1", "a-1", "a-2", "a-1", "a-1"}, nodes); diff != "" {
		t.Errorf("the searches came from (-want +got):\n%s", diff)
	}
	cancel()
	select {
	case <-served:
	case <-time.After(10 * time.Second):
		t.Error("the server goes on after its context ended")
	}
}

func TestAnApplicationWithoutReplicasIsAnError(t *testing.T) {
	load := Load{From: []string{"a-1"}, Steps: []string{"qdrant"}, Clients: 1}
	if _, err := load.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "qdrant") {
		t.Errorf("the error is %v, want one about qdrant", err)
	}
}

func TestAServerClosesOnWhatIsNoRequest(t *testing.T) {
	client, server := net.Pipe()
	go func() {
		defer server.Close()
		answer(server)
	}()
	if _, err := client.Write(make([]byte, messageSize)); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("read after nonsense: %v, want EOF", err)
	}
}

func FuzzDecode(f *testing.F) {
	valid := make([]byte, messageSize)
	message{typeReply, 7, 9}.encode(valid)
	f.Add(valid)
	f.Add(valid[:19])
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := decode(data)
		if err != nil {
			return
		}
		again := make([]byte, messageSize)
		m.encode(again)
		if got, err := decode(again); err != nil || got != m {
			t.Errorf("%+v became %+v, %v", m, got, err)
		}
	})
}
