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
	"k8s.io/klog/v2"

	"github.com/netlatency/netlatency/test/sandbox/kubelet/container"
)

// Restart delays of KEP-4603 (ReduceDefaultCrashLoopBackOffDecay): at once,
// then 1 s, doubling to a minute, and from the start again after the container
// has run for ten minutes.
const (
	firstBackoff = time.Second
	maxBackoff   = time.Minute
	backoffReset = 10 * time.Minute
)

// process is a running container; *container.Process, or a test's.
type process interface {
	Pid() int
	Signal(syscall.Signal) error
	Done() <-chan struct{}
	Exit() (code int, signal syscall.Signal)
}

// node is what a worker needs of the node its pod is on.
type node struct {
	environment // without the pod
	dial        dialer
	// start runs a container, with its output in log.
	start func(spec container.Spec, log *os.File) (process, error)
	// sysctl sets a network sysctl, by its path below /proc/sys.
	sysctl func(path, value string) error
}

// worker runs one pod. Its goroutine owns all that is not said to be shared.
type worker struct {
	node   *node
	pod    *v1.Pod
	images map[string]Image
	// folder holds the pod's volumes, log is its container's output.
	folder, log string
	reporter    *reporter

	state   observation
	volumes map[string]string // their folders by name
	renewal time.Time         // of the token that ends first, zero for none

	// Shared: closed, by the Kubelet, when the pod is to be deleted within
	// grace, and when its object is gone.
	deleting, gone       chan struct{}
	deleteOnce, goneOnce sync.Once
	grace                time.Duration // set before deleting is closed

	// Shared: the container that runs, nil for none.
	mutex   sync.Mutex
	current process
}

// fault is a reason why a container waits, as a status shows it.
type fault struct{ reason, message string }

func (f *fault) Error() string { return f.reason + ": " + f.message }

// run runs the pod until it is deleted, then removes its object, or until ctx
// ends, and leaves no process.
func (w *worker) run(ctx context.Context) {
	reported := make(chan struct{})
	go func() {
		defer close(reported)
		w.reporter.run(ctx)
	}()
	w.state.start = time.Now()
	w.live(ctx)
	close(w.reporter.next)
	<-reported
	os.RemoveAll(w.folder)
	select {
	case <-w.deleting:
		w.reporter.remove(ctx)
	default:
	}
}

// live runs the container as often as its restart policy says.
func (w *worker) live(ctx context.Context) {
	if done := w.pod.Status.Phase; done == v1.PodSucceeded || done == v1.PodFailed {
		w.idle(ctx, nil) // it ran in an earlier life of the sandbox
		return
	}
	if faults := unsupported(w.pod); len(faults) > 0 {
		w.wait("CreateContainerConfigError", "the sandbox does not support this pod: "+strings.Join(faults, "; "))
		w.idle(ctx, nil)
		return
	}
	backoff := time.Duration(0)
	for !w.over(ctx) {
		process, err := w.create(ctx)
		if err != nil {
			var f *fault
			if !errors.As(err, &f) {
				f = &fault{"CreateContainerConfigError", err.Error()}
			}
			klog.FromContext(ctx).Info("Cannot start container, trying again", "reason", err)
			w.wait(f.reason, f.message)
			if w.idle(ctx, time.After(retryInterval)) {
				return
			}
			continue
		}
		began := time.Now()
		stopped := w.supervise(ctx, process)
		w.exited(process, began)
		if stopped || !w.restarts() {
			w.state.final = true
			w.reporter.report(w.state)
			if !stopped {
				w.idle(ctx, nil)
			}
			return
		}
		if time.Since(began) >= backoffReset {
			backoff = 0
		}
		w.state.last, w.state.terminated = w.state.terminated, nil
		if backoff > 0 {
			w.wait("CrashLoopBackOff", fmt.Sprintf("back-off %s restarting failed container=%s pod=%s_%s(%s)",
				backoff, w.pod.Spec.Containers[0].Name, w.pod.Name, w.pod.Namespace, w.pod.UID))
			if w.idle(ctx, time.After(backoff)) {
				return
			}
		}
		w.state.restarts++
		backoff = min(max(2*backoff, firstBackoff), maxBackoff)
	}
}

// restarts reports whether the container is to be started again.
func (w *worker) restarts() bool {
	switch w.pod.Spec.RestartPolicy {
	case v1.RestartPolicyNever:
		return false
	case v1.RestartPolicyOnFailure:
		return w.state.terminated.ExitCode != 0
	default:
		return true
	}
}

// wait reports a container that is not started, and why.
func (w *worker) wait(reason, message string) {
	w.state.waiting = &v1.ContainerStateWaiting{Reason: reason, Message: message}
	w.reporter.report(w.state)
}

// idle does nothing until the time comes (nil: never) or the pod is over,
// which it reports.
func (w *worker) idle(ctx context.Context, until <-chan time.Time) (over bool) {
	select {
	case <-until:
		return false
	case <-w.deleting:
	case <-w.gone:
	case <-ctx.Done():
	}
	return true
}

// over reports whether there is nothing more to run the container for.
func (w *worker) over(ctx context.Context) bool {
	select {
	case <-w.deleting:
		return true
	case <-w.gone:
		return true
	default:
		return ctx.Err() != nil
	}
}

// create starts the container.
func (w *worker) create(ctx context.Context) (process, error) {
	c := &w.pod.Spec.Containers[0]
	image, known := w.images[repository(c.Image)]
	if !known {
		return nil, &fault{"ErrImagePull", fmt.Sprintf("the sandbox has no program for image %q", c.Image)}
	}
	if _, err := os.Stat(image.Path); err != nil {
		return nil, &fault{"ErrImagePull", fmt.Sprintf("the program of image %q is not built: %v", c.Image, err)}
	}
	id, err := identify(w.pod, c)
	if err != nil {
		return nil, err
	}
	env := w.environment()
	list, byName, err := env.variables(ctx, c)
	if err != nil {
		return nil, err
	}
	if err := w.writeVolumes(ctx, id); err != nil {
		return nil, &fault{"ContainerCreating", err.Error()} // as for a volume that cannot be mounted yet
	}
	spec, err := specification(w.pod, c, id, image, w.volumes, w.node.address)
	if err != nil {
		return nil, err
	}
	spec.Args, spec.Env = command(c, image.Entrypoint, byName), list
	spec.Root = filepath.Join(w.folder, "root")
	if err := os.MkdirAll(spec.Root, 0o755); err != nil {
		return nil, err
	}
	if err := w.setSysctls(id); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(w.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	process, err := w.node.start(spec, log)
	if err != nil {
		return nil, &fault{"RunContainerError", err.Error()}
	}
	return process, nil
}

func (w *worker) environment() environment {
	env := w.node.environment
	env.pod = w.pod
	return env
}

func (w *worker) setSysctls(id identity) error {
	if w.pod.Spec.SecurityContext == nil {
		return nil
	}
	for _, sysctl := range w.pod.Spec.SecurityContext.Sysctls {
		value, err := container.PingGroupRange(sysctl.Value, id.uid, id.gid)
		if err != nil {
			return fmt.Errorf("sysctl %s: %w", sysctl.Name, err)
		}
		path := strings.ReplaceAll(sysctl.Name, ".", "/")
		if err := w.node.sysctl(path, value); err != nil {
			return fmt.Errorf("sysctl %s=%q: %w", sysctl.Name, value, err)
		}
	}
	return nil
}

// writeVolumes writes all volumes, or renews them.
func (w *worker) writeVolumes(ctx context.Context, id identity) error {
	uid, _, err := container.HostIDs(id.uid, id.gid)
	if err != nil {
		return err
	}
	writer := volumeWriter{environment: w.environment(), uid: uid, fsGroup: id.fsGroup}
	if writer.fsGroup >= 0 {
		if _, writer.fsGroup, err = container.HostIDs(id.uid, id.fsGroup); err != nil {
			return err
		}
	}
	w.volumes, w.renewal = map[string]string{}, time.Time{}
	for i := range w.pod.Spec.Volumes {
		volume := &w.pod.Spec.Volumes[i]
		folder := filepath.Join(w.folder, "volumes", volume.Name)
		renew, err := writer.write(ctx, volume, folder)
		if err != nil {
			return err
		}
		w.volumes[volume.Name] = folder
		if w.renewal.IsZero() || !renew.IsZero() && renew.Before(w.renewal) {
			w.renewal = renew
		}
	}
	return nil
}

func (w *worker) setCurrent(p process) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.current = p
}

// delete orders the pod's graceful end.
func (w *worker) delete(grace time.Duration) {
	w.deleteOnce.Do(func() {
		w.grace = grace
		close(w.deleting)
	})
}

// forget says that the pod's object is gone: nothing is waited for.
func (w *worker) forget() {
	w.goneOnce.Do(func() { close(w.gone) })
}
