package placement

// Distribution is to which of its replicas a target leads from a node: the
// trafficDistribution of a Service as kube-proxy takes it
// (https://kubernetes.io/docs/concepts/services-networking/service/#traffic-distribution).
type Distribution string

const (
	// ToAll leads to all replicas from anywhere.
	ToAll Distribution = ""
	// PreferSameZone leads from a node to the replicas in its zone. It leads to
	// all where none is in that zone, and from everywhere as long as a replica
	// is on a node without a zone.
	PreferSameZone Distribution = "PreferSameZone"
	// PreferSameNode leads from a node to the replicas on it, and from a node
	// without one as PreferSameZone does.
	PreferSameNode Distribution = "PreferSameNode"
)

// reach is to which replicas of a target a node leads.
type reach struct {
	node, zone string // of the only ones; both empty: to all
}

// reaches is the reach of every node; nil if all lead to all replicas.
func (t *Target) reaches(nodes *Nodes) []reach {
	if t.Distribution != PreferSameZone && t.Distribution != PreferSameNode {
		return nil
	}
	onNode, inZone, zoned := make(map[string]bool), make(map[string]bool), true
	for _, replica := range t.Replicas {
		zone := t.zoneOf(replica.Node)
		onNode[replica.Node], inZone[zone] = true, true
		zoned = zoned && zone != ""
	}
	of := make([]reach, nodes.Len())
	for i, node := range nodes.names {
		if t.Distribution == PreferSameNode && onNode[node] {
			of[i].node = node
		} else if zone := t.zoneOf(node); zoned && inZone[zone] {
			of[i].zone = zone
		}
	}
	return of
}

// leadsTo reports whether the replica on node in zone is among them.
func (r reach) leadsTo(node, zone string) bool {
	switch {
	case r.node != "":
		return r.node == node
	case r.zone != "":
		return r.zone == zone
	}
	return true
}

func (t *Target) zoneOf(node string) string {
	if t.ZoneOf == nil {
		return ""
	}
	return t.ZoneOf(node)
}
