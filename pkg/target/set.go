package target

import (
	"cmp"
	"slices"
	"sync/atomic"
	"time"

	"github.com/netlatency/netlatency/pkg/placement"
)

// Set is where a target runs at one moment. It is immutable: a change makes a
// new Set, so that what is computed from a Set holds as long as it is the
// target's current one.
type Set struct {
	// Version grows with every change of the target; 0 is the set of a target
	// of which nothing has been seen.
	Version uint64
	// Replicas, by node name, is how many ready replicas run on which node.
	// A node target counts once for each node.
	Replicas []placement.Replica
	// Distribution is to which of them the Service that the target is leads.
	Distribution placement.Distribution
	// Grace says that none is ready any more, and Replicas is where they last
	// were: those that were lost together.
	Grace bool
}

// published is a set that readers load.
type published = atomic.Pointer[Set]

// members is the replicas of one target by key, the namespaced name of a pod
// or the name of a node, and what follows from them.
type members struct {
	node  map[string]string // by key
	count map[string]int    // by node
}

func newMembers() members {
	return members{node: make(map[string]string), count: make(map[string]int)}
}

// place notes that the replica called key runs on node, or nowhere if node is
// empty, and reports whether the set of replicas is another one now.
func (m members) place(key, node string) bool {
	before := m.node[key]
	if before == node {
		return false
	}
	if before != "" {
		delete(m.node, key)
		if m.count[before]--; m.count[before] == 0 {
			delete(m.count, before)
		}
	}
	if node != "" {
		m.node[key] = node
		m.count[node]++
	}
	return true
}

// loss is of a replica: it ran on node until then.
type loss struct {
	key, node string
	at        time.Time
}

// lose notes a loss, and drops those that are no part of the same event.
func (t *Target) lose(l loss) {
	t.lost = append(t.lost, l)
	earliest := l.at.Add(-lostTogether)
	gone := slices.IndexFunc(t.lost, func(l loss) bool { return !l.at.Before(earliest) })
	t.lost = slices.Delete(t.lost, 0, gone)
}

// lastReplicas is where the replicas of t, of which none is left, were before
// they were lost one after the other. The last one alone would draw all pods to
// its node, though it was one of many.
func (t *Target) lastReplicas() []placement.Replica {
	last := newMembers()
	for _, l := range t.lost {
		last.place(l.key, l.node) // one that came back in between counts once
	}
	return last.replicas()
}

func (m members) replicas() []placement.Replica {
	replicas := make([]placement.Replica, 0, len(m.count))
	for node, count := range m.count {
		replicas = append(replicas, placement.Replica{Node: node, Count: count})
	}
	slices.SortFunc(replicas, func(a, b placement.Replica) int { return cmp.Compare(a.Node, b.Node) })
	return replicas
}
