package placement_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/placement"
)

func TestOfATargetOnManyNodesEverySoManyThCounts(t *testing.T) {
	const on = 10*placement.MaxReplicaNodes + 7
	rtts := map[latency.Pair]time.Duration{}
	var rs []placement.Replica
	for i := range on {
		name := fmt.Sprintf("gpu-%04d", i)
		rs = append(rs, placement.Replica{Node: name, Count: 1})
		rtts[latency.Pair{Node: "a", Peer: name}] = time.Duration(1+i) * time.Microsecond
	}
	l := placement.NewLatencies(placement.NewNodes([]string{"a"}), placement.Target{Name: "gpu", Replicas: rs}, measured(rtts))
	counted := l.Target().Replicas
	if len(counted) != placement.MaxReplicaNodes {
		t.Fatalf("%d nodes count, want %d", len(counted), placement.MaxReplicaNodes)
	}
	for i := range len(counted) - 1 {
		if counted[i].Node >= counted[i+1].Node {
			t.Fatalf("%s comes before %s", counted[i].Node, counted[i+1].Node)
		}
	}
	const mean = (on + 1) * time.Microsecond / 2
	if got, _ := l.At(0); (got - mean).Abs() > mean/100 {
		t.Errorf("the mean is %v, want nearly that over all nodes, %v", got, mean)
	}
	if len(rs) != on {
		t.Error("the caller's replicas were changed")
	}
}
