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
// only when something is out of the ordinary. Everything else is a metric.
const (
	reasonNoData        = "NetLatencyNoData"
	reasonNoReplicas    = "NetLatencyNoReplicas"
	reasonBadAnnotation = "NetLatencyBadAnnotation"
	reasonFar           = "NetLatencyFar"
)

// announce tells the pod's owner, once for a pod and a reason, what is out of
// the ordinary and what to do about it.
func (p *NetLatency) announce(pod *corev1.Pod, reason, note string) {
	p.announceOnce(announcement{pod.UID, reason}, pod, reason, note)
}

func (p *NetLatency) announceOnce(a announcement, pod *corev1.Pod, reason, note string) {
	if p.recorder == nil || !p.announced.first(a) {
		return
	}
	const most = 1024 // bytes of an event's note
	p.recorder.Eventf(pod, nil, corev1.EventTypeWarning, reason, "Scheduling", "%s", strings.ToValidUTF8(note[:min(len(note), most)], ""))
}

// announceFault tells of an annotation that says nothing. Who corrects one
// mistake must be told of the next, so that it is once for each.
func (p *NetLatency) announceFault(pod *corev1.Pod, fault error) {
	if fault != nil {
		p.announceOnce(announcement{pod.UID, reasonBadAnnotation + " " + fault.Error()}, pod, reasonBadAnnotation, fmt.Sprintf("The annotation %s is not understood, and the rules of scheduler profile %s count instead: %v", nearAnnotation, p.metrics.profile, fault))
	}
}

func (p *NetLatency) note(outcome outcome, d *demand, costs *placement.Costs) (reason, note string) {
	if outcome == outcomeNoReplicas {
		return reasonNoReplicas, fmt.Sprintf("Network latency is left out of this pod's placement: nothing of its targets runs anywhere (%s). "+
			"Check the selectors of the targets in the configuration of scheduler profile %s, and that what they choose is ready.",
			listed(d.names()), p.metrics.profile)
	}
	unknown := costs.Uninformed()
	if len(unknown) == 0 {
		unknown = d.names()
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

// listed puts names into a sentence, shortened.
func listed(names []string) string {
	const most = 5
	rest := ""
	if len(names) == 0 {
		return "none"
	}
	if len(names) > most {
		rest = fmt.Sprintf(" and %d more", len(names)-most)
		names = names[:most]
	}
	quoted := make([]string, 0, most)
	for _, name := range names {
		quoted = append(quoted, shortened(name)) // an annotation's may be long
	}
	return strings.Join(quoted, ", ") + rest
}

// announcement is what a pod was told.
type announcement struct {
	pod  types.UID
	what string // the reason, with the mistake if it is one
}

// announced remembers what pods were told, the last of it: a pod that is tried
// again and again must not get an event each time.
type announced struct {
	mu    sync.Mutex
	known map[announcement]bool
	order []announcement // a ring once it is full
	next  int
}

const announcedMost = 4096

// first reports whether a is met for the first time.
func (a *announced) first(now announcement) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.known[now] {
		return false
	}
	if a.known == nil {
		a.known = make(map[announcement]bool)
	}
	if len(a.order) < announcedMost {
		a.order = append(a.order, now)
	} else {
		delete(a.known, a.order[a.next])
		a.order[a.next] = now
		a.next = (a.next + 1) % announcedMost
	}
	a.known[now] = true
	return true
}
