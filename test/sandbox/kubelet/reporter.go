package kubelet

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
)

// retryInterval is how long after a failure the API server, or what a pod
// needs from it, is asked again.
const retryInterval = time.Second

// reporter writes one pod's status. Its worker hands over observations and
// never waits for the API server; only the newest is written.
type reporter struct {
	client  kubernetes.Interface
	pod     *v1.Pod
	address netip.Addr
	next    chan observation // holds one, the newest
}

func newReporter(client kubernetes.Interface, pod *v1.Pod, address netip.Addr) *reporter {
	return &reporter{client: client, pod: pod, address: address, next: make(chan observation, 1)}
}

// report takes the newest observation. Only the worker calls it.
func (r *reporter) report(o observation) {
	select {
	case <-r.next:
	default:
	}
	r.next <- o
}

// run writes until next is closed and the newest observation is written, or
// until ctx ends.
func (r *reporter) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case o, open := <-r.next:
			if !open {
				return
			}
			for r.write(ctx, o) != nil && len(r.next) == 0 && pause(ctx, retryInterval) {
			}
		}
	}
}

// write writes the status once. A pod that is gone needs none.
func (r *reporter) write(ctx context.Context, o observation) error {
	pods := r.client.CoreV1().Pods(r.pod.Namespace)
	pod, err := pods.Get(ctx, r.pod.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || err == nil && pod.UID != r.pod.UID {
		return nil
	}
	if err == nil {
		pod.Status = podStatus(pod, r.address, o, time.Now())
		_, err = pods.UpdateStatus(ctx, pod, metav1.UpdateOptions{})
	}
	switch {
	case err == nil || apierrors.IsNotFound(err):
		return nil
	case apierrors.IsConflict(err):
		return r.write(ctx, o) // somebody else wrote in between
	}
	klog.FromContext(ctx).Info("Cannot write the pod's status, trying again", "reason", err)
	return fmt.Errorf("write status of pod %s/%s: %w", r.pod.Namespace, r.pod.Name, err)
}

// remove deletes the pod object for good, as a node does when the pod's
// processes are gone.
func (r *reporter) remove(ctx context.Context) {
	for {
		err := r.client.CoreV1().Pods(r.pod.Namespace).Delete(ctx, r.pod.Name, metav1.DeleteOptions{
			GracePeriodSeconds: ptr.To[int64](0),
			Preconditions:      &metav1.Preconditions{UID: &r.pod.UID},
		})
		// A conflict says that the name belongs to another pod already.
		if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return
		}
		klog.FromContext(ctx).Info("Cannot remove the deleted pod, trying again", "reason", err)
		if !pause(ctx, retryInterval) {
			return
		}
	}
}

// pause waits and reports whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
