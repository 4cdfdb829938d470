package scenario

import (
	"time"
)

// Direction is how packets fare from one node to another.
type Direction struct {
	From, To string
	// Base is the delay without jitter and Jitter the mean of what is added
	// to it, drawn from Distribution ("" means none).
	Base, Jitter time.Duration
	Distribution string
	// Loss is the probability that a packet is lost, and Down that all are.
	Loss float64
	Down bool
	// Duplicate is the probability that a packet arrives twice.
	Duplicate float64
	// Reorder lets packets overtake each other.
	Reorder bool
	// Blocks names the protocols that do not pass.
	Blocks []string
}

// Network is the state of all links as events change it.
type Network struct {
	scenario *Scenario
	links    []Link
	down     map[string]bool
}

// Network is the network before any event.
func (s *Scenario) Network() *Network {
	return &Network{scenario: s, links: append([]Link(nil), s.Links...), down: make(map[string]bool)}
}

// Apply makes the change that the event describes.
func (n *Network) Apply(e Event) {
	switch {
	case e.Link != nil:
		n.links = append(n.links, *e.Link)
	case e.Partition != nil:
		n.links = append(n.links, Link{Between: e.Partition, Path: Path{Loss: 1}})
	case e.NodeDown != "":
		n.down[e.NodeDown] = true
	case e.NodeUp != "":
		delete(n.down, e.NodeUp)
	}
}

// Directions lists every ordered pair of different nodes with what holds for
// it now.
func (n *Network) Directions() []Direction {
	nodes := n.scenario.NodeList()
	var directions []Direction
	for _, from := range nodes {
		for _, to := range nodes {
			if from.Name == to.Name {
				continue
			}
			d := Direction{From: from.Name, To: to.Name, Down: n.down[from.Name] || n.down[to.Name]}
			if link, forward, ok := n.link(from, to); ok {
				share := 0.5
				if link.Asymmetry != nil && link.Within == "" {
					share = *link.Asymmetry
				}
				if !forward {
					share = 1 - share
				}
				d.Base = time.Duration(share * float64(link.RTT.Duration))
				d.Loss, d.Duplicate, d.Reorder, d.Blocks = link.Loss, link.Duplicate, link.Reorder, link.Blocks
				d.Down = d.Down || link.Loss >= 1
				if link.Jitter != nil {
					d.Jitter, d.Distribution = link.Jitter.Mean.Duration/2, link.Jitter.Distribution
				}
			}
			directions = append(directions, d)
		}
	}
	return directions
}

// link finds the link that holds from one node to another: the most specific,
// and of those the last. forward says that the link names from's end first.
func (n *Network) link(from, to Node) (found Link, forward, ok bool) {
	best := -1
	for _, link := range n.links {
		specificity, inOrder, covers := link.covers(from, to)
		if covers && specificity >= best {
			best, found, forward, ok = specificity, link, inOrder, true
		}
	}
	return found, forward, ok
}

// covers reports whether the link holds from one node to another, how many of
// its ends name a node, and whether from is at its first end.
func (l Link) covers(from, to Node) (specificity int, forward, ok bool) {
	if l.Within != "" {
		return 0, true, from.Provider == l.Within && to.Provider == l.Within
	}
	if len(l.Between) != 2 {
		return 0, false, false
	}
	for _, order := range []struct {
		first, second Node
		forward       bool
	}{{from, to, true}, {to, from, false}} {
		a, okA := end(l.Between[0], order.first)
		b, okB := end(l.Between[1], order.second)
		if okA && okB {
			return a + b, order.forward, true
		}
	}
	return 0, false, false
}

// end reports whether node is at an end of a link, and 1 when the end names
// the node itself.
func end(name string, node Node) (specificity int, ok bool) {
	switch name {
	case node.Name:
		return 1, true
	case node.Provider:
		return 0, true
	}
	return 0, false
}
