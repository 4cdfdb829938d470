package trial

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/netlatency/netlatency/test/sandbox/application"
)

// rounds that the searches of a phase fall into. In each there is an equal
// share of every mode's, for the modes take turns.
const rounds = 10

// searched is a search of which the WAN's log has every packet.
type searched struct {
	round int
	// trips are the network's parts of its round trips, and net is their sum.
	trips []time.Duration
	net   time.Duration
	// wall is the wall-clock time.
	wall time.Duration
}

// searched looks the searches of one mode up in the WAN's log.
func (t *trial) searched(searches []application.Search) ([]searched, error) {
	var found []searched
	for i, s := range searches {
		one := searched{round: i * rounds / len(searches), wall: s.Took}
		for step, peer := range s.Peers {
			trip, ok := time.Duration(0), true // to an application on its own node
			if peer != s.Node {
				trip, ok = t.recorder.phase.Trip(s.Session, uint32(step))
			}
			if !ok {
				break
			}
			one.trips = append(one.trips, trip)
			one.net += trip
		}
		if len(one.trips) == len(s.Peers) {
			found = append(found, one)
		}
	}
	if missing := len(searches) - len(found); missing*100 > len(searches) {
		return nil, fmt.Errorf("%d of %d searches are not in the WAN's log as a whole", missing, len(searches))
	}
	return found, nil
}

// quietRounds are the half of the rounds in which the machine added least to
// the network's part of the searches, of whatever mode. A machine that is
// shared with others stands still now and then, and over all rounds that, not
// where the workers are, would be most of a wall clock's 99th percentile.
func quietRounds(modes [][]searched) (quiet [rounds]bool) {
	var added [rounds][]time.Duration
	for _, searches := range modes {
		for _, s := range searches {
			added[s.round] = append(added[s.round], s.wall-s.net)
		}
	}
	var order []int
	for r := range added {
		if len(added[r]) > 0 {
			order = append(order, r)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Compare(quantile(added[a], 0.95), quantile(added[b], 0.95))
	})
	for _, r := range order[:(len(order)+1)/2] {
		quiet[r] = true
	}
	return quiet
}

// judgeSearches fills in what the mode's searches took: the network's part of
// all of them, and the wall-clock time of those in quiet rounds.
func (m *Mode) judgeSearches(searches []searched, quiet [rounds]bool) {
	var trips, wall []time.Duration
	net := make([]time.Duration, 0, len(searches))
	for _, s := range searches {
		trips = append(trips, s.trips...)
		net = append(net, s.net)
		if quiet[s.round] {
			wall = append(wall, s.wall)
		}
	}
	m.Searches = len(searches)
	m.RTTP50, m.RTTP99 = milliseconds(quantile(trips, 0.5)), milliseconds(quantile(trips, 0.99))
	m.SearchNetP50, m.SearchNetP99 = milliseconds(quantile(net, 0.5)), milliseconds(quantile(net, 0.99))
	m.SearchP50, m.SearchP99 = milliseconds(quantile(wall, 0.5)), milliseconds(quantile(wall, 0.99))
}
