package kubelet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func TestAVerdictChangesWhenItsThresholdIsReached(t *testing.T) {
	const every = 10 // seconds
	for _, test := range []struct {
		name    string
		kind    probeKind
		change  func(*v1.Probe)
		answers string // one a probe: + success, - failure, t no answer
		want    string // verdicts with the second they were told at
		asked   int
	}{
		{"readiness begins as not ready", readiness, nil, "---", "", 3},
		{"readiness needs one success", readiness, nil, "-+", "10 ready", 2},
		{"readiness may need more successes in a row", readiness, func(p *v1.Probe) { p.SuccessThreshold = 2 }, "+-++", "30 ready", 4},
		{"readiness is lost after three failures in a row", readiness, nil, "+--+---", "0 ready, 60 not", 7},
		{"readiness is told once", readiness, nil, "+++", "0 ready", 3},
		{"readiness comes back", readiness, func(p *v1.Probe) { p.FailureThreshold = 1 }, "+-+", "0 ready, 10 not, 20 ready", 3},
		{"the first probe waits for its delay", readiness, func(p *v1.Probe) { p.InitialDelaySeconds = 7 }, "+", "7 ready", 1},
		{"no answer in time is a failure", readiness, func(p *v1.Probe) { p.FailureThreshold = 1 }, "+t+", "0 ready, 11 not, 20 ready", 3},
		{"a slow failure does not move the next probe", readiness, nil, "t+", "10 ready", 2},
		{"liveness begins as alive", liveness, nil, "+-+", "", 3},
		{"liveness ends with its failure", liveness, nil, "---+", "20 not", 3},
		{"startup ends with its success", startup, nil, "-+-", "10 ready", 2},
		{"startup ends with its failure", startup, nil, "---+", "20 not", 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				spec := httpProbe("/")
				spec.PeriodSeconds = every
				if test.change != nil {
					test.change(spec)
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				asked := 0
				p := prober{kind: test.kind, spec: spec, check: func(ctx context.Context) error {
					if asked == len(test.answers) {
						cancel()
						return ctx.Err()
					}
					answer := test.answers[asked]
					asked++
					switch answer {
					case '+':
						return nil
					case 't':
						<-ctx.Done()
						return ctx.Err()
					default:
						return errors.New("refused")
					}
				}}
				var told []string
				p.run(ctx, func(v verdict) {
					word := "not"
					if v.healthy {
						word = "ready"
					}
					told = append(told, fmt.Sprintf("%.0f %s", time.Since(began).Seconds(), word))
				})
				if diff := cmp.Diff(test.want, strings.Join(told, ", ")); diff != "" || asked != test.asked {
					t.Errorf("asked %d times, want %d; verdicts (-want +got):\n%s", asked, test.asked, diff)
				}
			})
		})
	}
}

func TestAnHTTPProbeAsksAsKubernetesDoes(t *testing.T) {
	var asked *http.Request
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, "http://elsewhere.example/", http.StatusFound)
		case "/bad":
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	plain, encrypted := httptest.NewServer(handler), httptest.NewTLSServer(handler)
	defer plain.Close()
	defer encrypted.Close()
	for _, test := range []struct {
		name   string
		server *httptest.Server
		action v1.HTTPGetAction
		fails  string
	}{
		{"a port by its name", plain, v1.HTTPGetAction{Path: "/healthz?verbose", Port: intstr.FromString("http"), Scheme: v1.URISchemeHTTP}, ""},
		{"a port by its number", plain, v1.HTTPGetAction{Path: "/", Port: intstr.FromInt32(9465), Scheme: v1.URISchemeHTTP}, ""},
		{"an unverified certificate", encrypted, v1.HTTPGetAction{Path: "/", Port: intstr.FromString("http"), Scheme: v1.URISchemeHTTPS}, ""},
		{"a redirect to another host is not followed", plain, v1.HTTPGetAction{Path: "/moved", Port: intstr.FromString("http"), Scheme: v1.URISchemeHTTP}, ""},
		{"a status of failure", plain, v1.HTTPGetAction{Path: "/bad", Port: intstr.FromString("http"), Scheme: v1.URISchemeHTTP}, "HTTP probe failed with statuscode: 503"},
		{"a port that the container does not name", plain, v1.HTTPGetAction{Path: "/", Port: intstr.FromString("metrics"), Scheme: v1.URISchemeHTTP}, "metrics"},
		{"the wrong scheme", encrypted, v1.HTTPGetAction{Path: "/", Port: intstr.FromString("http"), Scheme: v1.URISchemeHTTP}, "400"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var dialled string
			dial := func(ctx context.Context, network, address string) (net.Conn, error) {
				dialled = address
				return new(net.Dialer).DialContext(ctx, network, test.server.Listener.Addr().String())
			}
			asked = nil
			err := httpCheck(&test.action, &agentPod().Spec.Containers[0], netip.MustParseAddr("10.250.0.8"), dial)(t.Context())
			if test.fails != "" {
				if err == nil || !strings.Contains(err.Error(), test.fails) {
					t.Errorf("got error %v, want one with %q", err, test.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if dialled != "10.250.0.8:9465" || asked.Host != "10.250.0.8:9465" || !strings.HasPrefix(asked.UserAgent(), "kube-probe/") {
				t.Errorf("dialled %s, asked host %s as %s", dialled, asked.Host, asked.UserAgent())
			}
		})
	}
}
