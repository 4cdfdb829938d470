package trial

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Report is what a trial found, as build/demo.json has it. Times are in
// milliseconds unless their name says otherwise.
type Report struct {
	Scenario    string `json:"scenario"`
	Nodes       int    `json:"nodes"`
	AgentsReady int    `json:"agents_ready"`
	// Pairs is the number of ordered pairs of nodes, PairsFresh those that
	// were measured lately when the first phase began.
	Pairs      int `json:"pairs"`
	PairsFresh int `json:"pairs_fresh"`
	// RTTError is, for each probe that the agents counted, the difference of
	// its round-trip time from what the WAN logged for the same packets.
	RTTErrorP50 float64 `json:"rtt_error_p50_ms"`
	RTTErrorP99 float64 `json:"rtt_error_p99_ms"`
	// RTTSamples is how many probes that is.
	RTTSamples int `json:"rtt_samples"`
	// Late is by how much packets left the sandbox's WAN after they were due:
	// what this machine added to its network.
	LateP50 float64 `json:"late_p50_ms"`
	LateP99 float64 `json:"late_p99_ms"`
	Phases  []Phase `json:"phases"`
	Seconds Seconds `json:"seconds"`
}

// Phase is a state of the network, in which each way to place was tried.
type Phase struct {
	Name  string           `json:"name"`
	Modes map[string]*Mode `json:"modes"`
}

// Mode is what one way to place the workers achieved in a phase.
type Mode struct {
	Workers int `json:"workers"`
	Bound   int `json:"bound"`
	// NearShare is the share of workers in the cheapest places that had room.
	NearShare float64 `json:"near_share"`
	// Cost is the true mean cost of a worker, CostVsBest its ratio to the
	// optimum under capacity.
	Cost       float64 `json:"cost_ms"`
	CostVsBest float64 `json:"cost_vs_best"`
	// RTT is the network's part of one round trip, SearchNet that of a whole
	// search, and Search its wall-clock time (see quietRounds).
	RTTP50         float64 `json:"rtt_p50_ms"`
	RTTP99         float64 `json:"rtt_p99_ms"`
	SearchNetP50   float64 `json:"search_net_p50_ms"`
	SearchNetP99   float64 `json:"search_net_p99_ms"`
	SearchP50      float64 `json:"search_p50_ms"`
	SearchP99      float64 `json:"search_p99_ms"`
	Searches       int     `json:"searches"`
	SecondsToBound float64 `json:"seconds_to_bound"`
	// PerNode is how many workers each node got.
	PerNode map[string]int `json:"per_node"`
	// HeldCost is what a worker on each node was to cost by the probes that the
	// agents could have heard of when the burst came: the network's delays and
	// what this machine added to them.
	HeldCost map[string]float64 `json:"held_cost_ms"`
	// Overcommitted names nodes whose pods request more than the node has to
	// allocate. There must be none.
	Overcommitted []string `json:"overcommitted,omitempty"`
}

// Seconds is where the time went.
type Seconds struct {
	Build   float64 `json:"build"`
	Start   float64 `json:"start"`
	Measure float64 `json:"measure"`
	Total   float64 `json:"total"`
}

// Write writes the report to path.
func (r *Report) Write(path string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode report: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	if err := os.WriteFile(path, append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// Phase returns the phase of that name, nil when there is none.
func (r *Report) Phase(name string) *Phase {
	for i := range r.Phases {
		if r.Phases[i].Name == name {
			return &r.Phases[i]
		}
	}
	return nil
}

// quantile is the q quantile of the values by the nearest-rank method; 0 of
// none. It sorts the values.
func quantile(values []time.Duration, q float64) time.Duration {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	rank := int(math.Ceil(q * float64(len(values))))
	return values[min(max(rank, 1), len(values))-1]
}

// milliseconds rounds to a tenth of a microsecond.
func milliseconds(d time.Duration) float64 {
	return math.Round(float64(d)/100) / 1e4
}
