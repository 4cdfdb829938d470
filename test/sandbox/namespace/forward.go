package namespace

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
)

// HostListener is a listening TCP socket on the host's loopback, opened before
// the namespaces were made; its Addr is good for programs on the host. It is the
// only way in from there. Nil outside a sandbox.
func HostListener() net.Listener {
	if inside == nil {
		return nil
	}
	return inside.listener
}

// Forward carries every connection that listener accepts to the TCP address
// target on the control side, until ctx ends; then it closes listener and all
// connections and returns nil. A connection whose target does not answer is closed.
func Forward(ctx context.Context, listener net.Listener, target string) error {
	ctx, cancel := context.WithCancel(ctx)
	var connections sync.WaitGroup
	defer connections.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { listener.Close() })
	defer stop()
	for {
		client, err := listener.Accept()
		if ctx.Err() != nil {
			if err == nil {
				client.Close()
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("forward %s to %s: %w", listener.Addr(), target, err)
		}
		connections.Go(func() { carry(ctx, client, target) })
	}
}

func carry(ctx context.Context, client net.Conn, target string) {
	defer client.Close()
	server, err := new(net.Dialer).DialContext(ctx, "tcp", target)
	if err != nil {
		return
	}
	defer server.Close()
	stop := context.AfterFunc(ctx, func() {
		client.Close()
		server.Close()
	})
	defer stop()
	var directions sync.WaitGroup
	directions.Go(func() { pour(server, client) })
	directions.Go(func() { pour(client, server) })
	directions.Wait()
}

// pour copies one direction and passes its end on, so that a half-closed
// connection stays useful the other way.
func pour(to, from net.Conn) {
	_, _ = io.Copy(to, from) // either end may close at any time; the other learns of it here
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}
