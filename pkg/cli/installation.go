package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	schedulerconfig "k8s.io/kubernetes/pkg/scheduler/apis/config"
	schedulerscheme "k8s.io/kubernetes/pkg/scheduler/apis/config/scheme"

	"github.com/netlatency/netlatency/apis/config"
	_ "github.com/netlatency/netlatency/apis/config/scheme" // NetLatencyArgs in configuration files
	configv1 "github.com/netlatency/netlatency/apis/config/v1"
	"github.com/netlatency/netlatency/pkg/plugins/netlatency"
)

// cluster is a cluster with netlatency in it.
type cluster struct {
	client kubernetes.Interface
	config *rest.Config
	// namespace and service are of the agents.
	namespace, service string
}

// Labels of what the chart installs.
const (
	labelName      = "app.kubernetes.io/name"
	labelComponent = "app.kubernetes.io/component"
	nameOfAll      = "netlatency"
)

func selectorOf(component string) string {
	return labelName + "=" + nameOfAll + "," + labelComponent + "=" + component
}

// connect makes a client; nothing is asked of the cluster yet.
func (o *options) connect() (*cluster, error) {
	c, err := o.config.ToRESTConfig()
	if err != nil {
		return nil, fmt.Errorf("find the cluster: %w", err)
	}
	c.UserAgent = "kubectl-netlatency"
	c.QPS, c.Burst = -1, -1 // one request an agent, and the API server has priorities of its own
	client, err := kubernetes.NewForConfig(c)
	if err != nil {
		return nil, fmt.Errorf("make a client of the cluster: %w", err)
	}
	return &cluster{client: client, config: c}, nil
}

// find connects, and looks for the agents' Service.
func (o *options) find(ctx context.Context) (*cluster, error) {
	c, err := o.connect()
	if err != nil {
		return nil, err
	}
	services, err := c.client.CoreV1().Services(o.system).List(ctx, metav1.ListOptions{LabelSelector: selectorOf("agent")})
	switch {
	case apierrors.IsForbidden(err) && o.system == "":
		// Who may not look everywhere may look where it usually is.
		c.namespace, c.service = configv1.DefaultAgentsNamespace, configv1.DefaultAgentsService
		return c, nil
	case err != nil:
		return nil, fmt.Errorf("look for netlatency: %w", reasonOf(ctx, err))
	}
	var found []string
	for _, s := range services.Items {
		c.namespace, c.service = s.Namespace, s.Name
		found = append(found, s.Namespace)
	}
	slices.Sort(found)
	where := "in the cluster"
	if o.system != "" {
		where = "in namespace " + o.system
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("there is no Service with the labels %s %s: is the chart installed?", selectorOf("agent"), where)
	case 1:
		return c, nil
	}
	return nil, fmt.Errorf("netlatency is installed in the namespaces %s: choose one with --system-namespace", strings.Join(found, ", "))
}

// reasonOf is what ended ctx if that is why err is.
func reasonOf(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	return err
}

// profile is a scheduler profile with the plugin.
type profile struct {
	*schedulerconfig.KubeSchedulerProfile
	args *config.NetLatencyArgs // of the plugin
}

// profileOf is the profile of that name, the first if it is empty.
func profileOf(profiles []profile, name string) (profile, error) {
	var have []string
	for _, p := range profiles {
		if name == "" || p.SchedulerName == name {
			return p, nil
		}
		have = append(have, p.SchedulerName)
	}
	return profile{}, fmt.Errorf("the scheduler has no profile %q with NetLatency: it has %s", name, strings.Join(have, ", "))
}

// profiles reads the configuration of the scheduler that is installed with the
// agents.
func (c *cluster) profiles(ctx context.Context) ([]profile, error) {
	maps, err := c.client.CoreV1().ConfigMaps(c.namespace).List(ctx, metav1.ListOptions{LabelSelector: selectorOf("scheduler")})
	if err != nil {
		return nil, fmt.Errorf("read the scheduler's configuration in namespace %s: %w", c.namespace, err)
	}
	for _, m := range maps.Items {
		if text, ok := m.Data["scheduler-config.yaml"]; ok {
			profiles, err := decodeProfiles([]byte(text))
			if err != nil {
				return nil, fmt.Errorf("ConfigMap %s/%s: %w", m.Namespace, m.Name, err)
			}
			return profiles, nil
		}
	}
	return nil, fmt.Errorf("there is no scheduler's configuration in namespace %s", c.namespace)
}

func decodeProfiles(text []byte) (profiles []profile, err error) {
	object, _, err := schedulerscheme.Codecs.UniversalDecoder().Decode(text, nil, nil)
	if err != nil {
		return nil, err
	}
	configuration, ok := object.(*schedulerconfig.KubeSchedulerConfiguration)
	if !ok {
		return nil, fmt.Errorf("it is a %T: want a KubeSchedulerConfiguration", object)
	}
	for i := range configuration.Profiles {
		p := &configuration.Profiles[i]
		for _, plugin := range p.PluginConfig {
			if args, ok := plugin.Args.(*config.NetLatencyArgs); ok && plugin.Name == netlatency.Name {
				profiles = append(profiles, profile{p, args})
			}
		}
	}
	if len(profiles) == 0 {
		return nil, fmt.Errorf("none of its profiles has %s", netlatency.Name)
	}
	return profiles, nil
}

// defaultArgs is what counts where no configuration can be read.
func defaultArgs() *config.NetLatencyArgs {
	versioned := &configv1.NetLatencyArgs{}
	schedulerscheme.Scheme.Default(versioned)
	args := &config.NetLatencyArgs{}
	if err := schedulerscheme.Scheme.Convert(versioned, args, nil); err != nil {
		panic(err) // of two types that are generated for each other
	}
	return args
}

// anyArgs is the arguments of the first profile, and the defaults where they
// cannot be read: what all profiles of the chart have in common.
func (c *cluster) anyArgs(ctx context.Context) *config.NetLatencyArgs {
	if c.namespace != "" {
		if profiles, err := c.profiles(ctx); err == nil {
			return profiles[0].args
		}
	}
	return defaultArgs()
}

// nodes lists the nodes.
func (c *cluster) nodes(ctx context.Context) ([]corev1.Node, error) {
	list, err := c.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list the nodes: %w", err)
	}
	return list.Items, nil
}
