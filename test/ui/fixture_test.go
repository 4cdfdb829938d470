package ui

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/placement"
	"github.com/netlatency/netlatency/pkg/source"
	"github.com/netlatency/netlatency/pkg/ui"
	"github.com/netlatency/netlatency/test/networks"
)

// small is the cluster of the README: three providers in one metropolitan area.
var small = []struct {
	provider, region, zone string
	nodes                  int
}{{"gthost", "eu-central", "fra", 4}, {"hetzner", "eu-central", "fsn1", 5}, {"neuralrack", "eu-central", "1", 3}}

// between is the round trip between its providers in ms.
var between = map[[2]string]float64{
	{"gthost", "gthost"}: 0.2, {"hetzner", "hetzner"}: 0.08, {"neuralrack", "neuralrack"}: 0.2,
	{"gthost", "hetzner"}: 0.5, {"hetzner", "neuralrack"}: 2.5, {"gthost", "neuralrack"}: 14,
}

// cluster is nodes with what was measured between them.
type cluster struct {
	nodes    []ui.Node
	groups   map[string]latency.NodeGroup
	observed map[latency.Pair]latency.Distribution
}

// distribution is around a mean, in seconds.
func distribution(r *rand.Rand, mean float64, now time.Time) latency.Distribution {
	at := func(factor float64) time.Duration { return time.Duration(mean * factor * float64(time.Second)) }
	d := latency.Distribution{
		Min: at(0.92), P50: at(0.99), P90: at(1.06 + 0.05*r.Float64()), P99: at(1.2 + 0.4*r.Float64()), Mean: at(1),
		Samples: 120, Sent: 720, Newest: now.Add(-time.Duration(1+4*r.Float64()) * time.Second), Method: "udp",
	}
	return d
}

// smallCluster has some of everything: losses, a stale pair, a pair that is not
// measured, a node that nobody has measured, other methods.
func smallCluster(now time.Time, drift float64) *cluster {
	r := rand.New(rand.NewPCG(1, 2))
	c := &cluster{groups: make(map[string]latency.NodeGroup), observed: make(map[latency.Pair]latency.Distribution)}
	for _, p := range small {
		for i := range p.nodes {
			name := fmt.Sprintf("%s-%d", p.provider, i+1)
			c.groups[name] = latency.NodeGroup{Provider: p.provider, Region: p.region, Zone: p.zone}
			c.nodes = append(c.nodes, ui.Node{Name: name, Group: c.groups[name], Agent: ui.Agent{State: ui.AgentAnswered, Answered: now}})
		}
	}
	for _, a := range c.nodes {
		for _, b := range c.nodes {
			if a.Name == b.Name {
				continue
			}
			mean, ok := between[[2]string{a.Group.Provider, b.Group.Provider}]
			if !ok {
				mean = between[[2]string{b.Group.Provider, a.Group.Provider}]
			}
			d := distribution(r, mean*drift*(0.93+0.14*r.Float64())/1000, now)
			if a.Name == "hetzner-2" && b.Group.Provider == "gthost" {
				d.Lost = 18
			}
			c.observed[latency.Pair{Node: a.Name, Peer: b.Name}] = d
		}
	}
	stale := latency.Pair{Node: "gthost-1", Peer: "gthost-2"}
	d := c.observed[stale]
	d.Newest = now.Add(-12 * time.Minute)
	c.observed[stale] = d
	for _, pair := range []latency.Pair{{Node: "gthost-3", Peer: "neuralrack-2"}, {Node: "neuralrack-2", Peer: "gthost-3"}, {Node: "hetzner-4", Peer: "hetzner-1"}} {
		delete(c.observed, pair)
	}
	for pair, d := range c.observed {
		if pair.Peer == "neuralrack-3" {
			d.Method = "icmp"
			c.observed[pair] = d
		}
		if pair.Node == "neuralrack-3" {
			delete(c.observed, pair) // its agent does not answer
		}
	}
	c.nodes[11].Agent = ui.Agent{State: ui.AgentSilent, Answered: now.Add(-4 * time.Minute), Fault: `scrape agent on node "neuralrack-3": context deadline exceeded`}
	return c
}

// largeCluster is n nodes in three providers, of which each has measured all
// others.
func largeCluster(n int, now time.Time) *cluster {
	network := networks.Metro(n, 1)
	r := rand.New(rand.NewPCG(3, 4))
	c := &cluster{groups: network.Groups, observed: make(map[latency.Pair]latency.Distribution, n*n)}
	for i, name := range network.Names {
		c.nodes = append(c.nodes, ui.Node{Name: name, Group: network.Groups[name], Agent: ui.Agent{State: ui.AgentAnswered, Answered: now}})
		for j, peer := range network.Names {
			if i != j {
				c.observed[latency.Pair{Node: name, Peer: peer}] = distribution(r, network.Noise(r, network.RTT[i][j]), now)
			}
		}
	}
	return c
}

func (c *cluster) snapshot(now time.Time) *ui.Snapshot {
	m := latency.NewMatrix(now, c.observed)
	return &ui.Snapshot{
		Taken: now, Interval: 2 * time.Second, Nodes: c.nodes, Matrix: m, StaleAfter: 5 * time.Minute, Statistic: latency.DefaultStatistic(),
		Estimates: latency.NewEstimator(m, latency.DefaultStatistic(), 5*time.Minute, c.groups, now),
	}
}

// file writes a recording of the cluster.
func (c *cluster) file(t *testing.T, now time.Time) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "matrix.jsonl")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := source.Record(file, latency.NewMatrix(now, c.observed), c.groups, "test", now); err != nil {
		t.Fatal(err)
	}
	return path
}

// live is the small cluster as a running one, with pods and an hour of the past.
func live(t *testing.T) (server *ui.Server, url string, publish func(change func(*ui.Snapshot))) {
	t.Helper()
	server, err := ui.NewServer(true)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now().Add(-20 * time.Minute)
	for i := range 60 {
		at := start.Add(time.Duration(i) * 20 * time.Second)
		drift := 1 + 0.15*math.Sin(float64(i)/6)
		if i > 40 {
			drift *= 1.8
		}
		server.Publish(smallCluster(at, drift).snapshot(at))
	}
	publish = func(change func(*ui.Snapshot)) {
		now := time.Now()
		s := smallCluster(now, 1).snapshot(now)
		withPods(s, now)
		if change != nil {
			change(s)
		}
		server.Publish(s)
	}
	publish(nil)
	web := httptest.NewServer(server)
	t.Cleanup(web.Close)
	return server, web.URL + "/", publish
}

// withPods adds targets and placements.
func withPods(s *ui.Snapshot, now time.Time) {
	s.Profiles = []ui.Profile{{Name: "netlatency-scheduler", Targets: []ui.Target{
		{Name: "qdrant", Kind: "pods", Chooses: "app.kubernetes.io/name=qdrant", Weight: 3, Aggregation: "Mean", MaxRTT: "5ms", Nodes: []ui.TargetPlace{
			{Node: "gthost-1", Replicas: 1, Latency: new(0.23)}, {Node: "gthost-2", Replicas: 1, Users: 2, Latency: new(0.22)}, {Node: "gthost-4", Replicas: 1, Latency: new(0.23)},
			{Node: "hetzner-1", Users: 7, Latency: new(0.57)}, {Node: "hetzner-2", Users: 6, Latency: new(4.21)}, {Node: "hetzner-3", Users: 7, Latency: new(0.55)},
		}},
		{Name: "gpu", Kind: "nodes", Chooses: "with nvidia.com/gpu", Weight: 2, Aggregation: "Nearest", Nodes: []ui.TargetPlace{
			{Node: "neuralrack-1", Replicas: 1}, {Node: "neuralrack-2", Replicas: 1}, {Node: "neuralrack-3", Replicas: 1},
			{Node: "hetzner-1", Users: 7, Latency: new(2.71)}, {Node: "hetzner-2", Users: 6, Latency: new(2.68)}, {Node: "hetzner-3", Users: 7, Latency: new(2.74)}, {Node: "gthost-2", Users: 2, Latency: new(15.1)},
		}},
		{Name: "head", Kind: "pods", Chooses: "ray.io/node-type=head, same ray.io/cluster", Weight: 1, Aggregation: "Mean", PerPod: true, Nodes: []ui.TargetPlace{}},
		{Name: "cache", Kind: "service", Chooses: "search/cache", Weight: 1, Aggregation: "Mean", Nodes: []ui.TargetPlace{}},
	}}}
	at := func(ago time.Duration) ui.Time { return ui.Time{Time: now.Add(-ago)} }
	s.Placements = []ui.Placement{
		{Namespace: "search", Name: "search-workers-m4k2p", Profile: "netlatency-scheduler", Since: at(40 * time.Second), Waits: "0/12 nodes are available: 8 node(s) beyond maxRTT 5ms of target qdrant, 4 Insufficient cpu."},
		{
			Namespace: "search", Name: "search-workers-8c2lx", Profile: "netlatency-scheduler", Node: "hetzner-1", Since: at(70 * time.Second), Cost: new(1.43), Best: "hetzner-3", BestCost: new(1.41),
			Explanation: &placement.Record{CostMS: new(1.41), Best: "hetzner-3", BestMS: new(1.41), Rank: 1, Of: 9, AgeS: new(4.2), Targets: []placement.TargetRecord{{Name: "qdrant", MS: new(0.56), Weight: 3, Basis: "measured"}, {Name: "gpu", MS: new(2.7), Weight: 2, Basis: "measured"}}},
		},
		{
			Namespace: "search", Name: "search-workers-x9tqz", Profile: "netlatency-scheduler", Node: "gthost-2", Since: at(75 * time.Second), Cost: new(6.17), Best: "hetzner-3", BestCost: new(1.41),
			Explanation: &placement.Record{CostMS: new(6.02), Best: "hetzner-3", BestMS: new(1.41), Rank: 4, Of: 6, KeptBy: "NodeResourcesFit", AgeS: new(4.2), Targets: []placement.TargetRecord{{Name: "qdrant", MS: new(0.22), Weight: 3, Basis: "measured"}, {Name: "gpu", MS: new(14.7), Weight: 2, Basis: "group"}}},
			Events:      []ui.Event{{Reason: "NetLatencyFar", Note: "Placed on gthost-2, 6.02ms from its targets on average; hetzner-3 would have been 1.41ms but for the scheduler plugin NodeResourcesFit.", At: at(75 * time.Second)}},
		},
	}
	for i := range 18 {
		s.Placements = append(s.Placements, ui.Placement{
			Namespace: "search", Name: fmt.Sprintf("search-workers-a%02d", i), Profile: "netlatency-scheduler", Node: fmt.Sprintf("hetzner-%d", 1+i%3), Since: at(time.Duration(5+i) * time.Minute),
			Cost: new(1.4 + 0.01*float64(i%3)), Best: "hetzner-3", BestCost: new(1.41),
		})
	}
	s.Placements[len(s.Placements)-1].Explanation = &placement.Record{CostMS: new(6.1), Best: "hetzner-3", BestMS: new(1.41), KeptBy: "unknown"}
}
