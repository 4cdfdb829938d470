package application

import (
	"context"
	"net"
	"sync"
)

// Serve answers every request on the listener with a reply of the same size
// until ctx ends, then closes the listener and its connections and returns. A
// connection that sends something else is closed.
func Serve(ctx context.Context, listener net.Listener) {
	var connections sync.WaitGroup
	defer connections.Wait()
	stop := context.AfterFunc(ctx, func() { listener.Close() })
	defer stop()
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		connections.Go(func() {
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			defer stop()
			defer conn.Close()
			answer(conn)
		})
	}
}

func answer(conn net.Conn) {
	buffer := make([]byte, messageSize)
	for {
		request, err := read(conn, buffer, typeRequest)
		if err != nil {
			return
		}
		request.kind = typeReply
		request.encode(buffer)
		if _, err := conn.Write(buffer); err != nil {
			return
		}
	}
}
