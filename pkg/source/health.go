package source

import (
	"cmp"
	"slices"
	"time"

	"k8s.io/klog/v2"
)

// order puts agents that answered last time first, and of the others those
// first whose last attempt is the longest ago: when a provider drops off the
// network, hundreds of timeouts must not delay those who answer, and when a
// round ends before all were tried, the next begins with the rest.
func (a *Agents) order(agents []agent) {
	slices.SortStableFunc(agents, func(x, y agent) int {
		hx, hy := a.health[x.node], a.health[y.node]
		if hx.failing != hy.failing {
			if hx.failing {
				return 1
			}
			return -1
		}
		if hx.failing {
			return hx.tried.Compare(hy.tried)
		}
		return cmp.Compare(x.node, y.node)
	})
}

// judge counts failures and dropped rows, remembers who failed, and logs an
// agent's failure once, at its begin and end.
func (a *Agents) judge(logger klog.Logger, answers []answer) {
	health := make(map[string]health, len(answers))
	for _, answer := range answers {
		node := answer.agent.node
		h := a.health[node]
		if answer.attempted {
			h.tried = answer.at
		}
		for reason, n := range answer.dropped {
			a.totals.dropped[reason] += uint64(n)
		}
		h.err = answer.err
		if answer.err == nil {
			h.answered = answer.at
		}
		if answer.err != nil {
			a.totals.failures[answer.failure]++
			if !h.failing {
				logger.V(2).Info("Cannot read an agent; its last rows are used until they are stale", "node", klog.KRef("", node), "err", answer.err)
			}
		} else if h.failing {
			logger.V(2).Info("An agent answers again", "node", klog.KRef("", node))
		}
		h.failing = answer.err != nil
		health[node] = h
	}
	a.health = health
}

// AgentHealth is how the reads of one agent go.
type AgentHealth struct {
	Node string
	// Answered is when it was last read, the zero time if it never was.
	Answered time.Time
	// Err is why it could not be read in the last round, nil if it was.
	Err error
}

// Agents is how the reads of each agent went as of the last round, by node. It
// may be called from any goroutine; the slice must not be changed.
func (a *Agents) Agents() []AgentHealth { return *a.told.Load() }

// tell publishes the health of the agents.
func (a *Agents) tell() {
	told := make([]AgentHealth, 0, len(a.health))
	for node, h := range a.health {
		told = append(told, AgentHealth{node, h.answered, h.err})
	}
	slices.SortFunc(told, func(x, y AgentHealth) int { return cmp.Compare(x.Node, y.Node) })
	a.told.Store(&told)
}
