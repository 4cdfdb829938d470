package placement

import "slices"

// Nodes is the candidate nodes in a fixed order, with the way from a name to
// its place. It is immutable and shared by all that is computed for it.
type Nodes struct {
	names []string
	index map[string]int32
}

// NewNodes orders names, which it copies; a name given twice counts once.
func NewNodes(names []string) *Nodes {
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	n := &Nodes{names: names, index: make(map[string]int32, len(names))}
	for i, name := range names {
		n.index[name] = int32(i)
	}
	return n
}

// Len is the number of nodes.
func (n *Nodes) Len() int { return len(n.names) }

// Name is the name of node i, 0 ≤ i < Len.
func (n *Nodes) Name(i int) string { return n.names[i] }

// Index is the place of the node called name, if it is among the candidates.
func (n *Nodes) Index(name string) (int, bool) {
	i, ok := n.index[name]
	return int(i), ok
}
