package peers

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/placement"
	"github.com/netlatency/netlatency/test/networks"
)

const (
	seed = 1
	// othersProbed is how many nodes each node has measured besides those that
	// Qdrant runs on.
	othersProbed = 14
)

// cluster is nodes in three providers of a metropolitan area, of which the
// first runs Qdrant, and what its nodes have measured.
type cluster struct {
	network  *networks.Network
	nodes    []*corev1.Node
	qdrant   []*corev1.Pod
	zone     map[string]string // by node
	matrix   *latency.Matrix
	trueCost map[string]time.Duration // the mean round trip to Qdrant, by node
}

// newCluster has replicas of Qdrant. With slow above 0 one node in slow has an
// uplink that takes a millisecond more, wherever it is.
func newCluster(nodes, replicas, slow int) *cluster {
	c := &cluster{network: networks.Metro(nodes, seed), zone: make(map[string]string, nodes), trueCost: make(map[string]time.Duration, nodes)}
	for _, name := range c.network.Names {
		group := c.network.Groups[name]
		// Providers' zones have the same names; costs are declared by zone, and
		// to them they would be one.
		c.zone[name] = group.Provider + "-" + group.Zone
		c.nodes = append(c.nodes, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
			corev1.LabelHostname:       name,
			corev1.LabelTopologyRegion: group.Region,
			corev1.LabelTopologyZone:   c.zone[name],
		}}})
	}
	if slow > 0 {
		r := rand.New(rand.NewPCG(seed, 5))
		for _, i := range r.Perm(nodes)[:nodes/slow] {
			for j := range nodes {
				c.network.RTT[i][j] += 1e-3
				c.network.RTT[j][i] += 1e-3
			}
		}
	}
	var places []int
	for i := range replicas {
		at := i * nodes / replicas / 3 * 3 // every third node is of the first provider
		places = append(places, at)
		c.qdrant = append(c.qdrant, pod(fmt.Sprintf("qdrant-%d", i), "qdrant", c.network.Names[at]))
	}
	r := rand.New(rand.NewPCG(seed, 2))
	now := time.Now()
	observed := make(map[latency.Pair]latency.Distribution)
	measure := func(i, j int) {
		if i == j {
			return
		}
		rtt := seconds(c.network.Noise(r, c.network.RTT[i][j]))
		observed[latency.Pair{Node: c.network.Names[i], Peer: c.network.Names[j]}] = latency.Distribution{
			Mean: rtt, P50: rtt, P90: rtt, P99: rtt, Min: rtt, Samples: 100, Sent: 100, Newest: now,
		}
	}
	for i, name := range c.network.Names {
		var sum float64
		for _, j := range places {
			measure(i, j)
			sum += c.network.RTT[i][j]
		}
		for range othersProbed {
			measure(i, r.IntN(nodes))
		}
		c.trueCost[name] = seconds(sum / float64(replicas))
	}
	c.matrix = latency.NewMatrix(now, observed)
	return c
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// costs is what netlatency makes of the measurements, by its defaults.
func (c *cluster) costs() *placement.Costs {
	target := placement.Target{Name: "qdrant", Weight: 1, Aggregation: placement.Mean}
	for _, pod := range c.qdrant {
		target.Replicas = append(target.Replicas, placement.Replica{Node: pod.Spec.NodeName, Count: 1})
	}
	statistic := latency.Statistic{TailWeight: 0.1, LossPenalty: 200 * time.Millisecond}
	estimates := latency.NewEstimator(c.matrix, statistic, 2*time.Minute, c.network.Groups, c.matrix.Taken())
	nodes := placement.NewNodes(c.network.Names)
	return placement.NewCosts(nodes, []*placement.Latencies{placement.NewLatencies(nodes, target, estimates)})
}

// zonePair is an origin and a destination of declared costs.
type zonePair struct{ origin, destination string }

// declared is the costs between zones that whoever knows the matrix would
// declare: the medians of what was measured, in multiples of the median within
// a zone, which NetworkOverhead takes to cost 1, and from 1 to its maximum.
func (c *cluster) declared(most int64) map[zonePair]int64 {
	measured := make(map[zonePair][]time.Duration)
	var within []time.Duration
	for pair, d := range c.matrix.All() {
		zones := zonePair{c.zone[pair.Node], c.zone[pair.Peer]}
		measured[zones] = append(measured[zones], d.Mean)
		if zones.origin == zones.destination {
			within = append(within, d.Mean)
		}
	}
	unit := median(within)
	costs := make(map[zonePair]int64, len(measured))
	for zones, rtts := range measured {
		costs[zones] = max(1, min(most, int64((median(rtts)+unit/2)/unit)))
	}
	return costs
}

func median(values []time.Duration) time.Duration {
	slices.Sort(values)
	return values[len(values)/2]
}

// best is the mean true cost when workers go to the nodes of least cost, one
// to a node.
func (c *cluster) best(workers int) time.Duration {
	costs := slices.Sorted(maps.Values(c.trueCost))
	var sum time.Duration
	for _, cost := range costs[:workers] {
		sum += cost
	}
	return sum / time.Duration(workers)
}

// highest is one of the nodes of the highest score, drawn at random as the
// scheduler draws among equals.
func highest(r *rand.Rand, scores []int64) int {
	best := slices.Max(scores)
	var equal []int
	for i, score := range scores {
		if score == best {
			equal = append(equal, i)
		}
	}
	return equal[r.IntN(len(equal))]
}
