package netlatency

import (
	"fmt"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/netlatency/netlatency/apis/config"
	"github.com/netlatency/netlatency/pkg/placement"
)

// The reasons of the plugin's events, all of them warnings: a pod gets one
// only when latency was left out of its placement. Everything else is a
// metric.
const (
	reasonNoData     = "NetLatencyNoData"
	reasonNoReplicas = "NetLatencyNoReplicas"
)

// announce tells the pod's owner, once for a pod, why latency was left out and
// what to do about it.
func (p *NetLatency) announce(pod *corev1.Pod, outcome outcome, r *rule, costs *placement.Costs) {
	if p.recorder == nil || !p.announced.first(pod.UID) {
		return
	}
	reason, note := p.note(outcome, r, costs)
	p.recorder.Eventf(pod, nil, corev1.EventTypeWarning, reason, "Scheduling", "%s", note)
}

func (p *NetLatency) note(outcome outcome, r *rule, costs *placement.Costs) (reason, note string) {
	if outcome == outcomeNoReplicas {
		return reasonNoReplicas, fmt.Sprintf("Network latency is left out of this pod's placement: nothing of its targets runs anywhere (%s). "+
			"Check the selectors of the targets in the configuration of scheduler profile %s, and that what they choose is ready.",
			listed(p.names(r)), p.metrics.profile)
	}
	unknown := costs.Uninformed()
	if len(unknown) == 0 {
		unknown = p.names(r)
	}
	return reasonNoData, fmt.Sprintf("Network latency is left out of this pod's placement: there is no fresh measurement of the way to %s. %s",
		listed(unknown), whatToCheck(p.args.Source))
}

// whatToCheck is where somebody should look who misses data of the source.
func whatToCheck(source config.Source) string {
	switch {
	case source.Agents != nil:
		return fmt.Sprintf("Check that the agents behind Service %s/%s are ready and reach each other; netlatency_source_agents in the scheduler's metrics counts those that answer.",
			source.Agents.Namespace, source.Agents.Service)
	case source.Prometheus != nil:
		return "Check that the Prometheus of the scheduler's configuration answers its queries for these nodes, with samples that are not stale; netlatency_source_failures_total and netlatency_source_dropped_rows_total in the scheduler's metrics say what goes wrong."
	}
	return "Check that the file with the recorded matrix is there and knows these nodes; netlatency_source_failures_total in the scheduler's metrics counts failures to read it."
}

func (p *NetLatency) names(r *rule) []string {
	names := make([]string, 0, len(r.targets))
	for _, at := range r.targets {
		names = append(names, p.wants[at].Name)
	}
	return names
}

// listed puts names into a sentence, shortened: an event's note has at most
// 1024 characters.
func listed(names []string) string {
	const most = 5
	rest := ""
	if len(names) > most {
		rest = fmt.Sprintf(" and %d more", len(names)-most)
		names = names[:most]
	}
	return strings.Join(names, ", ") + rest
}

// announced remembers the pods that have their event, the last of them: a pod
// that is tried again and again must not get one each time.
type announced struct {
	mu    sync.Mutex
	known map[types.UID]bool
	order []types.UID // a ring once it is full
	next  int
}

const announcedMost = 4096

// first reports whether uid is met for the first time.
func (a *announced) first(uid types.UID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.known[uid] {
		return false
	}
	if a.known == nil {
		a.known = make(map[types.UID]bool)
	}
	if len(a.order) < announcedMost {
		a.order = append(a.order, uid)
	} else {
		delete(a.known, a.order[a.next])
		a.order[a.next] = uid
		a.next = (a.next + 1) % announcedMost
	}
	a.known[uid] = true
	return true
}
