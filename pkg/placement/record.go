package placement

import "time"

// Record is an Explanation as it is written down: the annotation that a
// scheduler puts on a pod, and what commands print. Latencies are in
// milliseconds.
type Record struct {
	Node    string         `json:"node"`
	CostMS  *float64       `json:"costMs,omitempty"` // absent where it is unknown
	Targets []TargetRecord `json:"targets,omitempty"`
	Best    string         `json:"best,omitempty"`
	BestMS  *float64       `json:"bestMs,omitempty"`
	// KeptBy is what kept the pod from Best: the plugin that refuses it there,
	// or the scores of others. It is empty on nodes that are as near.
	KeptBy string `json:"keptBy,omitempty"`
	Rank   int    `json:"rank,omitempty"`
	Of     int    `json:"of,omitempty"`
	// AgeS is how old the newest round trip of the matrix was, in seconds.
	AgeS *float64 `json:"matrixAgeSeconds,omitempty"`
}

// TargetRecord is what one target adds to the cost in a Record.
type TargetRecord struct {
	Name   string   `json:"name"`
	MS     *float64 `json:"ms,omitempty"`
	Weight int      `json:"weight"`
	Basis  string   `json:"basis"`
}

// maxRecorded bounds the targets in a Record.
const maxRecorded = 16

// NewRecord writes e down, of which keptBy is not known here, nor the age.
func NewRecord(e Explanation, keptBy string) Record {
	return Record{
		Node: e.Node, CostMS: Milliseconds(e.Cost), Best: e.Best, BestMS: Milliseconds(e.BestCost), KeptBy: keptBy, Rank: e.Rank, Of: e.Of,
		Targets: RecordParts(e.Parts[:min(len(e.Parts), maxRecorded)]),
	}
}

// RecordParts writes down of what a cost is made.
func RecordParts(parts []Part) []TargetRecord {
	records := make([]TargetRecord, 0, len(parts))
	for _, part := range parts {
		records = append(records, TargetRecord{Name: part.Target, MS: Milliseconds(part.Latency), Weight: part.Weight, Basis: part.Basis.String()})
	}
	return records
}

// Milliseconds is d to the microsecond; nil if it is Unknown.
func Milliseconds(d time.Duration) *float64 {
	if d == Unknown {
		return nil
	}
	return new(float64(d.Round(time.Microsecond)) / float64(time.Millisecond))
}
