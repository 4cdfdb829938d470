package placement

// Verdict is what the limits of a pod's targets say of a node: Within all of
// them, or which target refuses it and why. A node that several refuse is
// refused by the first.
type Verdict int32

// Within is the verdict on a node that no target refuses.
const Within Verdict = 0

// beyond and unknown are the verdicts of the target at a place in the list.
func beyond(target int) Verdict  { return Verdict(target + 1) }
func unknown(target int) Verdict { return -Verdict(target + 1) }

// Refusal is the target that refuses the node, by its place in the list that
// the costs were made of, and whether it does so because the latency is
// unknown. Within has none: the target is -1.
func (v Verdict) Refusal() (target int, isUnknown bool) {
	if v < 0 {
		return int(-v) - 1, true
	}
	return int(v) - 1, false
}

// limits is the verdicts on all nodes.
type limits struct {
	of        []Verdict // by node; nil if no target has a limit
	elsewhere Verdict   // on a node that is not among the candidates
}

func newLimits(nodes *Nodes, targets []*Latencies) limits {
	var l limits
	for k, t := range targets {
		if t.target.MaxRTT == 0 {
			continue
		}
		if l.of == nil {
			l.of = make([]Verdict, nodes.Len())
		}
		if l.elsewhere == Within && t.target.RejectUnknown {
			l.elsewhere = unknown(k)
		}
		for i, latency := range t.latency {
			switch {
			case l.of[i] != Within:
			case latency != Unknown:
				if latency > t.target.MaxRTT {
					l.of[i] = beyond(k)
				}
			case t.target.RejectUnknown:
				l.of[i] = unknown(k)
			}
		}
	}
	return l
}

// Limited reports whether any target has a limit.
func (c *Costs) Limited() bool { return c.limits.of != nil }

// Verdict is what the limits say of the node called name. One that is not
// among the candidates is as far from everything as is unknown.
func (c *Costs) Verdict(name string) Verdict {
	if i, ok := c.nodes.index[name]; ok {
		return c.VerdictAt(int(i))
	}
	if c.limits.of == nil {
		return Within
	}
	return c.limits.elsewhere
}

// VerdictAt is what the limits say of node i.
func (c *Costs) VerdictAt(i int) Verdict {
	if c.limits.of == nil {
		return Within
	}
	return c.limits.of[i]
}

// AdmitsMore reports whether some node is within the limits that before, of
// the same pod at an earlier time, did not admit. There is none in nil.
func (c *Costs) AdmitsMore(before *Costs) bool {
	for i, name := range c.nodes.names {
		if c.limits.of != nil && c.limits.of[i] != Within {
			continue
		}
		if before == nil || before.Verdict(name) != Within {
			return true
		}
	}
	return false
}
