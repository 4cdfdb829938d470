package scenario_test

import (
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/netlatency/netlatency/test/sandbox/scenario"
	"github.com/netlatency/netlatency/test/sandbox/scenarios"
)

func TestShippedScenariosDecode(t *testing.T) {
	names, err := fs.Glob(scenarios.Files, "*.yaml")
	if err != nil || len(names) == 0 {
		t.Fatalf("no scenarios found: %v", err)
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			data, err := fs.ReadFile(scenarios.Files, name)
			if err != nil {
				t.Fatal(err)
			}
			s, err := scenario.Decode(data)
			if err != nil {
				t.Fatal(err)
			}
			if s.Name+".yaml" != name {
				t.Errorf("the scenario is called %q in the file %s", s.Name, name)
			}
			if n := len(s.NodeList()); n != 12 {
				t.Errorf("%d nodes, want 12", n)
			}
		})
	}
}

func TestLabelsMissingIsMetroWithoutLabels(t *testing.T) {
	metro, bare := shipped(t, "metro.yaml"), shipped(t, "labels-missing.yaml")
	for i := range metro.Providers {
		p := &metro.Providers[i]
		p.Region, p.Zone, p.ProviderLabel, p.ProviderIDScheme, p.Labels = "", "", "", "", nil
	}
	metro.Name, metro.Description = bare.Name, bare.Description
	if diff := cmp.Diff(metro, bare); diff != "" {
		t.Errorf("labels-missing differs from metro by more than labels (-metro +labels-missing):\n%s", diff)
	}
}

// minimal is a valid scenario that tests change one thing of.
const minimal = `
name: two
providers:
- {name: a, nodes: 2, capacity: {cpu: "4", memory: 8Gi, pods: "10"}}
- {name: b, nodes: 1, capacity: {cpu: "4", memory: 8Gi, pods: "10", nvidia.com/gpu: "1"}}
links:
- {within: a, rtt: 200us}
- {between: [a, b], rtt: 2ms, asymmetry: 0.75}
applications:
  qdrant: {replicas: 2, places: [a]}
  gpu: {}
  search: [qdrant, gpu]
burst: {from: 1, to: 3, requests: {cpu: "1"}}
`

func TestFaultsNameTheFieldAndWhatWouldBeRight(t *testing.T) {
	for _, test := range []struct {
		name, old, new string
		want           []string
	}{
		{"an unknown field", "name: two", "name: two\nnodez: 3", []string{`unknown field "nodez"`}},
		{"an unknown field in a link", "asymmetry: 0.75", "asymetry: 0.75", []string{`unknown field "links[1].asymetry"`}},
		{"a duration without a unit", "rtt: 200us", "rtt: 200", []string{"links"}},
		{"a round trip of nothing", "rtt: 200us", "rtt: 0s", []string{"links[0].rtt", "more than 0"}},
		{"an end that does not exist", "[a, b]", "[a, c]", []string{"links[1].between[1]", `"c"`}},
		{"a pair without a link", "- {within: a, rtt: 200us}\n", "", []string{"links", "a-1 to a-2", "within: a"}},
		{"a loss of one", "asymmetry: 0.75", "loss: 1", []string{"links[1].loss", "partition"}},
		{"more copies than packets", "asymmetry: 0.75", "duplicate: 2", []string{"links[1].duplicate", "from 0 to 1"}},
		{"an unknown protocol", "asymmetry: 0.75", "blocks: [udp, gre]", []string{"links[1].blocks[1]", "gre", "icmp"}},
		{"an unknown distribution", "asymmetry: 0.75", "jitter: {distribution: gamma, mean: 1ms}", []string{"links[1].jitter.distribution", "exponential"}},
		{"a provider without memory", "memory: 8Gi, pods: \"10\"}}\n- {name: b", "pods: \"10\"}}\n- {name: b", []string{"providers[0].capacity[memory]"}},
		{"more replicas than nodes", "replicas: 2", "replicas: 3", []string{"applications.qdrant.replicas", "2 nodes"}},
		{"a search of something else", "[qdrant, gpu]", "[qdrant, redis]", []string{"applications.search[1]", `"redis"`}},
		{"a GPU service without GPUs", ", nvidia.com/gpu: \"1\"", "", []string{"applications.search[1]", "nvidia.com/gpu"}},
		{"workers without requests", ", requests: {cpu: \"1\"}", "", []string{"burst.requests[cpu]"}},
		{"a burst that shrinks", "to: 3", "to: 0", []string{"burst.to"}},
		{"a window of one interval", "burst:", "probe: {interval: 2s, window: 2s}\nburst:", []string{"probe.window", "three intervals"}},
		{"an event of two changes", "burst:", "events:\n- {at: 1s, nodeDown: a-1, nodeUp: a-2}\nburst:", []string{"events[0]", "exactly one"}},
		{"events out of order", "burst:", "events:\n- {at: 2s, nodeDown: a-1}\n- {at: 1s, nodeUp: a-1}\nburst:", []string{"events[1].at", "order"}},
		{"two faults at once", "rtt: 2ms, asymmetry: 0.75", "rtt: 0s, asymmetry: 2", []string{"links[1].rtt", "links[1].asymmetry"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			changed := strings.Replace(minimal, test.old, test.new, 1)
			if changed == minimal {
				t.Fatalf("the scenario has no %q to replace", test.old)
			}
			_, err := scenario.Decode([]byte(changed))
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error does not mention %q: %v", want, err)
				}
			}
		})
	}
}

func TestDirections(t *testing.T) {
	s, err := scenario.Decode([]byte(minimal))
	if err != nil {
		t.Fatal(err)
	}
	network := s.Network()
	base := func(from, to string) time.Duration {
		t.Helper()
		for _, d := range network.Directions() {
			if d.From == from && d.To == to {
				if d.Down {
					return -1
				}
				return d.Base
			}
		}
		t.Fatalf("no direction from %s to %s", from, to)
		return 0
	}
	check := func(when string, want map[[2]string]time.Duration) {
		t.Helper()
		got := make(map[[2]string]time.Duration)
		for pair := range want {
			got[pair] = base(pair[0], pair[1])
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", when, diff)
		}
	}
	check("at first, the asymmetry splits the round trip", map[[2]string]time.Duration{
		{"a-1", "a-2"}: 100 * time.Microsecond,
		{"a-1", "b-1"}: 1500 * time.Microsecond,
		{"b-1", "a-1"}: 500 * time.Microsecond,
	})
	node := scenario.Link{Between: []string{"b-1", "a-1"}}
	node.RTT.Duration = 10 * time.Millisecond
	network.Apply(scenario.Event{Link: &node})
	provider := scenario.Link{Between: []string{"a", "b"}}
	provider.RTT.Duration = 4 * time.Millisecond
	network.Apply(scenario.Event{Link: &provider})
	check("a link of nodes outlasts a later one of providers", map[[2]string]time.Duration{
		{"a-1", "b-1"}: 5 * time.Millisecond,
		{"b-1", "a-1"}: 5 * time.Millisecond,
		{"a-2", "b-1"}: 2 * time.Millisecond,
	})
	network.Apply(scenario.Event{Partition: []string{"a", "b-1"}})
	network.Apply(scenario.Event{NodeDown: "a-2"})
	check("a partition and a node that is down", map[[2]string]time.Duration{
		{"a-1", "a-2"}: -1,
		{"a-2", "b-1"}: -1,
		{"a-1", "b-1"}: 5 * time.Millisecond,
	})
	network.Apply(scenario.Event{NodeUp: "a-2"})
	check("a node that came back", map[[2]string]time.Duration{
		{"a-1", "a-2"}: 100 * time.Microsecond,
	})
}

func TestQdrantTakesItsPlacesInTurn(t *testing.T) {
	s := shipped(t, "metro.yaml")
	s.Applications.Qdrant.Places = []string{"gthost", "hetzner-2"}
	if diff := cmp.Diff([]string{"gthost-1", "hetzner-2", "gthost-2"}, s.QdrantNodes()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(minimal))
	f.Add([]byte("name: [1]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := scenario.Decode(data)
		if err != nil {
			return
		}
		// What is accepted can be used.
		nodes := len(s.NodeList())
		if got := len(s.Network().Directions()); got != nodes*(nodes-1) {
			t.Errorf("%d nodes have %d directions", nodes, got)
		}
		if len(s.QdrantNodes()) != s.Applications.Qdrant.Replicas {
			t.Errorf("%d replicas of Qdrant have places for %d", s.Applications.Qdrant.Replicas, len(s.QdrantNodes()))
		}
	})
}

func shipped(t *testing.T, name string) *scenario.Scenario {
	t.Helper()
	data, err := fs.ReadFile(scenarios.Files, name)
	if err != nil {
		t.Fatal(err)
	}
	s, err := scenario.Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
