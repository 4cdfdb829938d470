package application

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	"golang.org/x/sync/errgroup"
)

// Replica is where one replica of an application listens.
type Replica struct {
	// Node it runs on, and the address host:port.
	Node, Address string
}

// Dialer connects from a node of the sandbox.
type Dialer func(ctx context.Context, node, address string) (net.Conn, error)

// Load is a number of searches to run.
type Load struct {
	// From has an entry for each search: the node of the worker that runs it.
	// They are begun in this order.
	From []string
	// Steps names the application of each of a search's sequential round
	// trips, and Replicas says where each application listens. A round trip
	// goes to a replica at random, as through a ClusterIP.
	Steps    []string
	Replicas map[string][]Replica
	// Clients is how many searches run at once.
	Clients int
	// Pause is what a client waits between its searches.
	Pause time.Duration
	// Session numbers the first search; the next ones count on from there.
	Session uint64
	Dial    Dialer
}

// Search is one search that was run.
type Search struct {
	// Session tags its packets; its round trips are sequence numbers 0 and on.
	Session uint64
	// Node is where the worker is, and Peers where the replicas of its round
	// trips are.
	Node  string
	Peers []string
	// Took is the wall-clock time of all round trips, in a user-space program
	// on this machine.
	Took time.Duration
}

// tripTimeout bounds one round trip: several retransmissions, and then the
// connection is taken for broken.
const tripTimeout = 10 * time.Second

// Run runs the load and returns its searches in the order of From. The clients
// are connected before the first search begins. It ends early with an error
// when a connection or a round trip fails.
func (l Load) Run(ctx context.Context) ([]Search, error) {
	clients := make([]searcher, l.Clients)
	defer func() {
		for i := range clients {
			clients[i].close()
		}
	}()
	connecting, inner := errgroup.WithContext(ctx)
	for i := range clients {
		connecting.Go(func() error {
			clients[i] = searcher{load: l, connections: make(map[link]net.Conn), random: rand.New(rand.NewPCG(l.Session, uint64(i)))}
			return clients[i].connectAll(inner, i)
		})
	}
	if err := connecting.Wait(); err != nil {
		return nil, err
	}
	searches := make([]Search, len(l.From))
	searching, inner := errgroup.WithContext(ctx)
	for client := range clients {
		searching.Go(func() error {
			for i := client; i < len(l.From); i += l.Clients {
				search, err := clients[client].search(inner, l.Session+uint64(i), l.From[i])
				if err != nil {
					return fmt.Errorf("search %d from node %s: %w", i, search.Node, err)
				}
				searches[i] = search
				if l.Pause > 0 {
					time.Sleep(l.Pause)
				}
			}
			return nil
		})
	}
	return searches, searching.Wait()
}

type link struct{ node, address string }

// searcher is one client and its connections, which it keeps as an
// application's connection pool would.
type searcher struct {
	load        Load
	connections map[link]net.Conn
	random      *rand.Rand
	buffer      [messageSize]byte
}

// connectAll connects the client of that index to whatever its searches may
// need.
func (c *searcher) connectAll(ctx context.Context, index int) error {
	for i := index; i < len(c.load.From); i += c.load.Clients {
		for _, application := range c.load.Steps {
			replicas := c.load.Replicas[application]
			if len(replicas) == 0 {
				return fmt.Errorf("connect to %s: it has no replica", application)
			}
			for _, replica := range replicas {
				key := link{c.load.From[i], replica.Address}
				if c.connections[key] != nil {
					continue
				}
				conn, err := c.load.Dial(ctx, key.node, key.address)
				if err != nil {
					return fmt.Errorf("connect from node %s to %s: %w", key.node, application, err)
				}
				c.connections[key] = conn
			}
		}
	}
	return nil
}

func (c *searcher) close() {
	for _, conn := range c.connections {
		conn.Close()
	}
}

func (c *searcher) search(ctx context.Context, session uint64, node string) (Search, error) {
	search := Search{Session: session, Node: node}
	conns := make([]net.Conn, len(c.load.Steps))
	for i, application := range c.load.Steps {
		replicas := c.load.Replicas[application]
		replica := replicas[c.random.IntN(len(replicas))]
		search.Peers = append(search.Peers, replica.Node)
		conns[i] = c.connections[link{node, replica.Address}]
	}
	start := time.Now()
	for i, conn := range conns {
		if err := c.trip(conn, message{kind: typeRequest, session: session, seq: uint32(i)}); err != nil {
			return search, fmt.Errorf("round trip %d to %s on node %s: %w", i, c.load.Steps[i], search.Peers[i], err)
		}
	}
	search.Took = time.Since(start)
	return search, ctx.Err()
}

func (c *searcher) trip(conn net.Conn, request message) error {
	if err := conn.SetDeadline(time.Now().Add(tripTimeout)); err != nil {
		return err
	}
	request.encode(c.buffer[:])
	if _, err := conn.Write(c.buffer[:]); err != nil {
		return err
	}
	reply, err := read(conn, c.buffer[:], typeReply)
	if err != nil {
		return err
	}
	if reply.session != request.session || reply.seq != request.seq {
		return fmt.Errorf("the reply is for round trip %d of search %d", reply.seq, reply.session)
	}
	return nil
}
