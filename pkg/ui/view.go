package ui

import (
	"encoding/json"
	"strconv"
	"sync"
	"time"

	"github.com/netlatency/netlatency/pkg/latency"
)

// maxNodes is for how many nodes the page gets every pair: a million of them
// are 5 MB. Of a larger cluster it has the providers, and single nodes.
const maxNodes = 1000

// view is a Snapshot with its version, and what was made of it for the page:
// each part once, when it is asked for first. It is safe for concurrent use.
type view struct {
	*Snapshot
	version   string
	nodes     []Node         // ordered
	index     map[string]int // by name
	providers []string       // in the order of nodes
	of        []int          // the provider of each node
	pairs     *pairs
	matrices  map[string]func() body
	overview  func() body
	targets   func() body
	placed    func() body
}

func newView(s *Snapshot, version string, history *history) *view {
	v := &view{Snapshot: s, version: version, nodes: ordered(s.Nodes), index: make(map[string]int, len(s.Nodes)), matrices: make(map[string]func() body)}
	for i := range v.nodes {
		n := &v.nodes[i]
		v.index[n.Name] = i
		if last := len(v.providers) - 1; last < 0 || v.providers[last] != n.provider() {
			v.providers = append(v.providers, n.provider())
		}
		v.of = append(v.of, len(v.providers)-1)
	}
	v.pairs = readPairs(v)
	for k := range quantities {
		v.matrices[quantities[k].name] = once(func() []byte { return v.encodeMatrix(&quantities[k], v.pairs.values[k]) })
	}
	v.matrices["method"] = once(v.encodeMethods)
	v.overview = once(func() []byte { return v.encodeOverview(history.since()) })
	v.targets = once(func() []byte { return encode(map[string]any{"version": version, "profiles": orEmpty(s.Profiles)}) })
	v.placed = once(func() []byte {
		return encode(map[string]any{"version": version, "placements": orEmpty(s.Placements), "left_out": s.PlacementsLeftOut})
	})
	return v
}

// orEmpty is nil as an empty list: null is none in JSON.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func once(encode func() []byte) func() body {
	return sync.OnceValue(func() body { return pack(encode()) })
}

// encode is for what cannot fail: numbers, texts and lists of them.
func encode(object any) []byte {
	text, err := json.Marshal(object)
	if err != nil {
		panic(err)
	}
	return text
}

// encodeOverview is what is to be said of the whole, and the nodes.
func (v *view) encodeOverview(since time.Time) []byte {
	agents, answered := 0, 0
	nodes := make([]any, 0, len(v.nodes))
	for i := range v.nodes {
		n := &v.nodes[i]
		switch n.Agent.State {
		case AgentAnswered:
			agents, answered = agents+1, answered+1
		case AgentSilent:
			agents++
		}
		nodes = append(nodes, []any{n.Name, v.of[i], n.Group.Region, n.Group.Zone, n.Agent.State, Time{n.Agent.Answered}, n.Agent.Fault})
	}
	return encode(map[string]any{
		"version": v.version, "taken": Time{v.Taken}, "since": Time{since},
		"interval_ms": v.Interval.Milliseconds(), "stale_ms": v.StaleAfter.Milliseconds(), "recording": v.Recording,
		"tail_weight": v.Statistic.TailWeight, "loss_penalty_ms": v.Statistic.LossPenalty.Milliseconds(),
		"providers": orEmpty(v.providers), "nodes": nodes, "max_nodes": maxNodes,
		"agents": agents, "answered": answered, "measured": v.Matrix.Pairs(), "pairs": len(v.nodes) * max(0, len(v.nodes)-1),
		"problems": orEmpty(v.Problems),
	})
}

// encodeMatrix has a quantity of every pair: rows of values, null where there
// is none, rows of letters for the basis, and the blocks between providers.
//
// It is written by hand, because a quarter of a million values take
// encoding/json longer than all the rest takes.
func (v *view) encodeMatrix(q *quantity, values []int32) []byte {
	n := len(v.nodes)
	text := append(v.begin(q.name), `,"unit":"`+q.unit+`"`...)
	blocks := newBlocks(v.providers)
	if n > maxNodes {
		v.addMeasured(blocks, q)
		text = append(text, `,"rows":null,"basis":null`...)
		return append(append(append(text, `,"blocks":`...), encode(sums(blocks, q))...), '}')
	}
	text = append(text, `,"rows":[`...)
	for i := range n {
		text = append(separated(text, i), '[')
		for j, value := range values[i*n : (i+1)*n] {
			text = separated(text, j)
			if i == j {
				text = append(text, '0')
				continue
			}
			basis := v.pairs.basis[i*n+j]
			blocks[v.of[i]][v.of[j]].add(value, basis, v.pairs.isMeasured(i*n+j))
			if value == none {
				text = append(text, "null"...)
			} else {
				text = strconv.AppendInt(text, int64(value), 10)
			}
		}
		text = append(text, ']')
	}
	text = append(text, `],"basis":[`...)
	for i := range n {
		text = append(separated(text, i), '"')
		for _, basis := range v.pairs.basis[i*n : (i+1)*n] {
			text = append(text, bases[basis])
		}
		text = append(text, '"')
	}
	return append(append(append(text, `],"blocks":`...), encode(sums(blocks, q))...), '}')
}

// encodeMethods has for every pair the place of its method in a list, null
// where it was not measured. Between providers it is the method of most pairs.
func (v *view) encodeMethods() []byte {
	text := v.encodeMatrix(&byMethod, v.pairs.method)
	return append(append(text[:len(text)-1], `,"methods":`...), append(encode(orEmpty(v.pairs.methods)), '}')...)
}

// addMeasured puts the measured pairs into blocks: in a cluster of too many
// nodes these alone.
func (v *view) addMeasured(blocks [][]block, q *quantity) {
	for pair, d := range v.Matrix.All() {
		i, known := v.index[pair.Node]
		j, knows := v.index[pair.Peer]
		if !known || !knows {
			continue
		}
		e := v.Estimates.Estimate(pair.Node, pair.Peer)
		value := int32(none)
		switch {
		case q.of != nil:
			value = q.of(v.Snapshot, &d)
		case q == &byMethod:
			value = v.pairs.methodAt(d.Method)
		case e.Basis != latency.Unknown:
			value = micros(e.Latency)
		}
		blocks[v.of[i]][v.of[j]].add(value, e.Basis, true)
	}
}

// begin is the begin of an answer about all pairs.
func (v *view) begin(show string) []byte {
	return append(append([]byte(`{"version":`), encode(v.version)...), `,"show":"`+show+`"`...)
}

// separated has a comma behind what is not the first of a list.
func separated(text []byte, at int) []byte {
	if at > 0 {
		text = append(text, ',')
	}
	return text
}

// block is the pairs between two providers.
type block struct {
	pairs, measured int
	values          []int32
	weakest         latency.Basis
}

func newBlocks(providers []string) [][]block {
	blocks := make([][]block, len(providers))
	for a := range blocks {
		blocks[a] = make([]block, len(providers))
		for b := range blocks[a] {
			blocks[a][b].weakest = latency.Local
		}
	}
	return blocks
}

func (b *block) add(value int32, basis latency.Basis, measured bool) {
	b.pairs++
	b.weakest = min(b.weakest, basis)
	if measured {
		b.measured++
	}
	if value != none {
		b.values = append(b.values, value)
	}
}

// sums is the blocks as the page has them: like the pairs, but with how many
// of them there are, and are measured.
func sums(blocks [][]block, q *quantity) map[string]any {
	rows, basis := make([][]*int32, 0, len(blocks)), make([]string, 0, len(blocks))
	pairs, measured := make([][]int, 0, len(blocks)), make([][]int, 0, len(blocks))
	for _, row := range blocks {
		values, letters := make([]*int32, 0, len(row)), make([]byte, 0, len(row))
		all, known := make([]int, 0, len(row)), make([]int, 0, len(row))
		for _, b := range row {
			var value *int32
			if len(b.values) > 0 {
				value = new(q.sum(b.values))
			}
			values, letters = append(values, value), append(letters, bases[b.weakest])
			all, known = append(all, b.pairs), append(known, b.measured)
		}
		rows, basis = append(rows, values), append(basis, string(letters))
		pairs, measured = append(pairs, all), append(measured, known)
	}
	return map[string]any{"rows": rows, "basis": basis, "pairs": pairs, "measured": measured}
}
