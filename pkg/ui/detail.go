package ui

import (
	"math"
	"slices"
	"time"

	"github.com/netlatency/netlatency/pkg/latency"
)

// estimated is an estimate as the page has it. Latencies are in microseconds.
type estimated struct {
	Basis   string `json:"basis"`
	Latency *int32 `json:"latency,omitempty"`
	Error   *int32 `json:"error,omitempty"`
}

func estimateOf(e latency.Estimate) estimated {
	if e.Basis == latency.Unknown {
		return estimated{Basis: e.Basis.String()}
	}
	return estimated{Basis: e.Basis.String(), Latency: new(micros(e.Latency)), Error: new(micros(e.Error))}
}

// distributed is a distribution as the page has it: latencies in microseconds,
// fractions of one, because this is what a person reads to the end.
type distributed struct {
	Min     float64 `json:"min"`
	P50     float64 `json:"p50"`
	P90     float64 `json:"p90"`
	P99     float64 `json:"p99"`
	Mean    float64 `json:"mean"`
	Samples int     `json:"samples"`
	Sent    int     `json:"sent"`
	Lost    int     `json:"lost"`
	Loss    float64 `json:"loss"` // ratio
	Method  string  `json:"method"`
	AgeMS   int64   `json:"age_ms"`
	Stale   bool    `json:"stale"`
}

func (v *view) distribution(i, j int) *distributed {
	d, ok := v.Matrix.Measured(v.nodes[i].Name, v.nodes[j].Name)
	if !ok {
		return nil
	}
	old := age(v.Snapshot, &d)
	return &distributed{
		Min: fine(d.Min), P50: fine(d.P50), P90: fine(d.P90), P99: fine(d.P99), Mean: fine(d.Mean),
		Samples: d.Samples, Sent: d.Sent, Lost: d.Lost, Loss: d.Loss(), Method: d.Method,
		AgeMS: old.Milliseconds(), Stale: v.StaleAfter > 0 && old > v.StaleAfter,
	}
}

// fine is d in microseconds, to the tenth.
func fine(d time.Duration) float64 { return math.Round(float64(d)/100) / 10 }

// encodeCell is all that is known of a pair, in both directions.
func (v *view) encodeCell(i, j int, course *course) []byte {
	a, b := v.nodes[i].Name, v.nodes[j].Name
	return encode(map[string]any{
		"version": v.version, "from": a, "to": b,
		"there": map[string]any{"estimate": estimateOf(v.Estimates.Estimate(a, b)), "measured": v.distribution(i, j)},
		"back":  map[string]any{"estimate": estimateOf(v.Estimates.Estimate(b, a)), "measured": v.distribution(j, i)},
		// null for a recording.
		"history": course,
	})
}

// encodeNode is the row and the column of a node: for each other node its
// place, then what is known to it, then what is known from it.
func (v *view) encodeNode(i int) []byte {
	peers := make([]any, 0, len(v.nodes))
	for j := range v.nodes {
		if i != j {
			peers = append(peers, []any{j, v.direction(i, j), v.direction(j, i)})
		}
	}
	return encode(map[string]any{"version": v.version, "name": v.nodes[i].Name, "peers": peers})
}

// direction is latency, p50, p99, loss and age of a pair in the units of the
// heatmap, null for what is not known, and the letter of the basis.
func (v *view) direction(i, j int) []any {
	a, b := v.nodes[i].Name, v.nodes[j].Name
	e := v.Estimates.Estimate(a, b)
	values := []any{nil, nil, nil, nil, nil, string(bases[e.Basis])}
	if e.Basis != latency.Unknown {
		values[0] = micros(e.Latency)
	}
	if d, measured := v.Matrix.Measured(a, b); measured {
		for k, q := range quantities {
			if at := slices.Index([]string{"p50", "p99", "loss", "age"}, q.name); at >= 0 {
				values[1+at] = quantities[k].of(v.Snapshot, &d)
			}
		}
	}
	return values
}
