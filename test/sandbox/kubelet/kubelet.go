package kubelet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	"github.com/netlatency/netlatency/test/sandbox/kubelet/container"
	"github.com/netlatency/netlatency/test/sandbox/namespace"
)

// Options say for which nodes a Kubelet works and with what.
type Options struct {
	// Client may read what pods mount, ask for their tokens, and write and
	// delete pods.
	Client kubernetes.Interface
	Nodes  []*namespace.Node
	// Images are the programs of our images by repository, for instance
	// "ghcr.io/netlatency/agent".
	Images map[string]Image
	// Dir is a folder for this Kubelet alone: logs in logs/pods, and volumes
	// in pods, which is emptied when it starts.
	Dir string
	// APIServerHost and APIServerPort are where pods find the API server;
	// empty is the sandbox's, 10.251.0.1 and 6443.
	APIServerHost, APIServerPort string
	Logger                       klog.Logger
}

// Kubelet runs the pods of our images on the sandbox's nodes.
type Kubelet struct {
	options Options
	nodes   map[string]*node

	mutex   sync.Mutex
	workers map[types.UID]*worker
}

// New checks the options. The program must have gone through namespace.Enter,
// which also lets the copies of it that become containers take their role.
func New(options Options) (*Kubelet, error) {
	if options.Client == nil || options.Dir == "" {
		return nil, errors.New("kubelet: Client and Dir are needed")
	}
	for repository, image := range options.Images {
		if !filepath.IsAbs(image.Path) || !filepath.IsAbs(image.Entrypoint) {
			return nil, fmt.Errorf("kubelet: image %s: path %q and entrypoint %q must be absolute", repository, image.Path, image.Entrypoint)
		}
	}
	if options.APIServerHost == "" {
		options.APIServerHost = namespace.Control.String()
	}
	if options.APIServerPort == "" {
		options.APIServerPort = "6443"
	}
	return &Kubelet{options: options, nodes: map[string]*node{}, workers: map[types.UID]*worker{}}, nil
}

// Run runs pods until ctx ends, then kills them and returns. It returns an
// error when it cannot begin. Call it once.
func (k *Kubelet) Run(ctx context.Context) error {
	ctx = klog.NewContext(ctx, k.options.Logger)
	// Starters outlive the workers, whose containers they hold.
	starters, stopStarters := context.WithCancel(context.WithoutCancel(ctx))
	defer stopStarters()
	for _, n := range k.options.Nodes {
		starter, err := container.NewStarter(starters, n.Path())
		if err != nil {
			return fmt.Errorf("kubelet of node %q: %w", n.Name, err)
		}
		k.nodes[n.Name] = &node{
			environment: environment{
				client: k.options.Client, address: n.WAN,
				apiServer: [2]string{k.options.APIServerHost, k.options.APIServerPort},
			},
			dial: n.Dial,
			start: func(spec container.Spec, log *os.File) (process, error) {
				return starter.Start(spec, log)
			},
			sysctl: func(path, value string) error {
				return starter.Do(func() error { return os.WriteFile("/proc/sys/"+path, []byte(value), 0) })
			},
		}
	}
	return k.run(ctx)
}

// run watches pods for the nodes that are there.
func (k *Kubelet) run(ctx context.Context) error {
	if err := os.RemoveAll(k.podsDir()); err != nil {
		return fmt.Errorf("remove volumes of an earlier run: %w", err)
	}
	for folder, mode := range map[string]os.FileMode{k.podsDir(): 0o700, k.logsDir(): 0o755} {
		if err := os.MkdirAll(folder, mode); err != nil {
			return fmt.Errorf("make the kubelet's folders: %w", err)
		}
	}
	factory := informers.NewSharedInformerFactoryWithOptions(k.options.Client, 0,
		informers.WithTweakListOptions(func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermNotEqualSelector("spec.nodeName", "").String()
		}))
	var workers sync.WaitGroup
	_, err := factory.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { k.observe(ctx, o.(*v1.Pod), &workers) },
		UpdateFunc: func(_, o any) { k.observe(ctx, o.(*v1.Pod), &workers) },
		DeleteFunc: k.forget,
	})
	if err != nil {
		return fmt.Errorf("watch pods: %w", err)
	}
	factory.Start(ctx.Done())
	<-ctx.Done()
	factory.Shutdown() // no worker is added after this
	workers.Wait()
	return nil
}

func (k *Kubelet) podsDir() string { return filepath.Join(k.options.Dir, "pods") }
func (k *Kubelet) logsDir() string { return filepath.Join(k.options.Dir, "logs", "pods") }

// observe starts a worker for a new pod and tells an old one's of its
// deletion.
func (k *Kubelet) observe(ctx context.Context, pod *v1.Pod, workers *sync.WaitGroup) {
	n, mine := k.nodes[pod.Spec.NodeName]
	if !mine || !Ours(pod) {
		return
	}
	k.mutex.Lock()
	defer k.mutex.Unlock()
	w, known := k.workers[pod.UID]
	if !known && ctx.Err() == nil {
		w = k.newWorker(n, pod)
		k.workers[pod.UID] = w
		ctx := klog.NewContext(ctx, klog.FromContext(ctx).WithValues("pod", klog.KObj(pod), "node", pod.Spec.NodeName))
		workers.Go(func() { w.run(ctx) })
	}
	if w != nil && pod.DeletionTimestamp != nil {
		w.delete(time.Duration(ptr.Deref(pod.DeletionGracePeriodSeconds, 0)) * time.Second)
	}
}

func (k *Kubelet) newWorker(n *node, pod *v1.Pod) *worker {
	return &worker{
		node:     n,
		pod:      pod,
		images:   k.options.Images,
		folder:   filepath.Join(k.podsDir(), string(pod.UID)),
		log:      k.Log(pod.Namespace, pod.Name, firstContainer(pod)),
		reporter: newReporter(k.options.Client, pod, n.address),
		deleting: make(chan struct{}),
		gone:     make(chan struct{}),
	}
}

func firstContainer(pod *v1.Pod) string {
	if len(pod.Spec.Containers) == 0 {
		return ""
	}
	return pod.Spec.Containers[0].Name
}

// forget ends the worker of a pod whose object is gone.
func (k *Kubelet) forget(o any) {
	if unknown, missed := o.(cache.DeletedFinalStateUnknown); missed {
		o = unknown.Obj
	}
	pod, ok := o.(*v1.Pod)
	if !ok {
		return
	}
	k.mutex.Lock()
	defer k.mutex.Unlock()
	if w, known := k.workers[pod.UID]; known {
		w.forget()
		// Not when the worker ends: the watch may still bring updates of the
		// pod that it has removed, which must not get a second worker.
		delete(k.workers, pod.UID)
	}
}

// Log is the file with the output of a pod's container, over all its starts.
func (k *Kubelet) Log(namespace, pod, container string) string {
	return filepath.Join(k.logsDir(), strings.Join([]string{namespace, pod, container}, "_")+".log")
}

// Pid is the first process of a pod's container, as this process numbers it.
// A container that does not run at present is an error.
func (k *Kubelet) Pid(namespace, pod string) (int, error) {
	p, err := k.find(namespace, pod)
	if err != nil {
		return 0, err
	}
	return p.Pid(), nil
}

// Kill makes a pod's container crash, by SIGKILL; its restart policy applies.
func (k *Kubelet) Kill(namespace, pod string) error {
	p, err := k.find(namespace, pod)
	if err != nil {
		return err
	}
	return p.Signal(syscall.SIGKILL)
}

func (k *Kubelet) find(namespace, pod string) (process, error) {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	for _, w := range k.workers {
		if w.pod.Namespace != namespace || w.pod.Name != pod {
			continue
		}
		w.mutex.Lock()
		p := w.current
		w.mutex.Unlock()
		if p != nil {
			return p, nil
		}
	}
	return nil, fmt.Errorf("pod %s/%s has no running container here", namespace, pod)
}
