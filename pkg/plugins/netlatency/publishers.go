package netlatency

import (
	"context"
	"sync"

	"k8s.io/client-go/kubernetes"

	"github.com/netlatency/netlatency/apis/config"
	"github.com/netlatency/netlatency/pkg/target"
)

// publishers are those of one scheduler, by where they publish. Profiles that
// publish to the same place share one.
type publishers struct {
	mu sync.Mutex
	by map[config.TargetSlices]*target.Publisher
}

// follow has the agents told where the targets run that the rules of p name.
// It returns nil if nobody is to be told. The first profile starts the
// publisher.
func (ps *publishers) follow(ctx context.Context, p *NetLatency, client kubernetes.Interface) (*target.Publisher, error) {
	to := p.args.TargetSlices
	if to.Namespace == "" {
		return nil, nil
	}
	named := make(map[string]bool)
	for _, r := range p.rules {
		for _, t := range r.targets {
			named[t.Name] = true
		}
	}
	var places []int
	for i, t := range p.args.Targets {
		// One that is elsewhere for each pod is nowhere that could be told.
		if named[t.Name] && p.targets.Configured(i) != nil {
			places = append(places, i)
		}
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	publisher, running := ps.by[to]
	if !running {
		agents := ""
		if source := p.args.Source.Agents; source != nil && source.Namespace == to.Namespace {
			agents = source.Service
		}
		publisher = target.NewPublisher(client, to, agents, p.nodes)
	}
	if err := publisher.Follow(p.targets, p.args.Targets, places); err != nil {
		return nil, err
	}
	if !running {
		if ps.by == nil {
			ps.by = make(map[config.TargetSlices]*target.Publisher)
		}
		ps.by[to] = publisher
		go p.metrics.guard(ctx, "publisher", publisher.Run)
	}
	return publisher, nil
}
