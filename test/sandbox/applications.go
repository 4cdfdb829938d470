package sandbox

import (
	"context"
	"fmt"
	"net"
	"strconv"

	"github.com/netlatency/netlatency/test/sandbox/application"
	"github.com/netlatency/netlatency/test/sandbox/scenario"
)

// StartApplications starts the stand-ins of Qdrant, on the nodes its pods run
// on, and of the GPU service, until Stop, and returns where they listen.
func (s *Sandbox) StartApplications(qdrantNodes []string) (map[string][]application.Replica, error) {
	replicas := make(map[string][]application.Replica)
	for _, a := range []struct {
		name  string
		port  int
		nodes []string
	}{
		{scenario.ApplicationQdrant, qdrantPort, qdrantNodes},
		{scenario.ApplicationGPU, s.Scenario.Applications.GPU.Port, s.Scenario.GPUNodes()},
	} {
		for _, name := range a.nodes {
			node := s.Node(name)
			address := net.JoinHostPort(node.WAN.String(), strconv.Itoa(a.port))
			listener, err := node.Listen("tcp", address)
			if err != nil {
				return nil, fmt.Errorf("start %s on node %q: %w", a.name, name, err)
			}
			s.running.Go(func() { application.Serve(s.alive, listener) })
			replicas[a.name] = append(replicas[a.name], application.Replica{Node: name, Address: address})
		}
	}
	return replicas, nil
}

// Dial connects from a node.
func (s *Sandbox) Dial(ctx context.Context, node, address string) (net.Conn, error) {
	return s.Node(node).Dial(ctx, "tcp", address)
}
