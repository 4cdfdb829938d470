package scenario

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Limits of a scenario. A network namespace, an agent and its share of the
// forwarding process stand behind each node, on one machine.
const (
	maxNodes   = 64
	maxWorkers = 1000
	maxRTT     = 5 * time.Second
	maxSearch  = 50
)

// Distributions of jitter.
var distributions = []string{"exponential", "normal", "pareto", "uniform"}

// Protocols that a path may block.
const (
	ProtocolICMP = "icmp"
	ProtocolTCP  = "tcp"
	ProtocolUDP  = "udp"
)

var protocols = []string{ProtocolICMP, ProtocolTCP, ProtocolUDP}

// validate lists all faults of the scenario, with defaults filled in.
func (s *Scenario) validate() field.ErrorList {
	var errs field.ErrorList
	errs = append(errs, dnsLabel(field.NewPath("name"), s.Name)...)
	providerErrs := s.validateProviders(field.NewPath("providers"))
	errs = append(errs, providerErrs...)
	if len(providerErrs) > 0 {
		// Everything below names providers and nodes: with these in doubt its
		// faults would be noise.
		return errs
	}
	errs = append(errs, s.validateNetwork()...)
	errs = append(errs, s.validateApplications(field.NewPath("applications"))...)
	errs = append(errs, s.validateBurst(field.NewPath("burst"))...)
	errs = append(errs, s.validateProbe(field.NewPath("probe"))...)
	return errs
}

func (s *Scenario) validateProviders(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(s.Providers) == 0 {
		return append(errs, field.Required(path, "name at least one provider"))
	}
	total := 0
	seen := make(map[string]bool)
	for i, p := range s.Providers {
		at := path.Index(i)
		errs = append(errs, dnsLabel(at.Child("name"), p.Name)...)
		if seen[p.Name] {
			errs = append(errs, field.Duplicate(at.Child("name"), p.Name))
		}
		seen[p.Name] = true
		if p.Nodes < 1 || p.Nodes > maxNodes {
			errs = append(errs, field.Invalid(at.Child("nodes"), p.Nodes, fmt.Sprintf("want 1 to %d", maxNodes)))
		} else {
			total += p.Nodes
		}
		for key, value := range p.Labels {
			errs = append(errs, labelKey(at.Child("labels"), key)...)
			errs = append(errs, labelValue(at.Child("labels").Key(key), value)...)
		}
		errs = append(errs, labelValue(at.Child("region"), p.Region)...)
		errs = append(errs, labelValue(at.Child("zone"), p.Zone)...)
		if p.ProviderLabel != "" {
			errs = append(errs, labelKey(at.Child("providerLabel"), p.ProviderLabel)...)
		}
		for j, t := range p.Taints {
			errs = append(errs, labelKey(at.Child("taints").Index(j).Child("key"), t.Key)...)
			effects := []corev1.TaintEffect{corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute}
			if !slices.Contains(effects, t.Effect) {
				errs = append(errs, field.NotSupported(at.Child("taints").Index(j).Child("effect"), t.Effect, effects))
			}
		}
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourcePods} {
			if q, ok := p.Capacity[name]; !ok || q.Sign() <= 0 {
				errs = append(errs, field.Required(at.Child("capacity").Key(string(name)), "say how much a node has, more than 0"))
			}
		}
		errs = append(errs, notNegative(at.Child("capacity"), p.Capacity)...)
	}
	if total == 1 || total > maxNodes {
		errs = append(errs, field.Invalid(path, total, fmt.Sprintf("want 2 to %d nodes in all", maxNodes)))
	}
	// A provider called like another one's node would make ends ambiguous.
	if len(errs) == 0 {
		for _, n := range s.NodeList() {
			if seen[n.Name] {
				errs = append(errs, field.Invalid(path, n.Name, "is the name of a provider and of another provider's node"))
			}
		}
	}
	return errs
}

func (s *Scenario) validateNetwork() field.ErrorList {
	var errs field.ErrorList
	links := field.NewPath("links")
	for i := range s.Links {
		errs = append(errs, s.validateLink(links.Index(i), &s.Links[i])...)
	}
	if len(errs) == 0 {
		errs = append(errs, s.validateCoverage(links)...)
	}
	events := field.NewPath("events")
	var last time.Duration
	for i, e := range s.Events {
		at := events.Index(i)
		if e.At.Duration < last {
			errs = append(errs, field.Invalid(at.Child("at"), e.At.Duration.String(), "events come in order of their time, from 0s on"))
		}
		last = max(last, e.At.Duration)
		given := 0
		if e.Link != nil {
			given++
			errs = append(errs, s.validateLink(at.Child("link"), e.Link)...)
		}
		if e.Partition != nil {
			given++
			errs = append(errs, s.validateEnds(at.Child("partition"), e.Partition)...)
		}
		for _, node := range []struct{ field, name string }{{"nodeDown", e.NodeDown}, {"nodeUp", e.NodeUp}} {
			if node.name == "" {
				continue
			}
			given++
			if !slices.ContainsFunc(s.NodeList(), func(n Node) bool { return n.Name == node.name }) {
				errs = append(errs, field.NotFound(at.Child(node.field), node.name))
			}
		}
		if given != 1 {
			errs = append(errs, field.Invalid(at, given, "want exactly one of link, partition, nodeDown and nodeUp"))
		}
	}
	return errs
}

func (s *Scenario) validateLink(path *field.Path, l *Link) field.ErrorList {
	var errs field.ErrorList
	switch {
	case (l.Within == "") == (len(l.Between) == 0):
		errs = append(errs, field.Required(path, "give exactly one of between and within"))
	case l.Within != "":
		if !slices.ContainsFunc(s.Providers, func(p Provider) bool { return p.Name == l.Within }) {
			errs = append(errs, field.NotFound(path.Child("within"), l.Within))
		}
	default:
		errs = append(errs, s.validateEnds(path.Child("between"), l.Between)...)
	}
	if l.RTT.Duration <= 0 || l.RTT.Duration > maxRTT {
		errs = append(errs, field.Invalid(path.Child("rtt"), l.RTT.Duration.String(), fmt.Sprintf("want more than 0 and at most %v, for instance 500us or 2.5ms", maxRTT)))
	}
	if l.Jitter != nil {
		if !slices.Contains(distributions, l.Jitter.Distribution) {
			errs = append(errs, field.NotSupported(path.Child("jitter", "distribution"), l.Jitter.Distribution, distributions))
		}
		if l.Jitter.Mean.Duration < 0 || l.Jitter.Mean.Duration > maxRTT {
			errs = append(errs, field.Invalid(path.Child("jitter", "mean"), l.Jitter.Mean.Duration.String(), fmt.Sprintf("want 0s to %v", maxRTT)))
		}
	}
	if !(l.Duplicate >= 0 && l.Duplicate <= 1) {
		errs = append(errs, field.Invalid(path.Child("duplicate"), l.Duplicate, "want a probability from 0 to 1"))
	}
	for i, protocol := range l.Blocks {
		if !slices.Contains(protocols, protocol) {
			errs = append(errs, field.NotSupported(path.Child("blocks").Index(i), protocol, protocols))
		}
	}
	if !(l.Loss >= 0 && l.Loss < 1) {
		errs = append(errs, field.Invalid(path.Child("loss"), l.Loss, "want a probability from 0 to less than 1; for no connection at all use a partition event"))
	}
	if l.Asymmetry != nil && !(*l.Asymmetry >= 0 && *l.Asymmetry <= 1) {
		errs = append(errs, field.Invalid(path.Child("asymmetry"), *l.Asymmetry, "want a share from 0 to 1"))
	}
	return errs
}

func (s *Scenario) validateEnds(path *field.Path, ends []string) field.ErrorList {
	if len(ends) != 2 {
		return field.ErrorList{field.Invalid(path, strings.Join(ends, ", "), "want two ends, each a provider or a node")}
	}
	var errs field.ErrorList
	for i, name := range ends {
		if len(s.nodesAt(name)) == 0 {
			errs = append(errs, field.NotFound(path.Index(i), name))
		}
	}
	if ends[0] == ends[1] {
		errs = append(errs, field.Invalid(path, strings.Join(ends, ", "), "the two ends are the same; use within for the nodes of one provider"))
	}
	return errs
}

// validateCoverage reports each pair of providers with nodes that no link
// covers, once.
func (s *Scenario) validateCoverage(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	reported := make(map[string]bool)
	network := s.Network()
	nodes := s.NodeList()
	for i, a := range nodes {
		for _, b := range nodes[i+1:] {
			if _, _, ok := network.link(a, b); ok {
				continue
			}
			missing := fmt.Sprintf("no link covers %s to %s; add between: [%s, %s]", a.Name, b.Name, a.Provider, b.Provider)
			if a.Provider == b.Provider {
				missing = fmt.Sprintf("no link covers %s to %s; add within: %s", a.Name, b.Name, a.Provider)
			}
			if key := a.Provider + " " + b.Provider; !reported[key] {
				reported[key] = true
				errs = append(errs, field.Required(path, missing))
			}
		}
	}
	return errs
}

func (s *Scenario) validateApplications(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	qdrant := path.Child("qdrant")
	for i, name := range s.Applications.Qdrant.Places {
		if len(s.nodesAt(name)) == 0 {
			errs = append(errs, field.NotFound(qdrant.Child("places").Index(i), name))
		}
	}
	if r := s.Applications.Qdrant.Replicas; r < 1 || r > maxNodes {
		errs = append(errs, field.Invalid(qdrant.Child("replicas"), r, fmt.Sprintf("want 1 to %d", maxNodes)))
	} else if places := len(s.QdrantNodes()); places < r {
		errs = append(errs, field.Invalid(qdrant.Child("replicas"), r, fmt.Sprintf("there are %d nodes to run on, one replica each", places)))
	}
	if p := s.Applications.GPU.Port; p < 1 || p > 65535 {
		errs = append(errs, field.Invalid(path.Child("gpu", "port"), p, "want a port from 1 to 65535"))
	}
	if n := len(s.Applications.Search); n < 1 || n > maxSearch {
		errs = append(errs, field.Invalid(path.Child("search"), n, fmt.Sprintf("want 1 to %d round trips", maxSearch)))
	}
	for i, name := range s.Applications.Search {
		if name != ApplicationQdrant && name != ApplicationGPU {
			errs = append(errs, field.NotSupported(path.Child("search").Index(i), name, []string{ApplicationQdrant, ApplicationGPU}))
		} else if name == ApplicationGPU && len(s.GPUNodes()) == 0 {
			errs = append(errs, field.Invalid(path.Child("search").Index(i), name, "no provider has nvidia.com/gpu in its capacity"))
		}
	}
	return errs
}

func (s *Scenario) validateBurst(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if s.Burst.From < 0 {
		errs = append(errs, field.Invalid(path.Child("from"), s.Burst.From, "want 0 or more"))
	}
	if s.Burst.To < max(1, s.Burst.From) || s.Burst.To > maxWorkers {
		errs = append(errs, field.Invalid(path.Child("to"), s.Burst.To, fmt.Sprintf("want at least from, and 1 to %d", maxWorkers)))
	}
	if q, ok := s.Burst.Requests[corev1.ResourceCPU]; !ok || q.Sign() <= 0 {
		errs = append(errs, field.Required(path.Child("requests").Key("cpu"), "say how much CPU a worker requests; without requests nothing limits what fits on a node"))
	}
	return append(errs, notNegative(path.Child("requests"), s.Burst.Requests)...)
}

func (s *Scenario) validateProbe(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if i := s.Probe.Interval.Duration; i < 100*time.Millisecond || i > time.Hour {
		errs = append(errs, field.Invalid(path.Child("interval"), i.String(), "want 100ms to 1h"))
	}
	if w := s.Probe.Window.Duration; w < 3*s.Probe.Interval.Duration || w > 24*time.Hour {
		errs = append(errs, field.Invalid(path.Child("window"), w.String(), "want at least three intervals, and at most 24h"))
	}
	return errs
}

func notNegative(path *field.Path, list corev1.ResourceList) field.ErrorList {
	var errs field.ErrorList
	for name, q := range list {
		if q.Sign() < 0 {
			errs = append(errs, field.Invalid(path.Key(string(name)), q.String(), "want 0 or more"))
		}
	}
	return errs
}

func dnsLabel(path *field.Path, name string) field.ErrorList {
	return invalid(path, name, validation.IsDNS1123Label(name))
}

func labelKey(path *field.Path, key string) field.ErrorList {
	return invalid(path, key, validation.IsQualifiedName(key))
}

func labelValue(path *field.Path, value string) field.ErrorList {
	return invalid(path, value, validation.IsValidLabelValue(value))
}

func invalid(path *field.Path, value string, faults []string) field.ErrorList {
	errs := make(field.ErrorList, 0, len(faults))
	for _, fault := range faults {
		errs = append(errs, field.Invalid(path, value, fault))
	}
	return errs
}
