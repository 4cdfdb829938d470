package netlatency

import (
	"fmt"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

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
	agents := p.args.Source.Agents
	return reasonNoData, fmt.Sprintf("Network latency is left out of this pod's placement: there is no fresh measurement of the way to %s. "+
		"Check that the agents behind Service %s/%s are ready and reach each other; netlatency_scrape_agents in the scheduler's metrics counts those that answer.",
		listed(unknown), agents.Namespace, agents.Service)
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
