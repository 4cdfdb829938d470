package latency_test

import (
	"math"
	"testing"

	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/test/networks"
)

func TestEstimatesOfAMetro(t *testing.T) {
	const nodes, probes = 300, 16
	for _, test := range []struct {
		name       string
		unlabelled float64 // share of the nodes
		// maxError is the median relative error on pairs that nobody measured.
		// Every path is up to 8 % longer or shorter than others of its kind, 4 %
		// in the median, which no method can know.
		maxError float64
	}{
		{"with labels", 0, 0.05},
		{"where half of the nodes have labels", 0.5, 0.07},
		{"without labels", 1, 0.07},
	} {
		t.Run(test.name, func(t *testing.T) {
			var inside, pairs float64
			for seed := range uint64(4) {
				sample := networks.Metro(nodes, seed).Unlabelled(test.unlabelled, seed).Sample(probes, seed)
				estimates, e := sample.Estimates()
				errors := sample.Errors(estimates)
				if median := errors[len(errors)/2]; median > test.maxError {
					t.Errorf("seed %d: median error %.4f, want at most %v", seed, median, test.maxError)
				}
				for i, node := range sample.Names {
					for j, peer := range sample.Names {
						if i == j || sample.Known(i, j) {
							continue
						}
						got := e.Estimate(node, peer)
						if got.Basis != latency.Group {
							t.Fatalf("seed %d, %s to %s: basis is %v", seed, node, peer, got.Basis)
						}
						pairs++
						if math.Abs(got.Latency.Seconds()-sample.RTT[i][j]) <= got.Error.Seconds() {
							inside++
						}
					}
				}
			}
			if share := inside / pairs; share < 0.87 || share > 0.95 {
				t.Errorf("the error bars hold %.3f of the pairs, want about nine of ten", share)
			}
		})
	}
}
