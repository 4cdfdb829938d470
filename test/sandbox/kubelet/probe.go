package kubelet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/probe"
	httpprobe "k8s.io/kubernetes/pkg/probe/http"
)

type probeKind string

const (
	liveness  probeKind = "liveness"
	readiness probeKind = "readiness"
	startup   probeKind = "startup"
)

// verdict is what a probe says once its threshold is reached.
type verdict struct {
	kind    probeKind
	healthy bool
	why     error // when not healthy
}

// prober runs one probe of a running container.
type prober struct {
	kind probeKind
	// spec has the API server's defaults filled in.
	spec *v1.Probe
	// check asks the container once; nil is success.
	check func(context.Context) error
}

// run probes until ctx ends, and tells each change of the verdict. At first a
// container counts as alive and as not ready. A startup probe ends with its
// first verdict and a liveness probe with its first failure, since the
// container is then another one.
func (p prober) run(ctx context.Context, tell func(verdict)) {
	current, decided := p.kind == liveness, p.kind != startup
	run, last := int32(0), false
	wait := time.NewTimer(time.Duration(p.spec.InitialDelaySeconds) * time.Second)
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-wait.C:
		}
		began := time.Now()
		err := p.once(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			klog.FromContext(ctx).V(2).Info("Probe failed", "probe", p.kind, "reason", err)
		}
		if healthy := err == nil; healthy == last {
			run++
		} else {
			last, run = healthy, 1
		}
		threshold := p.spec.FailureThreshold
		if last {
			threshold = p.spec.SuccessThreshold
		}
		if run >= threshold && (!decided || last != current) {
			current, decided = last, true
			tell(verdict{kind: p.kind, healthy: current, why: err})
			if p.kind == startup || p.kind == liveness && !current {
				return
			}
		}
		// The period is from probe to probe, not from answer to probe.
		wait.Reset(time.Duration(p.spec.PeriodSeconds)*time.Second - time.Since(began))
	}
}

func (p prober) once(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(p.spec.TimeoutSeconds)*time.Second)
	defer cancel()
	return p.check(ctx)
}

// dialer opens a connection from a node.
type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// httpCheck asks the pod over HTTP from its node, as kubelet does: with
// Kubernetes' own request and judgement, certificates unverified.
func httpCheck(action *v1.HTTPGetAction, c *v1.Container, address netip.Addr, dial dialer) func(context.Context) error {
	client := &http.Client{
		Transport: &http.Transport{
			DialContext:        dial,
			TLSClientConfig:    &tls.Config{InsecureSkipVerify: true},
			DisableKeepAlives:  true,
			DisableCompression: true,
		},
		CheckRedirect: httpprobe.RedirectChecker(false),
	}
	return func(ctx context.Context) error {
		request, err := httpprobe.NewRequestForHTTPGetAction(action, c, address.String(), "probe")
		if err != nil {
			return fmt.Errorf("HTTP probe: %w", err)
		}
		result, message, err := httpprobe.DoHTTPProbe(request.WithContext(ctx), client)
		if err != nil {
			return fmt.Errorf("HTTP probe: %w", err)
		}
		if result != probe.Success && result != probe.Warning {
			return errors.New(message)
		}
		return nil
	}
}
