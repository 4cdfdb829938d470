package main

import (
	"cmp"
	"compress/gzip"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/serf/coordinate"

	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/test/networks"
)

const (
	metroNodes  = 600
	metroProbes = 16
	metroSeeds  = 3 // of the figures with a target; the others are of one
	sliceProbes = 32
	vivaldi     = "coordinates by Vivaldi, as in Serf and Consul"
	zoneMedians = "medians between zones"
	// metroError and metroRegret are the targets with labels; withoutLabels is
	// the target as a share of Vivaldi's error, and of its regret above 1.
	metroError    = 0.05
	metroRegret   = 1.05
	withoutLabels = 0.8
)

// sampleSizes is for how many probes a node the results are shown.
var sampleSizes = []int{8, 16, 32, 64}

// quality is how good estimates are, as a mean over samples.
type quality struct {
	medianError, p90Error, regret, nextRegret float64
	samples, nexts                            float64
}

// add judges estimates made from s, and placements also by the truth of a
// later time, where it is given.
func (q *quality) add(s *networks.Sample, estimates networks.Estimates, next *networks.Network) {
	errors := s.Errors(estimates)
	q.medianError += errors[(len(errors)-1)/2]
	q.p90Error += errors[len(errors)*9/10]
	q.regret += s.Regret(estimates, s.RTT, 1)
	q.samples++
	if next != nil {
		q.nextRegret += s.Regret(estimates, next.RTT, 1)
		q.nexts++
	}
}

func (q quality) mean() quality {
	return quality{
		medianError: q.medianError / q.samples, p90Error: q.p90Error / q.samples, regret: q.regret / q.samples,
		nextRegret: q.nextRegret / max(q.nexts, 1), samples: 1, nexts: min(q.nexts, 1),
	}
}

// addEstimates judges the estimates of package latency, and what they are
// compared with, on generated metros and on the networks in directory. It
// writes a line for each comparison to log.
func (r results) addEstimates(directory string, log io.Writer) error {
	if err := r.addMetros(log); err != nil {
		return err
	}
	return r.addMeasured(directory, log)
}

// addMeasured is the part of addEstimates on measured networks.
func (r results) addMeasured(directory string, log io.Writer) error {
	if directory == "" {
		fmt.Fprintln(log, "LEFT OUT: estimates on measured networks (the keys …_planetlab). Set MATRICES to a directory with matrices of round trips, as NAME-1.txt.gz, NAME-2.txt.gz, …: tab-separated milliseconds, 0 for not measured.")
		return nil
	}
	networks, err := readNetworks(directory)
	if err != nil {
		return err
	}
	for _, n := range networks {
		if err := r.addSlices(n, log); err != nil {
			return err
		}
	}
	return nil
}

func (r results) addMetros(log io.Writer) error {
	for _, test := range []struct {
		suffix     string
		probes     int
		unlabelled float64
	}{
		{"", metroProbes, 0},
		{"/8_probes", 8, 0}, {"/32_probes", 32, 0}, {"/64_probes", 64, 0},
		{"/half_labelled", metroProbes, 0.5}, {"/no_labels", metroProbes, 1},
	} {
		var ours, zones, coordinates quality
		var inside, pairs float64
		seeds := metroSeeds
		if test.suffix != "" {
			seeds = 1
		}
		for seed := range uint64(seeds) {
			s := networks.Metro(metroNodes, seed).Unlabelled(test.unlabelled, seed).Sample(test.probes, seed)
			estimates, e := s.Estimates()
			ours.add(s, estimates, nil)
			in, of := withinErrorBars(s, e)
			inside, pairs = inside+in, pairs+of
			coordinates.add(s, byVivaldi(s, seed), nil)
			if test.unlabelled == 0 {
				zones.add(s, byZoneMedians(s), nil)
			}
		}
		ours, coordinates = ours.mean(), coordinates.mean()
		name := fmt.Sprintf("metro_%d%s", metroNodes, test.suffix)
		var errorTarget, regretTarget *float64
		if test.suffix == "" {
			errorTarget, regretTarget = new(metroError), new(metroRegret)
		}
		if test.unlabelled == 0 {
			zones = zones.mean()
			zones.report(log, name, zoneMedians)
			if err := r.addQuality(name, "", ours, zones, zoneMedians, errorTarget, regretTarget); err != nil {
				return err
			}
		}
		coordinates.report(log, name, "Vivaldi")
		ours.report(log, name, "netlatency")
		if err := r.addQuality(name, "/vs_vivaldi", ours, coordinates, vivaldi, nil, nil); err != nil {
			return err
		}
		if err := r.add("estimate_within_error_bar_"+name, result{
			Value: inside / pairs, Unit: "share", Baseline: 0.9, BaselineName: "nine of ten, which the error bar promises", Better: higher,
		}); err != nil {
			return err
		}
	}
	return nil
}

// network is one that was measured several times.
type network struct {
	name   string
	slices []*networks.Network
}

func (r results) addSlices(n network, log io.Writer) error {
	for _, probes := range sampleSizes {
		var ours, coordinates quality
		for at, slice := range n.slices {
			if probes != sliceProbes && at > 0 {
				break // one slice shows what the number of probes does
			}
			var next *networks.Network
			if at+1 < len(n.slices) && len(n.slices[at+1].Names) == len(slice.Names) {
				next = n.slices[at+1]
			}
			s := slice.Sample(probes, uint64(at))
			estimates, _ := s.Estimates()
			ours.add(s, estimates, next)
			coordinates.add(s, byVivaldi(s, uint64(at)), next)
		}
		ours, coordinates = ours.mean(), coordinates.mean()
		name := n.name
		var errorTarget, regretTarget *float64
		if probes == sliceProbes {
			errorTarget, regretTarget = new(withoutLabels*coordinates.medianError), new(1+withoutLabels*(coordinates.regret-1))
		} else {
			name += fmt.Sprintf("/%d_probes", probes)
		}
		coordinates.report(log, fmt.Sprintf("%s, %d probes", n.name, probes), "Vivaldi")
		ours.report(log, fmt.Sprintf("%s, %d probes", n.name, probes), "netlatency")
		if err := r.addQuality(name, "", ours, coordinates, vivaldi, errorTarget, regretTarget); err != nil {
			return err
		}
		if probes == sliceProbes && ours.nexts > 0 {
			if err := r.add(fmt.Sprintf("placement_regret_%s_next_slice", n.name), result{
				Value: ours.nextRegret, Unit: "ratio", Baseline: coordinates.nextRegret, BaselineName: vivaldi, Better: lower,
			}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r results) addQuality(name, suffix string, ours, theirs quality, baseline string, errorTarget, regretTarget *float64) error {
	if err := r.add("estimate_median_error_"+name+suffix, result{
		Value: ours.medianError, Unit: "share", Baseline: theirs.medianError, BaselineName: baseline, Target: errorTarget, Better: lower,
	}); err != nil {
		return err
	}
	if err := r.add("estimate_p90_error_"+name+suffix, result{
		Value: ours.p90Error, Unit: "share", Baseline: theirs.p90Error, BaselineName: baseline, Better: lower,
	}); err != nil {
		return err
	}
	return r.add("placement_regret_"+name+suffix, result{
		Value: ours.regret, Unit: "ratio", Baseline: theirs.regret, BaselineName: baseline, Target: regretTarget, Better: lower,
	})
}

func (q quality) report(log io.Writer, name, method string) {
	fmt.Fprintf(log, "%-26s %-22s error %.4f median, %.3f p90; regret %.4f", name, method, q.medianError, q.p90Error, q.regret)
	if q.nexts > 0 {
		fmt.Fprintf(log, ", %.4f on the next slice", q.nextRegret)
	}
	fmt.Fprintln(log)
}

// withinErrorBars counts the pairs that were not measured, and those of them
// that their estimate's error bar holds.
func withinErrorBars(s *networks.Sample, e *latency.Estimator) (inside, pairs float64) {
	for i, node := range s.Names {
		for j, peer := range s.Names {
			if i == j || s.Known(i, j) || s.RTT[i][j] == 0 {
				continue
			}
			pairs++
			if got := e.Estimate(node, peer); math.Abs(got.Latency.Seconds()-s.RTT[i][j]) <= got.Error.Seconds() {
				inside++
			}
		}
	}
	return inside, pairs
}

// byZoneMedians is what labels alone say: the median of the pairs measured
// between the two nodes' groups.
func byZoneMedians(s *networks.Sample) networks.Estimates {
	type groups struct{ node, peer latency.NodeGroup }
	between := make(map[groups][]float64)
	for _, probe := range s.Probes {
		a, b := s.Groups[s.Names[probe[0]]], s.Groups[s.Names[probe[1]]]
		rtt := s.Measured[probe[0]][probe[1]]
		between[groups{a, b}] = append(between[groups{a, b}], rtt)
		if a != b {
			between[groups{b, a}] = append(between[groups{b, a}], rtt)
		}
	}
	medians := make(map[groups]float64)
	for key, rtts := range between {
		slices.Sort(rtts)
		medians[key] = rtts[(len(rtts)-1)/2]
	}
	return func(i, j int) float64 {
		if median, ok := medians[groups{s.Groups[s.Names[i]], s.Groups[s.Names[j]]}]; ok {
			return median
		}
		return math.Inf(1)
	}
}

// byVivaldi is the coordinates of Serf, as it ships them, after every node has
// told its coordinate to those that measured it 30 times. Longer does not make
// them better.
func byVivaldi(s *networks.Sample, seed uint64) networks.Estimates {
	const rounds = 30
	clients := make([]*coordinate.Client, len(s.Names))
	for i := range clients {
		client, err := coordinate.NewClient(coordinate.DefaultConfig())
		if err != nil {
			panic(err) // its own defaults
		}
		clients[i] = client
	}
	r := rand.New(rand.NewPCG(seed, 6))
	probes := slices.Clone(s.Probes)
	for range rounds {
		r.Shuffle(len(probes), func(a, b int) { probes[a], probes[b] = probes[b], probes[a] })
		for _, probe := range probes {
			rtt := time.Duration(s.Measured[probe[0]][probe[1]] * float64(time.Second))
			// It refuses only what is above ten seconds, which no network has here.
			_, _ = clients[probe[0]].Update(s.Names[probe[1]], clients[probe[1]].GetCoordinate(), rtt)
		}
	}
	coordinates := make([]*coordinate.Coordinate, len(clients))
	for i, client := range clients {
		coordinates[i] = client.GetCoordinate()
	}
	return func(i, j int) float64 { return coordinates[i].DistanceTo(coordinates[j]).Seconds() }
}

// readNetworks reads all matrices in directory. Files NAME-1.txt, NAME-2.txt.gz
// and so on are successive slices of the network NAME.
func readNetworks(directory string) ([]network, error) {
	var files []string
	for _, pattern := range []string{"*.txt", "*.txt.gz"} {
		found, err := filepath.Glob(filepath.Join(directory, pattern))
		if err != nil {
			return nil, err
		}
		files = append(files, found...)
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no *.txt or *.txt.gz in %s, which MATRICES names", directory)
	}
	// Slice 10 follows 9.
	slices.SortFunc(files, func(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) })
	var all []network
	for _, file := range files {
		n, err := readFile(file)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		name, _, _ := strings.Cut(filepath.Base(file), ".")
		if dash := strings.LastIndex(name, "-"); dash > 0 {
			name = name[:dash]
		}
		at := slices.IndexFunc(all, func(known network) bool { return known.name == name })
		if at < 0 {
			at = len(all)
			all = append(all, network{name: name})
		}
		all[at].slices = append(all[at].slices, n)
	}
	return all, nil
}

func readFile(file string) (*networks.Network, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if !strings.HasSuffix(file, ".gz") {
		return networks.Read(f)
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	defer z.Close()
	return networks.Read(z)
}
