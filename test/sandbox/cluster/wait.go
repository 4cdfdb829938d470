package cluster

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"
)

// pollInterval is short against what a person notices and long against what a
// poll costs the API server of a small machine.
const pollInterval = 100 * time.Millisecond

// poll calls missing until it returns "". It gives up with ctx, saying what
// was missing last, or when the cluster ends.
func (c *Cluster) poll(ctx context.Context, what string, missing func(context.Context) string) error {
	ctx, cancel := c.whileAlive(ctx)
	defer cancel()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	last := ""
	for {
		if now := missing(ctx); now == "" {
			return nil
		} else if ctx.Err() == nil || last == "" {
			last = now // an answer cut short by ctx hides the real one
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w; %s", what, context.Cause(ctx), last)
		case <-tick.C:
		}
	}
}

// watchObjects calls missing with all objects of a list, whenever they changed,
// until it returns "". It ends early like poll. The objects must not be
// modified.
func watchObjects[T runtime.Object](ctx context.Context, c *Cluster, what string, source cache.ListerWatcher, example T, missing func([]T) string) error {
	ctx, cancel := c.whileAlive(ctx)
	defer cancel()
	changed := make(chan struct{}, 1)
	wake := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	store, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: source,
		ObjectType:    example,
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { wake() },
			UpdateFunc: func(any, any) { wake() },
			DeleteFunc: func(any) { wake() },
		},
	})
	go informer.RunWithContext(ctx)
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		return fmt.Errorf("wait for %s: %w; they could not be listed", what, context.Cause(ctx))
	}
	for {
		items := store.List()
		objects := make([]T, 0, len(items))
		for _, item := range items {
			if object, ok := item.(T); ok {
				objects = append(objects, object)
			}
		}
		last := missing(objects)
		if last == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w; %s", what, context.Cause(ctx), last)
		case <-changed:
		}
	}
}

// whileAlive derives a context that also ends, with the cluster's reason, when
// the cluster does.
func (c *Cluster) whileAlive(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(c.alive, func() { cancel(context.Cause(c.alive)) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

func (c *Cluster) podListWatch(namespace, selector string) cache.ListerWatcher {
	pods := c.client.CoreV1().Pods(namespace)
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			options.LabelSelector = selector
			return pods.List(ctx, options)
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			options.LabelSelector = selector
			return pods.Watch(ctx, options)
		},
	}
}

func listWatch(client dynamic.ResourceInterface, fieldSelector, labelSelector string) cache.ListerWatcher {
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			options.FieldSelector, options.LabelSelector = fieldSelector, labelSelector
			return client.List(ctx, options)
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			options.FieldSelector, options.LabelSelector = fieldSelector, labelSelector
			return client.Watch(ctx, options)
		},
	}
}
