package kubelet

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"
)

// These tests run whole Kubelets with the fake API server, fake containers and
// synctest's fake clock.

func TestAPodWithoutProbesIsReadyWhenItRuns(t *testing.T) {
	onFakeNode(t, func(n *fakeNode) {
		n.create()
		n.expect("Running, running, started, ready, 0 restarts")
		if diff := cmp.Diff([]string{"net/ipv4/ping_group_range=65532 65532"}, rootsValue(n.sysctls)); diff != "" {
			t.Errorf("sysctls (-want +got):\n%s", diff)
		}
	})
}

// rootsValue undoes what an ordinary user's sandbox makes of the value, which
// TestPingGroupsAreThoseOfTheUserNamespace is about.
func rootsValue(sysctls []string) []string {
	for i := range sysctls {
		sysctls[i] = strings.ReplaceAll(sysctls[i], "=0 0", "=65532 65532")
	}
	return sysctls
}

func TestACrashingContainerIsStartedAgainAfterGrowingDelays(t *testing.T) {
	onFakeNode(t, func(n *fakeNode) {
		n.create()
		for range 9 {
			n.crash(2)
			n.after(maxBackoff)
		}
		var delays []time.Duration
		for i, p := range n.starts[1:] {
			// Each crash but the first came a minute after the one before.
			delays = append(delays, p.at-time.Duration(i)*maxBackoff)
		}
		s := time.Second
		want := []time.Duration{0, s, 2 * s, 4 * s, 8 * s, 16 * s, 32 * s, 60 * s, 60 * s}
		if diff := cmp.Diff(want, delays); diff != "" {
			t.Errorf("delays (-want +got):\n%s", diff)
		}
		n.crash(2)
		n.expect("Running, waiting: CrashLoopBackOff, last exit code 2, 9 restarts")
	})
}

func TestAContainerThatRanForLongIsStartedAgainAtOnce(t *testing.T) {
	onFakeNode(t, func(n *fakeNode) {
		n.create()
		n.crash(2)
		n.crash(2)
		n.expect("Running, waiting: CrashLoopBackOff, last exit code 2, 1 restarts")
		n.after(backoffReset + time.Minute)
		n.crash(0)
		n.expect("Running, running, started, ready, last exit code 0, 3 restarts")
	})
}

func TestTheRestartPolicyDecides(t *testing.T) {
	for _, test := range []struct {
		policy v1.RestartPolicy
		code   int
		want   string
	}{
		{v1.RestartPolicyAlways, 0, "Running, running, started, ready, last exit code 0, 1 restarts"},
		{v1.RestartPolicyOnFailure, 0, "Succeeded, terminated: exit code 0, 0 restarts"},
		{v1.RestartPolicyOnFailure, 1, "Running, running, started, ready, last exit code 1, 1 restarts"},
		{v1.RestartPolicyNever, 1, "Failed, terminated: exit code 1, 0 restarts"},
	} {
		t.Run(fmt.Sprint(test.policy, " and exit code ", test.code), func(t *testing.T) {
			onFakeNode(t, func(n *fakeNode) {
				n.create(func(p *v1.Pod) { p.Spec.RestartPolicy = test.policy })
				n.crash(test.code)
				n.expect(test.want)
			})
		})
	}
}

func TestProbesDecideReadinessAndRestarts(t *testing.T) {
	withProbes := func(p *v1.Pod) {
		c := &p.Spec.Containers[0]
		c.StartupProbe, c.ReadinessProbe, c.LivenessProbe = httpProbe("/startup"), httpProbe("/ready"), httpProbe("/live")
	}
	onFakeNode(t, func(n *fakeNode) {
		from := func(at time.Duration) func() bool { return func() bool { return time.Since(n.began) >= at } }
		started, ready, dead := from(15*time.Second), from(45*time.Second), from(75*time.Second)
		n.answer = func(path string, _ time.Duration) bool {
			switch path {
			case "/startup":
				return started()
			case "/ready":
				return ready()
			default:
				return !dead()
			}
		}
		n.create(withProbes)
		n.after(time.Second)
		n.expect("Running, running, 0 restarts")
		n.after(20 * time.Second)
		n.expect("Running, running, started, 0 restarts")
		n.after(30 * time.Second)
		n.expect("Running, running, started, ready, 0 restarts")
		n.after(50 * time.Second)
		n.expect("Running, running, started, ready, last exit code 0, 1 restarts")
		// Startup succeeds at 20 s; liveness fails at 80, 90 and 100 s.
		if diff := cmp.Diff([]string{"terminated at 1m40s"}, n.starts[0].signals); diff != "" {
			t.Errorf("signals (-want +got):\n%s", diff)
		}
	})
}

func TestADeletedPodHasItsGraceAndThenIsRemoved(t *testing.T) {
	for _, test := range []struct {
		name     string
		stubborn bool
		change   func(*v1.Pod)
		signals  []string
		present  string // 1 s after the order
		gone     time.Duration
	}{
		{"one that ends when told", false, func(*v1.Pod) {}, []string{"terminated at 0s"}, "gone", 0},
		{"one that does not", true, func(*v1.Pod) {}, []string{"terminated at 0s", "killed at 30s"}, "Running, running, started, ready, 0 restarts", 30 * time.Second},
		{"one that sleeps first", true, func(p *v1.Pod) {
			p.Spec.Containers[0].Lifecycle = &v1.Lifecycle{PreStop: &v1.LifecycleHandler{Sleep: &v1.SleepAction{Seconds: 5}}}
		}, []string{"terminated at 5s", "killed at 30s"}, "Running, running, started, ready, 0 restarts", 30 * time.Second},
		{"one whose container never started", false, func(p *v1.Pod) { p.Spec.Containers[0].Image = ImagePrefix + "absent" }, nil, "gone", 0},
		{"one that is not supported", false, func(p *v1.Pod) { p.Spec.HostPID = true }, nil, "gone", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			onFakeNode(t, func(n *fakeNode) {
				n.stubborn = test.stubborn
				n.create(test.change)
				n.orderDeletion(30)
				n.after(time.Second)
				n.expect(test.present)
				n.after(test.gone)
				n.expect("gone")
				var signals []string
				for _, p := range n.starts {
					signals = append(signals, p.signals...)
				}
				if diff := cmp.Diff(test.signals, signals); diff != "" {
					t.Errorf("signals (-want +got):\n%s", diff)
				}
				n.after(time.Hour)
				if len(n.starts) > 1 {
					t.Error("the deleted pod was started again")
				}
			})
		})
	}
}

func TestAPodWhoseObjectIsGoneIsKilledAtOnce(t *testing.T) {
	for _, test := range []struct {
		name    string
		ordered bool // deletion was ordered a second before
		signals []string
	}{
		{"without warning", false, []string{"killed at 1s"}},
		{"while it has its grace", true, []string{"terminated at 0s", "killed at 1s"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			onFakeNode(t, func(n *fakeNode) {
				n.stubborn = true
				n.create()
				if test.ordered {
					n.orderDeletion(30)
				}
				n.after(time.Second)
				if err := n.client.CoreV1().Pods(testNamespace).Delete(t.Context(), agentPod().Name, metav1.DeleteOptions{}); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if diff := cmp.Diff(test.signals, n.starts[0].signals); diff != "" {
					t.Errorf("signals (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestWhatAPodNeedsMayComeLater(t *testing.T) {
	onFakeNode(t, func(n *fakeNode) {
		n.startErr = errors.New("no such file")
		n.create()
		n.expect("Pending, waiting: RunContainerError, 0 restarts")
		n.startErr = nil
		n.after(retryInterval)
		n.expect("Running, running, started, ready, 0 restarts")
	})
}

func TestTokensAreRenewedWhileTheContainerRuns(t *testing.T) {
	onFakeNode(t, func(n *fakeNode) {
		asked := func() (count int) {
			for _, action := range n.client.Actions() {
				if action.Matches("create", "serviceaccounts/token") {
					count++
				}
			}
			return count
		}
		n.create()
		if asked() != 1 {
			t.Fatalf("%d tokens were asked for at the start, want 1", asked())
		}
		const life = 3607 * time.Second
		n.after(life*8/10 - 2*time.Second)
		if asked() != 1 {
			t.Errorf("the token was renewed before 80 %% of its life")
		}
		n.after(2 * time.Second)
		if asked() != 2 {
			t.Errorf("%d tokens after 80 %% of the first one's life, want 2", asked())
		}
		n.after(life)
		if asked() != 3 {
			t.Errorf("%d tokens after 80 %% of the second one's life, want 3", asked())
		}
	})
}

func TestAStatusIsWrittenWhenTheAPIServerIsBack(t *testing.T) {
	onFakeNode(t, func(n *fakeNode) {
		var away bool
		n.client.PrependReactor("update", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
			return away, nil, errors.New("connection refused")
		})
		n.create()
		away = true
		n.crash(2)
		n.after(10 * time.Second)
		n.expect("Running, running, started, ready, 0 restarts")
		away = false
		n.after(retryInterval)
		n.expect("Running, running, started, ready, last exit code 2, 1 restarts")
	})
}

func TestPodsOfOthersAreLeftAlone(t *testing.T) {
	for name, change := range map[string]func(*v1.Pod){
		"another's image":                     func(p *v1.Pod) { p.Spec.Containers[0].Image = "rayproject/ray" },
		"a node that is not ours":             func(p *v1.Pod) { p.Spec.NodeName = "elsewhere" },
		"no node yet":                         func(p *v1.Pod) { p.Spec.NodeName = "" },
		"a pod that ended in an earlier life": func(p *v1.Pod) { p.Status.Phase = v1.PodSucceeded },
	} {
		t.Run(name, func(t *testing.T) {
			onFakeNode(t, func(n *fakeNode) {
				n.create(change)
				if len(n.starts) > 0 || len(n.pod().Status.ContainerStatuses) > 0 {
					t.Error("the pod was touched")
				}
			})
		})
	}
}

func TestTestsReachAPodByItsName(t *testing.T) {
	onFakeNode(t, func(n *fakeNode) {
		name := agentPod().Name
		if _, err := n.Pid(testNamespace, name); err == nil {
			t.Error("a pod that is not there has a process")
		}
		n.create()
		if pid, err := n.Pid(testNamespace, name); pid != 42 || err != nil {
			t.Errorf("got process %d, %v", pid, err)
		}
		if err := n.Kill(testNamespace, name); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		n.expect("Running, running, started, ready, last exit code 137, 1 restarts")
	})
}
