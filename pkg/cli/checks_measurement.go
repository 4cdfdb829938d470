package cli

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/netlatency/netlatency/pkg/version"
)

// The Kubernetes 1.x that netlatency runs on: what the scheduler is built of
// and the next, by upstream's policy, and before these what was tried, with
// --emulated-version.
const (
	oldestMinor = 34
	builtMinor  = 36
	newestMinor = 37
)

func (e *examination) checkVersions(context.Context) (findings []finding) {
	server, err := e.client.Discovery().ServerVersion()
	if err != nil {
		return []finding{unknown("the version of the cluster", err)}
	}
	minor, err := strconv.Atoi(strings.TrimRight(server.Minor, "+"))
	if err != nil {
		return []finding{unknown("the version of the cluster", fmt.Errorf("%q is no minor version", server.Minor))}
	}
	switch {
	case minor < oldestMinor:
		findings = append(findings, fault(fmt.Sprintf("Upgrade the cluster to 1.%d or newer.", oldestMinor),
			"the cluster is of Kubernetes %s; the scheduler works from 1.%d on", server.GitVersion, oldestMinor))
	case minor > newestMinor:
		findings = append(findings, warning("Look for a newer netlatency.", "the cluster is of Kubernetes %s; this netlatency was tried up to 1.%d", server.GitVersion, newestMinor))
	case minor < builtMinor && e.scheduler != nil:
		want := fmt.Sprintf("1.%d", minor)
		if emulated, _ := argument(&e.scheduler.Spec.Template.Spec, "emulated-version"); emulated != want {
			findings = append(findings, warning(fmt.Sprintf("Set the chart's scheduler.emulatedVersion to %q.", want),
				"the cluster is of Kubernetes %s, and the scheduler is not told so", server.GitVersion))
		}
	}
	images := make(map[string][]string) // of what, by the version
	if e.agents != nil {
		note(images, "the agents", &e.agents.Spec.Template.Spec)
	}
	if e.scheduler != nil {
		note(images, "the scheduler", &e.scheduler.Spec.Template.Spec)
	}
	if v := strings.TrimPrefix(version.String(), "v"); released.MatchString(v) && len(images) > 0 {
		images[v] = append(images[v], "this program")
	}
	if len(images) > 1 {
		var parts []string
		for _, v := range slices.Sorted(maps.Keys(images)) {
			parts = append(parts, fmt.Sprintf("%s %s", strings.Join(images[v], " and "), v))
		}
		findings = append(findings, warning("Upgrade the chart, and this program with it.", "versions differ: %s", strings.Join(parts, ", ")))
	}
	if len(findings) == 0 {
		findings = append(findings, ok("the cluster is of Kubernetes %s", server.GitVersion))
	}
	return findings
}

// released is the version of a release: a build in between says which commit it
// is of, and not whether it fits.
var released = regexp.MustCompile(`^\d+\.\d+\.\d+$`)

// note notes the version in the name of an image; a digest says none.
func note(images map[string][]string, what string, spec *corev1.PodSpec) {
	for _, container := range spec.Containers {
		name, _, _ := strings.Cut(container.Image, "@")
		if at := strings.LastIndex(name, ":"); at > strings.LastIndex(name, "/") {
			tag := strings.TrimPrefix(name[at+1:], "v")
			images[tag] = append(images[tag], what)
		}
	}
}

func (e *examination) checkAgents(context.Context) (findings []finding) {
	if e.agentsErr != nil {
		return []finding{unknown("the agents", e.agentsErr)}
	}
	if e.nodesErr != nil {
		return []finding{unknown("the nodes", e.nodesErr)}
	}
	if e.agents == nil {
		return []finding{fault("Install the chart with agents.", "there is no DaemonSet of agents in namespace %s", e.namespace)}
	}
	var without, unready []string
	for i := range e.nodes {
		switch ready, is := e.running[e.nodes[i].Name]; {
		case !is:
			without = append(without, e.nodes[i].Name)
		case !ready:
			unready = append(unready, e.nodes[i].Name)
		}
	}
	if len(without) > 0 {
		findings = append(findings, warning("If they should take part, see that the chart's agent.tolerations and agent.nodeSelector let the agent onto them,\nand that the DaemonSet has no errors: kubectl -n "+e.namespace+" describe daemonset "+e.agents.Name,
			"%s without an agent: %s. What is measured to them is at best half, and pods there are placed by estimates", count(len(without), "node"), few(without)))
	}
	if len(unready) > 0 {
		findings = append(findings, fault(fmt.Sprintf("See why: kubectl -n %s describe pods -l %s; kubectl -n %s logs -l %s", e.namespace, selectorOf("agent"), e.namespace, selectorOf("agent")),
			"the agents of %s are not ready: %s", count(len(unready), "node"), few(unready)))
	}
	if len(findings) == 0 {
		findings = append(findings, ok("all of %s have a ready agent", count(len(e.nodes), "node")))
	}
	return findings
}

func (e *examination) checkAnswers(context.Context) []finding {
	if e.matrixErr != nil {
		return []finding{fault(fmt.Sprintf("If pods/proxy is forbidden to you, ask for it: it takes get on pods/proxy in namespace %s.\nOtherwise see what the agents log: kubectl -n %s logs -l %s", e.namespace, e.namespace, selectorOf("agent")), "%v", e.matrixErr)}
	}
	if e.stats.Answered < e.stats.Agents {
		var silent []string
		rows := make(map[string]bool)
		for pair := range e.matrix.All() {
			rows[pair.Node] = true
		}
		for _, node := range e.withAgents() {
			if !rows[node] {
				silent = append(silent, node)
			}
		}
		return []finding{fault(fmt.Sprintf("See what these agents log: kubectl -n %s logs -l %s", e.namespace, selectorOf("agent")),
			"%d of %d agents do not answer: %s", e.stats.Agents-e.stats.Answered, e.stats.Agents, few(silent))}
	}
	return []finding{ok("%s answer, with %s of nodes", count(e.stats.Answered, "agent"), count(e.matrix.Pairs(), "pair"))}
}

// rounds is how many bursts in a row may be lost before a pair counts no more.
const rounds = 3

func (e *examination) checkFreshness(context.Context) (findings []finding) {
	if e.agents != nil {
		if text, given := argument(&e.agents.Spec.Template.Spec, "interval"); given {
			if interval, err := time.ParseDuration(text); err == nil && rounds*interval > e.staleAfter() {
				findings = append(findings, fault("Set the chart's agent.interval to a third of staleAfter or less, or staleAfter higher.",
					"agents probe every %v, and the scheduler forgets a measurement after %v: one lost burst makes a pair unknown", interval, e.staleAfter()))
			}
		}
	}
	if e.matrixErr != nil || e.matrix == nil {
		return findings
	}
	nodes := e.withAgents()
	if len(nodes) < 2 {
		return append(findings, warning("It takes two nodes to measure anything.", "%s has a ready agent", count(len(nodes), "node")))
	}
	groups := groupsOf(e.nodes, e.providerLabels())
	type link struct{ from, to string }
	links := make(map[link][2]int) // fresh and all pairs of nodes
	all, fresh := 0, 0
	var deaf []string
	for _, node := range nodes {
		reached := 0
		for _, peer := range nodes {
			if node == peer {
				continue
			}
			l := link{groups[node].Provider, groups[peer].Provider}
			n := links[l]
			n[1]++
			all++
			if e.fresh(node, peer) {
				n[0]++
				fresh++
				reached++
			}
			links[l] = n
		}
		if reached == 0 {
			deaf = append(deaf, node)
		}
	}
	const open = "See that firewalls and network policies let the agents reach each other: UDP and TCP port 9465, and ICMP echo."
	if len(deaf) > 0 {
		findings = append(findings, fault(open, "%s no other: %s", verb(len(deaf), "node reaches", "nodes reach"), few(deaf)))
	}
	var dark []string
	for l, n := range links {
		if n[0] == 0 && l.from != "" && l.to != "" && len(deaf) < len(nodes) {
			dark = append(dark, l.from+" to "+l.to)
		}
	}
	if len(dark) > 0 && len(deaf) == 0 {
		findings = append(findings, fault(open, "nothing is measured from %s", few(dark)))
	}
	if len(findings) == 0 {
		findings = append(findings, ok("%d of %d pairs of nodes are measured and fresh (%v)", fresh, all, e.staleAfter()))
	}
	return findings
}

func verb(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func (e *examination) providerLabels() []string {
	if e.profilesErr == nil {
		return e.profiles[0].args.ProviderLabels
	}
	return defaultArgs().ProviderLabels
}

func (e *examination) checkMethods(context.Context) []finding {
	if e.matrixErr != nil || e.matrix == nil {
		return nil
	}
	groups := groupsOf(e.nodes, e.providerLabels())
	methods, where := make(map[string]int), make(map[string]bool)
	for pair, d := range e.matrix.All() {
		if !e.fresh(pair.Node, pair.Peer) {
			continue
		}
		methods[d.Method]++
		if d.Method != "udp" {
			where[groups[pair.Node].Provider+" to "+groups[pair.Peer].Provider] = true
		}
	}
	var parts []string
	for _, method := range slices.Sorted(maps.Keys(methods)) {
		parts = append(parts, fmt.Sprintf("%d by %s", methods[method], method))
	}
	if methods["udp"] > 0 && len(methods) > 1 || methods["udp"] == 0 && len(methods) > 0 && e.probesByUDP() {
		return []finding{warning("See that firewalls and network policies let UDP port 9465 through between agents: the other methods are right,\nbut see less and feel the node's load more.",
			"UDP is not answered everywhere: pairs are measured %s (%s)", strings.Join(parts, ", "), few(slices.Collect(maps.Keys(where))))}
	}
	if len(parts) == 0 {
		return nil
	}
	return []finding{ok("pairs are measured %s", strings.Join(parts, ", "))}
}

// probesByUDP reports whether the agents are told to.
func (e *examination) probesByUDP() bool {
	if e.agents == nil {
		return true
	}
	methods, given := argument(&e.agents.Spec.Template.Spec, "methods")
	return !given || slices.Contains(strings.Split(methods, ","), "udp")
}

func (e *examination) checkGroups(context.Context) []finding {
	if e.nodesErr != nil || len(e.nodes) == 0 {
		return nil
	}
	groups := groupsOf(e.nodes, e.providerLabels())
	var without []string
	providers := make(map[string]int)
	for i := range e.nodes {
		if p := groups[e.nodes[i].Name].Provider; p != "" {
			providers[p]++
		} else {
			without = append(without, e.nodes[i].Name)
		}
	}
	if len(without) > 0 {
		return []finding{warning("kubectl label node NAME netlatency.io/provider=PROVIDER",
			"%s no label that names a provider: %s. Estimates for pairs that are not measured, and tables by provider, do without", verb(len(without), "node has", "nodes have"), few(without))}
	}
	var parts []string
	for _, p := range slices.Sorted(maps.Keys(providers)) {
		parts = append(parts, fmt.Sprintf("%s %d", p, providers[p]))
	}
	return []finding{ok("%s: %s", count(len(providers), "provider"), strings.Join(parts, ", "))}
}
