package scenario

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Scenario is the root of a scenario file.
type Scenario struct {
	// Name of the scenario, a DNS label. It appears in reports.
	Name string `json:"name"`
	// Description is a sentence or two for whoever reads the file or the report.
	Description string `json:"description,omitempty"`
	// Providers are the groups of nodes; together they have 2 to 64 nodes.
	Providers []Provider `json:"providers"`
	// Links say what the network between nodes is like. Every pair of nodes must be covered; where several links cover a pair the one that names more nodes (rather than providers) wins, and among equals the last.
	Links []Link `json:"links"`
	// Events change the network, in order of their time. Without events there is no drift phase.
	Events []Event `json:"events,omitempty"`
	// Applications are what the workers talk to, and how.
	Applications Applications `json:"applications"`
	// Burst is how the workers scale up.
	Burst Burst `json:"burst"`
	// Probe is how the agents measure.
	Probe Probe `json:"probe,omitempty"` //nolint:modernize // makes it optional in the schema
}

// Provider is a group of like nodes. Its nodes are called <name>-1, <name>-2 and so on.
type Provider struct {
	// Name of the provider, a DNS label.
	Name string `json:"name"`
	// Region becomes the label topology.kubernetes.io/region of the nodes; empty leaves it out.
	Region string `json:"region,omitempty"`
	// Zone becomes the label topology.kubernetes.io/zone of the nodes; empty leaves it out.
	Zone string `json:"zone,omitempty"`
	// Nodes is how many there are.
	Nodes int `json:"nodes"`
	// Labels are further labels of the nodes.
	Labels map[string]string `json:"labels,omitempty"`
	// Taints of the nodes.
	Taints []corev1.Taint `json:"taints,omitempty"`
	// Capacity is what each node has to allocate, as in a Node's status: cpu, memory, pods, nvidia.com/gpu and so on.
	Capacity corev1.ResourceList `json:"capacity"`
	// ProviderLabel is the key of a node label that holds the provider's name, for instance claudie.io/provider; empty leaves it out.
	ProviderLabel string `json:"providerLabel,omitempty"`
	// ProviderIDScheme is the scheme of the nodes' spec.providerID, for instance hcloud; empty leaves the field empty.
	ProviderIDScheme string `json:"providerIDScheme,omitempty"`
}

// Link is what the network is like between the nodes of two ends, or among the nodes of one provider.
type Link struct {
	// Between names two ends, each a provider or a node. Exactly one of between and within is given.
	Between []string `json:"between,omitempty"`
	// Within names a provider: the link is among its nodes.
	Within string `json:"within,omitempty"`
	// Path is the link's behaviour.
	Path `json:",inline"`
}

// Path is how packets fare between two ends.
type Path struct {
	// RTT is the round-trip time without jitter.
	RTT metav1.Duration `json:"rtt"`
	// Jitter is added to the round-trip time, half of it in each direction; packets of one direction keep their order.
	Jitter *Jitter `json:"jitter,omitempty"`
	// Loss is the probability, from 0 to less than 1, that a packet is lost, for each direction on its own.
	Loss float64 `json:"loss,omitempty"`
	// Duplicate is the probability, from 0 to 1, that a packet arrives twice, for each direction on its own.
	Duplicate float64 `json:"duplicate,omitempty"`
	// Reorder lets packets of one direction overtake each other, by their jitter.
	Reorder bool `json:"reorder,omitempty"`
	// Blocks names protocols of which no packet passes: udp, icmp, tcp.
	Blocks []string `json:"blocks,omitempty"`
	// Asymmetry is the share of the round-trip time that the direction from the first end to the second takes, from 0 to 1; 0.5 when absent. It has no effect within a provider.
	Asymmetry *float64 `json:"asymmetry,omitempty"`
}

// Jitter is a random delay, drawn for every packet.
type Jitter struct {
	// Distribution is one of exponential, normal (its absolute value), pareto (shape 3) and uniform.
	Distribution string `json:"distribution"`
	// Mean of what is added to the round-trip time.
	Mean metav1.Duration `json:"mean"`
}

// Event changes the network at a time. Exactly one change is given.
type Event struct {
	// At is the time since the drift phase began.
	At metav1.Duration `json:"at"`
	// Link replaces what holds between its ends from now on.
	Link *Link `json:"link,omitempty"`
	// Partition names two ends, each a provider or a node, between which no packet passes from now on; an event with a link for the same ends heals it.
	Partition []string `json:"partition,omitempty"`
	// NodeDown names a node that leaves the network.
	NodeDown string `json:"nodeDown,omitempty"`
	// NodeUp names a node that comes back.
	NodeUp string `json:"nodeUp,omitempty"`
}

// Applications are what the workers talk to.
type Applications struct {
	// Qdrant is the vector database: pods labelled app.kubernetes.io/name=qdrant.
	Qdrant Qdrant `json:"qdrant"`
	// GPU is the inference service, on every node that has nvidia.com/gpu to allocate.
	GPU GPU `json:"gpu"`
	// Search is one search request of a worker: its sequential round trips, each to qdrant or gpu. The share of each is its weight as a target.
	Search []string `json:"search"`
}

// Qdrant is the stand-in of the vector database.
type Qdrant struct {
	// Replicas is the number of pods, at most one a node.
	Replicas int `json:"replicas"`
	// Places names the providers or nodes where they run.
	Places []string `json:"places"`
}

// GPU is the stand-in of the inference service.
type GPU struct {
	// Port where it listens on its nodes, 8000 when absent.
	Port int `json:"port,omitempty"`
}

// Names of the applications, as search names them.
const (
	ApplicationQdrant = "qdrant"
	ApplicationGPU    = "gpu"
)

// Burst is how the Ray workers scale.
type Burst struct {
	// From is the number of workers before the burst.
	From int `json:"from"`
	// To is the number of workers after it.
	To int `json:"to"`
	// Requests are the resources each worker requests.
	Requests corev1.ResourceList `json:"requests"`
}

// Probe is how the agents measure.
type Probe struct {
	// Interval between bursts to a peer, 2s when absent.
	Interval metav1.Duration `json:"interval,omitempty"` //nolint:modernize // makes it optional in the schema
	// Window over which the statistics are kept, 20s when absent.
	Window metav1.Duration `json:"window,omitempty"` //nolint:modernize // makes it optional in the schema
}

// Defaults of what a scenario may leave out. A demo wants its answer within
// minutes, so it probes five times as often as a cluster would.
const (
	DefaultProbeInterval = 2 * time.Second
	DefaultProbeWindow   = 20 * time.Second
	DefaultGPUPort       = 8000
)
