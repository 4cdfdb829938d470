package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"sync"
	"time"

	"k8s.io/klog/v2"

	"github.com/netlatency/netlatency/test/sandbox/cluster"
	"github.com/netlatency/netlatency/test/sandbox/kubelet"
	"github.com/netlatency/netlatency/test/sandbox/namespace"
	"github.com/netlatency/netlatency/test/sandbox/scenario"
	"github.com/netlatency/netlatency/test/sandbox/wan"
)

// Options of a sandbox.
type Options struct {
	Scenario *scenario.Scenario
	// BinDir is where cluster.Build put the Programs.
	BinDir string
	// Kubernetes is the version of the control plane, as in cluster.Options.
	Kubernetes string
	// HostAccess writes Kubeconfig and lets the host's programs in. A program
	// can do that once.
	HostAccess bool
	// Progress gets a line for each step; nil for none.
	Progress func(string)
}

// Programs are what cluster.Build must have built for a sandbox.
var Programs = append(append([]cluster.Binary(nil), cluster.ControlPlane...), cluster.Agent, cluster.Scheduler, cluster.CLI)

// Sandbox is a running sandbox.
type Sandbox struct {
	Scenario *scenario.Scenario
	// Nodes in the order of the scenario; a node's Index is its place.
	Nodes   []*namespace.Node
	WAN     *wan.WAN
	Cluster *cluster.Cluster
	Kubelet *kubelet.Kubelet
	// Kubeconfig is a file with which programs on the host reach the cluster,
	// where Options asked for it.
	Kubeconfig string
	// Log is the WAN's log of the truth.
	Log string

	root    string // of the repository
	dir     *runDir
	network *scenario.Network
	alive   context.Context // until Stop
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// Start starts a sandbox and returns when its nodes are Ready. It ends with
// Stop; its processes also end with ctx. On an error nothing is left running.
func Start(ctx context.Context, options Options) (_ *Sandbox, err error) {
	// build/bin is below the repository's root.
	root := filepath.Dir(filepath.Dir(options.BinDir))
	dir, err := newRunDir(filepath.Join(root, "build", "sandbox"))
	if err != nil {
		return nil, fmt.Errorf("make a directory for the sandbox: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &Sandbox{
		Scenario:   options.Scenario,
		Kubeconfig: filepath.Join(dir.path, "kubeconfig"),
		Log:        filepath.Join(dir.path, "wan.log"),
		root:       root,
		dir:        dir,
		network:    options.Scenario.Network(),
		alive:      ctx,
		cancel:     cancel,
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Stop())
		}
	}()
	if err := s.startNetwork(ctx); err != nil {
		return nil, fmt.Errorf("start the network between the nodes: %w", err)
	}
	if err := s.startCluster(ctx, options); err != nil {
		return nil, fmt.Errorf("start the cluster: %w", err)
	}
	return s, nil
}

func (s *Sandbox) startNetwork(ctx context.Context) error {
	for i, n := range s.Scenario.NodeList() {
		node, err := namespace.NewNode(n.Name, i)
		if err != nil {
			return fmt.Errorf("node %q: %w", n.Name, err)
		}
		s.Nodes = append(s.Nodes, node)
	}
	hub, err := wan.Start(ctx, wan.Options{Nodes: s.Nodes, Links: links(s.network), LogPath: s.Log, Seed: 1})
	s.WAN = hub
	return err
}

func (s *Sandbox) startCluster(ctx context.Context, options Options) error {
	nodes := s.Scenario.NodeList()
	specs := make([]cluster.NodeSpec, 0, len(nodes))
	for i, n := range nodes {
		specs = append(specs, cluster.NodeSpec{
			Name: n.Name, Labels: n.Labels, Taints: n.Taints, Allocatable: n.Capacity, ProviderID: n.ProviderID,
			InternalIP: s.Nodes[i].WAN,
		})
	}
	var err error
	s.Cluster, err = cluster.Start(ctx, cluster.Options{
		Dir: filepath.Join(s.dir.path, "cluster"), BinDir: options.BinDir, Kubernetes: options.Kubernetes, Nodes: specs, KubeRay: true, Progress: options.Progress,
	})
	if err != nil {
		return err
	}
	if options.HostAccess {
		if err := s.letHostIn(ctx); err != nil {
			return err
		}
	}
	s.Kubelet, err = kubelet.New(kubelet.Options{
		Client: s.Cluster.Client(),
		Nodes:  s.Nodes,
		Images: map[string]kubelet.Image{
			kubelet.ImagePrefix + "agent":              {Path: filepath.Join(options.BinDir, cluster.Agent.Name), Entrypoint: "/netlatency-agent"},
			kubelet.ImagePrefix + "scheduler":          {Path: filepath.Join(options.BinDir, cluster.Scheduler.Name), Entrypoint: "/netlatency-scheduler"},
			kubelet.ImagePrefix + "kubectl-netlatency": {Path: filepath.Join(options.BinDir, cluster.CLI.Name), Entrypoint: "/kubectl-netlatency"},
		},
		Dir:    s.Dir("kubelet"),
		Logger: klog.FromContext(ctx),
	})
	if err != nil {
		return err
	}
	s.running.Go(func() {
		if err := s.Kubelet.Run(ctx); err != nil {
			klog.FromContext(ctx).Error(err, "Our pods are no longer run")
		}
	})
	return nil
}

// letHostIn makes the API server reachable from the host.
func (s *Sandbox) letHostIn(ctx context.Context) error {
	host := namespace.HostListener()
	if err := s.Cluster.WriteKubeconfig(s.Kubeconfig, "https://"+host.Addr().String()); err != nil {
		return err
	}
	inside, err := url.Parse(s.Cluster.URL())
	if err != nil {
		return err
	}
	s.running.Go(func() {
		if err := namespace.Forward(ctx, host, inside.Host); err != nil {
			klog.FromContext(ctx).Error(err, "The API server can no longer be reached from the host")
		}
	})
	return nil
}

// Dir is a place for files of this run, removed by Stop.
func (s *Sandbox) Dir(name string) string { return filepath.Join(s.dir.path, name) }

// Path is a file of the repository.
func (s *Sandbox) Path(elements ...string) string {
	return filepath.Join(append([]string{s.root}, elements...)...)
}

// Node returns the node of that name, nil when there is none.
func (s *Sandbox) Node(name string) *namespace.Node {
	for _, n := range s.Nodes {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// NodeNames lists the nodes in the order of their indexes, as the WAN's log
// numbers them.
func (s *Sandbox) NodeNames() []string {
	names := make([]string, len(s.Nodes))
	for i, n := range s.Nodes {
		names[i] = n.Name
	}
	return names
}

// Apply makes the change of an event, in the network and, for a node that goes
// down or comes back, in the cluster.
func (s *Sandbox) Apply(ctx context.Context, e scenario.Event) error {
	s.network.Apply(e)
	if err := s.WAN.Set(links(s.network)); err != nil {
		return fmt.Errorf("change the network: %w", err)
	}
	for name, down := range map[string]bool{e.NodeDown: true, e.NodeUp: false} {
		if name == "" {
			continue
		}
		if err := s.Cluster.SetNodeDown(ctx, name, down); err != nil {
			return fmt.Errorf("change node %q: %w", name, err)
		}
	}
	return nil
}

// links are the WAN's links for the state of a scenario's network.
func links(network *scenario.Network) []wan.Link {
	directions := network.Directions()
	all := make([]wan.Link, 0, len(directions))
	protocols := map[string]wan.Protocols{scenario.ProtocolICMP: wan.ICMP, scenario.ProtocolTCP: wan.TCP, scenario.ProtocolUDP: wan.UDP}
	for _, d := range directions {
		delay := wan.Delay{
			Base: d.Base, Jitter: d.Jitter, Distribution: d.Distribution,
			Loss: d.Loss, Duplicate: d.Duplicate, Reorder: d.Reorder, Down: d.Down,
		}
		for _, name := range d.Blocks {
			delay.Blocked |= protocols[name]
		}
		all = append(all, wan.Link{From: d.From, To: d.To, Delay: delay})
	}
	return all
}

// Stop ends everything and removes the run's files.
func (s *Sandbox) Stop() error {
	s.cancel()
	s.running.Wait()
	if s.Cluster != nil {
		s.Cluster.Stop()
	}
	var errs []error
	if s.WAN != nil {
		select {
		case <-s.WAN.Done():
		case <-time.After(10 * time.Second):
			errs = append(errs, errors.New("the WAN's process does not end"))
		}
	}
	for _, n := range s.Nodes {
		errs = append(errs, n.Close())
	}
	return errors.Join(append(errs, s.dir.remove())...)
}
