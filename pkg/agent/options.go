package agent

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
	cliflag "k8s.io/component-base/cli/flag"

	"github.com/netlatency/netlatency/pkg/latency"
	"github.com/netlatency/netlatency/pkg/probe"
)

// Options say what an agent does. Each is a flag; Validate gives the ranges.
type Options struct {
	// NodeName is the Kubernetes name of the node the agent speaks for.
	NodeName string
	// Namespace and Service name the agents' headless Service.
	Namespace, Service string
	// TargetsService is the name of the Service that EndpointSlices give which
	// tell on which nodes targets run; empty when nobody does.
	TargetsService string
	// BindAddresses are the agent's own, one or two IP addresses of different
	// families, at which peers and readers reach it. A peer is probed in the
	// first of their families in which it has an address.
	BindAddresses []string
	// HTTPPort is a TCP port, ProbePort a UDP port.
	HTTPPort, ProbePort int
	// Interval is the time between two bursts to a peer, up to 100 peers.
	Interval time.Duration
	// Burst is the number of probes in a burst, Spacing the time between them.
	Burst   int
	Spacing time.Duration
	// Timeout is when a probe without an answer is lost.
	Timeout time.Duration
	// Window is how long a round trip counts, LossWindow how long a loss does.
	Window, LossWindow time.Duration
	// Methods are the ways to probe a peer, in the order in which they are
	// tried; each is a probe.Method.
	Methods []string
	// FullSize is the size in octets of the probe that follows every fourth
	// burst, 0 for none.
	FullSize int
	// MaxPeers and PacketsPerSecond are hard limits of what is probed.
	MaxPeers, PacketsPerSecond int
	// MaxSeries is the number of series about pairs that all agents of the
	// cluster together may show; each shows its share.
	MaxSeries int
	// SampleStream serves every finished sample at /samples.
	SampleStream bool
}

// DefaultOptions are the defaults of the flags. What a pod knows of itself
// comes from the environment variables NODE_NAME, POD_NAMESPACE and POD_IPS,
// which the chart fills from the pod's own fields, or POD_IP.
func DefaultOptions() Options {
	var addresses []string
	if pod := cmp.Or(os.Getenv("POD_IPS"), os.Getenv("POD_IP")); pod != "" {
		addresses = strings.Split(pod, ",")
	}
	return Options{
		NodeName:         os.Getenv("NODE_NAME"),
		Namespace:        os.Getenv("POD_NAMESPACE"),
		Service:          "netlatency-agent",
		TargetsService:   "netlatency-targets",
		BindAddresses:    addresses,
		HTTPPort:         9465,
		ProbePort:        9465,
		Interval:         10 * time.Second,
		Burst:            4,
		Spacing:          20 * time.Millisecond,
		Timeout:          2 * time.Second,
		Window:           5 * time.Minute,
		LossWindow:       30 * time.Minute,
		Methods:          []string{string(probe.MethodUDP), string(probe.MethodICMP), string(probe.MethodTCP)},
		FullSize:         1200,
		MaxPeers:         128,
		PacketsPerSecond: 500,
		MaxSeries:        400_000,
	}
}

// AddFlags adds the options to named sets of flags.
func (o *Options) AddFlags(sets *cliflag.NamedFlagSets) {
	fs := sets.FlagSet("identity")
	fs.StringVar(&o.NodeName, "node-name", o.NodeName, "Name of the node that this agent speaks for. Default: the environment variable NODE_NAME.")
	fs.StringVar(&o.Namespace, "namespace", o.Namespace, "Namespace of the agents. Default: the environment variable POD_NAMESPACE.")
	fs.StringVar(&o.Service, "service", o.Service, "Name of the agents' headless Service, whose EndpointSlices list the peers.")
	fs.StringVar(&o.TargetsService, "targets-service", o.TargetsService, "Service name of the EndpointSlices in which the scheduler tells on which nodes targets run: these are probed whatever --max-peers leaves out, and at the target itself where no agent is. Empty: the agent does not ask.")

	fs = sets.FlagSet("serving")
	fs.StringSliceVar(&o.BindAddresses, "bind-address", o.BindAddresses, "IP addresses that peers and readers reach this agent at: one, or one of each family, by commas. A peer is probed in the first of their families in which it has an address. Default: the environment variable POD_IPS, or POD_IP.")
	fs.IntVar(&o.HTTPPort, "http-port", o.HTTPPort, "TCP port of /metrics, /matrix, /healthz and /readyz.")
	fs.IntVar(&o.ProbePort, "probe-port", o.ProbePort, "UDP port that probes are sent from and answered at.")
	fs.BoolVar(&o.SampleStream, "sample-stream", o.SampleStream, "Serve every finished sample as a line of JSON at /samples, for tests and measurements of the agent itself.")

	fs = sets.FlagSet("probing")
	fs.DurationVar(&o.Interval, "interval", o.Interval, "Time between two bursts to a peer. Beyond 100 peers it grows with the logarithm of their number.")
	fs.IntVar(&o.Burst, "burst", o.Burst, "Number of probes in a burst.")
	fs.DurationVar(&o.Spacing, "spacing", o.Spacing, "Time between the probes of a burst.")
	fs.DurationVar(&o.Timeout, "timeout", o.Timeout, "Time after which a probe without an answer is lost.")
	fs.StringSliceVar(&o.Methods, "methods", o.Methods, "Methods of probing, in the order in which they are tried for a peer: udp (the peer's agent), icmp (its kernel), tcp (its agent's HTTP port), portable (ICMP timed by this process, where the kernel does not stamp packets).")
	fs.IntVar(&o.FullSize, "full-size", o.FullSize, "Size in octets of a probe that follows every fourth burst, by which a path that loses large packets is found. 0 sends none.")
	fs.IntVar(&o.MaxPeers, "max-peers", o.MaxPeers, "Most peers that are probed. Of more, the nodes of targets are and a fixed sample by node name, half of it in the node's own zone.")
	fs.IntVar(&o.PacketsPerSecond, "packets-per-second", o.PacketsPerSecond, "Most probes sent a second, over all peers. More are delayed.")

	fs = sets.FlagSet("metrics")
	fs.IntVar(&o.MaxSeries, "max-series", o.MaxSeries, "Most series about pairs, two a pair, that all agents together show at /metrics. Each shows its share: in a cluster of 5000 nodes, 40 of its peers. /matrix has all.")

	fs = sets.FlagSet("statistics")
	fs.DurationVar(&o.Window, "window", o.Window, "Time over which round trips make up a pair's statistics.")
	fs.DurationVar(&o.LossWindow, "loss-window", o.LossWindow, "Time over which lost probes count.")
}

const (
	// minInterval keeps a typing error from turning probes into load; tests
	// and demos need rounds of a second or less.
	minInterval = 100 * time.Millisecond
	// leastFullSize tells probes of full size from small ones.
	leastFullSize = 2 * probe.MinSize
	// maxBurst is the largest burst whose probes are still one moment.
	maxBurst = 64
	// maxWindowProbes and maxWindowBursts bound what a pair may remember, 16
	// bytes a probe and 32 a burst. The default windows fit at any interval.
	maxWindowProbes, maxWindowBursts = 20_000, 20_000
	// maxPacketsPerSecond is well within what one socket and one core do.
	maxPacketsPerSecond = 10_000
	// maxMaxSeries is no limit, two a pair of the largest cluster.
	maxMaxSeries = 2 * maxMaxPeers * maxMaxPeers
	// maxMaxPeers is the size of the largest cluster that Kubernetes supports.
	maxMaxPeers = 5_000
)

// Validate returns all that is wrong with o, one error a line, each naming
// its flag and what would be right.
func (o Options) Validate() error {
	var faults []error
	want := func(ok bool, flag string, value any, right string) {
		if !ok {
			faults = append(faults, fmt.Errorf("--%s is %v: want %s", flag, value, right))
		}
	}
	duration := func(flag string, value, least, most time.Duration) bool {
		ok := value >= least && value <= most
		want(ok, flag, value, fmt.Sprintf("%v to %v", least, most))
		return ok
	}
	number := func(flag string, value, least, most int) bool {
		ok := value >= least && value <= most
		want(ok, flag, value, fmt.Sprintf("%d to %d", least, most))
		return ok
	}
	name := func(flag, value, from string, check func(string) []string) {
		if value == "" {
			faults = append(faults, fmt.Errorf("--%s is empty: give it%s", flag, from))
			return
		}
		if problems := check(value); len(problems) > 0 {
			want(false, flag, fmt.Sprintf("%q", value), "a Kubernetes name: "+strings.Join(problems, "; "))
		}
	}

	name("node-name", o.NodeName, " or set NODE_NAME to the pod's spec.nodeName", validation.IsDNS1123Subdomain)
	name("namespace", o.Namespace, " or set POD_NAMESPACE to the pod's metadata.namespace", validation.IsDNS1123Label)
	name("service", o.Service, "", validation.IsDNS1123Label)
	if o.TargetsService != "" {
		name("targets-service", o.TargetsService, "", validation.IsDNS1123Label)
		want(o.TargetsService != o.Service, "targets-service", fmt.Sprintf("%q", o.TargetsService), "another name than --service, or targets would be taken for agents")
	}
	if len(o.BindAddresses) == 0 {
		faults = append(faults, errors.New("--bind-address is empty: give it or set POD_IPS to the pod's status.podIPs"))
	} else if _, err := o.addresses(); err != nil {
		faults = append(faults, err)
	}
	number("http-port", o.HTTPPort, 1, 65535)
	number("probe-port", o.ProbePort, 1, 65535)

	intervalOK := duration("interval", o.Interval, minInterval, time.Hour)
	burstOK := number("burst", o.Burst, 1, maxBurst)
	spacingOK := duration("spacing", o.Spacing, time.Millisecond, time.Second)
	if intervalOK && burstOK && spacingOK {
		length := time.Duration(o.Burst-1) * o.Spacing
		want(length <= o.Interval/2, "spacing", o.Spacing,
			fmt.Sprintf("at most %v, so that a burst of %d ends within half of --interval %v", o.Interval/2/time.Duration(max(1, o.Burst-1)), o.Burst, o.Interval))
	}
	duration("timeout", o.Timeout, 10*time.Millisecond, latency.MaxRTT)
	known := []string{string(probe.MethodUDP), string(probe.MethodICMP), string(probe.MethodTCP), string(probe.MethodPortable)}
	wantMethods := fmt.Sprintf("one or more of %s, each once", strings.Join(known, ", "))
	want(len(o.Methods) > 0, "methods", "empty", wantMethods)
	for i, m := range o.Methods {
		want(slices.Contains(known, m) && !slices.Contains(o.Methods[:i], m), "methods", fmt.Sprintf("%q", strings.Join(o.Methods, ",")), wantMethods)
	}
	want(o.FullSize == 0 || o.FullSize >= leastFullSize && o.FullSize <= probe.MaxSize, "full-size", o.FullSize,
		fmt.Sprintf("0, or %d to %d", leastFullSize, probe.MaxSize))
	number("max-series", o.MaxSeries, 1, maxMaxSeries)
	number("max-peers", o.MaxPeers, 1, maxMaxPeers)
	number("packets-per-second", o.PacketsPerSecond, 1, maxPacketsPerSecond)

	least, longest, longestLoss := minInterval, 24*time.Hour, 24*time.Hour
	if intervalOK && burstOK {
		// Three rounds are what it takes to see that a path has changed.
		least, longest, longestLoss = pathRounds*o.Interval, time.Duration(maxWindowProbes/o.Burst)*o.Interval, maxWindowBursts*o.Interval
	}
	if duration("window", o.Window, least, longest) {
		least = o.Window
	}
	duration("loss-window", o.LossWindow, least, longestLoss)
	return errors.Join(faults...)
}

// addresses are the BindAddresses, in their order.
func (o Options) addresses() (addresses, error) {
	var own addresses
	for _, text := range o.BindAddresses {
		address, err := netip.ParseAddr(text)
		address = address.Unmap()
		if err != nil || slices.ContainsFunc(own, func(a netip.Addr) bool { return a.Is4() == address.Is4() }) {
			return nil, fmt.Errorf("--bind-address is %q: want an IP address, or one of each family, for instance 10.0.0.7,fd00::7", strings.Join(o.BindAddresses, ","))
		}
		own = append(own, address)
	}
	return own, nil
}
