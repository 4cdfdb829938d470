package ui

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/placement"
)

// Snapshot is all that the page shows, as it was known at one moment. It must
// not change once a Server has it.
type Snapshot struct {
	// Taken is when the agents were read, Interval how often they are; 0 for a
	// recording, which is read once.
	Taken    time.Time
	Interval time.Duration
	// Recording is where a recorded matrix came from; empty for a cluster.
	Recording string
	Nodes     []Node
	Matrix    *latency.Matrix
	Estimates *latency.Estimator
	Statistic latency.Statistic
	// StaleAfter is how old a measurement may be for the scheduler to use it.
	StaleAfter time.Duration
	// Profiles are those of the scheduler that have the plugin.
	Profiles []Profile
	// Placements are the pods of these profiles that were placed last, or wait,
	// the newest first; PlacementsLeftOut is how many older ones there are.
	Placements        []Placement
	PlacementsLeftOut int
	// Problems says in sentences what could not be read.
	Problems []string
}

// Node is a node of the cluster.
type Node struct {
	Name  string
	Group latency.NodeGroup
	Agent Agent
}

// provider of the node, "-" where nothing says which.
func (n *Node) provider() string { return cmp.Or(n.Group.Provider, "-") }

// AgentState is how the agent of a node does.
type AgentState string

// The states of an agent.
const (
	AgentAnswered AgentState = "answered" // the last time it was asked
	AgentSilent   AgentState = "silent"   // it did not
	AgentNone     AgentState = "none"     // there is no ready agent on the node
	AgentRecorded AgentState = "recorded" // nobody asks: the matrix is a recording
)

// Agent is the agent of a node.
type Agent struct {
	State AgentState
	// Answered is when it last did; the zero time if it never has.
	Answered time.Time
	Fault    string // why it did not, where it was asked and did not
}

// Profile is a profile of the scheduler.
type Profile struct {
	Name    string   `json:"name"`
	Targets []Target `json:"targets"`
}

// Target is what pods of a profile want to be near.
type Target struct {
	Name        string `json:"name"`
	Kind        string `json:"kind"`
	Chooses     string `json:"chooses"`
	Weight      int32  `json:"weight"`
	Aggregation string `json:"aggregation"`
	MaxRTT      string `json:"max_rtt,omitempty"`
	// PerPod says that it is another one for each pod, so that nobody can say
	// where it runs.
	PerPod bool          `json:"differs_per_pod,omitempty"`
	Nodes  []TargetPlace `json:"nodes"`
}

// TargetPlace is a node on which a target or pods that want it run.
type TargetPlace struct {
	Node     string `json:"node"`
	Replicas int    `json:"replicas"`
	Users    int    `json:"users"`
	// Latency is from the node to the target, in milliseconds; nil if unknown.
	Latency *float64 `json:"latency_ms"`
}

// Placement is a pod of ours.
type Placement struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Profile   string `json:"profile"`
	Node      string `json:"node,omitempty"` // empty while it waits
	// Since is when it was placed, or created where it waits.
	Since Time `json:"since"`
	// Waits says why it has no node.
	Waits string `json:"waits,omitempty"`
	// Explanation is what the scheduler wrote onto the pod; nil where it was not
	// asked to.
	Explanation *placement.Record `json:"explanation,omitempty"`
	// Cost is what its node costs now and BestCost what the best node does, in
	// milliseconds; nil where it is unknown.
	Cost     *float64 `json:"cost_ms"`
	Best     string   `json:"best,omitempty"`
	BestCost *float64 `json:"best_ms"`
	Events   []Event  `json:"events,omitempty"`
}

// Event is what the scheduler announced about a pod.
type Event struct {
	Reason string `json:"reason"`
	Note   string `json:"note"`
	At     Time   `json:"at"`
}

// Time is a time in JSON as the page wants it: milliseconds since 1970, 0 for
// none.
type Time struct{ time.Time }

// MarshalJSON implements json.Marshaler.
func (t Time) MarshalJSON() ([]byte, error) { return appendMillis(nil, t.Time), nil }

// ordered brings nodes into the order in which the page shows them: what is
// near each other as far as labels tell is side by side, and what tells nothing
// is last.
func ordered(nodes []Node) []Node {
	nodes = slices.Clone(nodes)
	slices.SortFunc(nodes, func(a, b Node) int {
		return cmp.Or(
			last(a.Group.Provider == "", b.Group.Provider == ""), cmp.Compare(a.provider(), b.provider()), cmp.Compare(a.Group.Region, b.Group.Region),
			cmp.Compare(a.Group.Zone, b.Group.Zone), compareNames(a.Name, b.Name),
		)
	})
	return nodes
}

// last puts what it is true of behind what it is not.
func last(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// compareNames takes runs of digits for numbers, so that node-10 follows node-9.
func compareNames(a, b string) int {
	for len(a) > 0 && len(b) > 0 {
		x, y := digits(a), digits(b)
		if x == 0 || y == 0 {
			if a[0] != b[0] {
				return cmp.Compare(a[0], b[0])
			}
			a, b = a[1:], b[1:]
			continue
		}
		// A longer number without leading zeros is larger.
		m, n := trimZeros(a[:x]), trimZeros(b[:y])
		if c := cmp.Or(cmp.Compare(len(m), len(n)), cmp.Compare(m, n), cmp.Compare(x, y)); c != 0 {
			return c
		}
		a, b = a[x:], b[y:]
	}
	return cmp.Compare(len(a), len(b))
}

func digits(s string) (n int) {
	for n < len(s) && '0' <= s[n] && s[n] <= '9' {
		n++
	}
	return n
}

func trimZeros(s string) string {
	for len(s) > 1 && s[0] == '0' {
		s = s[1:]
	}
	return s
}

// appendMillis is t in milliseconds since 1970.
func appendMillis(text []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(text, '0')
	}
	return strconv.AppendInt(text, t.UnixMilli(), 10)
}
