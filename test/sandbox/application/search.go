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
	// Workers are the nodes that the workers landed on, one entry a worker.
	// The searches go through them in turn.
	Workers []string
	// Steps names the application of each of a search's sequential round
	// trips, and Replicas says where each application listens. A round trip
	// goes to a replica at random, as through a ClusterIP.
	Steps    []string
	Replicas map[string][]Replica
	// Searches is how many to run and Clients how many at once.
	Searches, Clients int
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

// Run runs the load. It ends early with an error when a round trip fails.
func (l Load) Run(ctx context.Context) ([]Search, error) {
	if len(l.Workers) == 0 {
		return nil, fmt.Errorf("run %d searches: there are no workers", l.Searches)
	}
	searches := make([]Search, l.Searches)
	group, ctx := errgroup.WithContext(ctx)
	for client := range l.Clients {
		group.Go(func() error {
			c := searcher{load: l, connections: make(map[link]net.Conn), random: rand.New(rand.NewPCG(l.Session, uint64(client)))}
			defer c.close()
			for i := client; i < l.Searches; i += l.Clients {
				search, err := c.search(ctx, l.Session+uint64(i), l.Workers[i%len(l.Workers)])
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
	return searches, group.Wait()
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
		if len(replicas) == 0 {
			return search, fmt.Errorf("%s has no replica", application)
		}
		replica := replicas[c.random.IntN(len(replicas))]
		search.Peers = append(search.Peers, replica.Node)
		conn, err := c.connection(ctx, node, replica.Address)
		if err != nil {
			return search, err
		}
		conns[i] = conn
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

// connection returns the client's connection from node to address. It is made
// before the search begins and is not part of its time.
func (c *searcher) connection(ctx context.Context, node, address string) (net.Conn, error) {
	key := link{node, address}
	if conn, ok := c.connections[key]; ok {
		return conn, nil
	}
	conn, err := c.load.Dial(ctx, node, address)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	c.connections[key] = conn
	return conn, nil
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
