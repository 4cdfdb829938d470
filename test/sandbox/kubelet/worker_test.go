package kubelet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/utils/ptr"

	"github.com/netlatency/netlatency/test/sandbox/kubelet/container"
)

// These tests run whole Kubelets with the fake API server, fake containers and
// synctest's fake clock.

// fakeNode stands for a node's network namespace and its containers.
type fakeNode struct {
	*testing.T
	*Kubelet
	client *fake.Clientset
	began  time.Time

	mutex    sync.Mutex
	starts   []*fakeProcess
	startErr error
	sysctls  []string
	answer   func(path string, at time.Duration) bool // of probes
	stubborn bool                                     // processes ignore SIGTERM
}

type fakeProcess struct {
	spec    container.Spec
	at      time.Duration
	stub    bool
	done    chan struct{}
	once    sync.Once
	code    int
	signals []string
	node    *fakeNode
}

func (p *fakeProcess) Pid() int              { return 42 }
func (p *fakeProcess) Done() <-chan struct{} { return p.done }
func (p *fakeProcess) Exit() (int, syscall.Signal) {
	return p.code, 0
}

func (p *fakeProcess) Signal(s syscall.Signal) error {
	select {
	case <-p.done:
		return nil
	default:
	}
	p.signals = append(p.signals, fmt.Sprintf("%s at %s", s, time.Since(p.node.began)))
	switch {
	case s == syscall.SIGKILL:
		p.exit(137)
	case !p.stub:
		p.exit(0)
	}
	return nil
}

func (p *fakeProcess) exit(code int) {
	p.once.Do(func() {
		p.code = code
		close(p.done)
	})
}

// onFakeNode runs the test with a running Kubelet in fake time.
func onFakeNode(t *testing.T, test func(n *fakeNode)) {
	dir, program := t.TempDir(), executable(t)
	synctest.Test(t, func(t *testing.T) {
		n := &fakeNode{T: t, client: apiServer(), began: time.Now(), answer: func(string, time.Duration) bool { return true }}
		n.Kubelet = &Kubelet{
			options: Options{
				Client: n.client, Dir: dir,
				Images: map[string]Image{testImage: {Path: program, Entrypoint: "/netlatency-agent"}},
			},
			nodes: map[string]*node{testNode: {
				environment: environment{client: n.client, address: address},
				dial:        n.dial,
				start:       n.start,
				sysctl: func(path, value string) error {
					n.sysctls = append(n.sysctls, path+"="+value)
					return nil
				},
			}},
			workers: map[types.UID]*worker{},
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- n.run(ctx) }()
		synctest.Wait()
		test(n)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func executable(t *testing.T) string {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return program
}

func (n *fakeNode) start(spec container.Spec, _ *os.File) (process, error) {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	if n.startErr != nil {
		return nil, n.startErr
	}
	p := &fakeProcess{spec: spec, at: time.Since(n.began), stub: n.stubborn, done: make(chan struct{}), node: n}
	n.starts = append(n.starts, p)
	return p, nil
}

// dial answers one probe over a pipe.
func (n *fakeNode) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	listener := &oneConnection{conn: make(chan net.Conn, 1), addr: server.LocalAddr()}
	listener.conn <- server
	close(listener.conn)
	go http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !n.answer(r.URL.Path, time.Since(n.began)) {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	return client, nil
}

type oneConnection struct {
	conn chan net.Conn
	addr net.Addr
}

func (l *oneConnection) Accept() (net.Conn, error) {
	if conn, open := <-l.conn; open {
		return conn, nil
	}
	return nil, net.ErrClosed
}
func (l *oneConnection) Close() error   { return nil }
func (l *oneConnection) Addr() net.Addr { return l.addr }

func (n *fakeNode) create(change ...func(*v1.Pod)) {
	n.Helper()
	pod := agentPod(change...)
	if _, err := n.client.CoreV1().Pods(pod.Namespace).Create(n.Context(), pod, metav1.CreateOptions{}); err != nil {
		n.Fatal(err)
	}
	synctest.Wait()
}

// pod is the pod's object, nil when it is gone.
func (n *fakeNode) pod() *v1.Pod {
	n.Helper()
	pod, err := n.client.CoreV1().Pods(testNamespace).Get(n.Context(), agentPod().Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		n.Fatal(err)
	}
	return pod
}

// orderDeletion marks the pod as the API server does.
func (n *fakeNode) orderDeletion(grace int64) {
	n.Helper()
	pod := n.pod()
	pod.DeletionTimestamp = ptr.To(metav1.NewTime(time.Now().Add(time.Duration(grace) * time.Second)))
	pod.DeletionGracePeriodSeconds = &grace
	if _, err := n.client.CoreV1().Pods(pod.Namespace).Update(n.Context(), pod, metav1.UpdateOptions{}); err != nil {
		n.Fatal(err)
	}
	synctest.Wait()
}

// after lets time pass.
func (n *fakeNode) after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (n *fakeNode) crash(code int) {
	n.starts[len(n.starts)-1].exit(code)
	synctest.Wait()
}

// summary is the pod's phase, readiness and container in a line.
func (n *fakeNode) summary() string {
	n.Helper()
	pod := n.pod()
	if pod == nil {
		return "gone"
	}
	c := pod.Status.ContainerStatuses[0]
	return fmt.Sprintf("%s, %s, %d restarts", pod.Status.Phase, describe(c), c.RestartCount)
}

func (n *fakeNode) expect(want string) {
	n.Helper()
	if diff := cmp.Diff(want, n.summary()); diff != "" {
		n.Errorf("after %s (-want +got):\n%s", time.Since(n.began), diff)
	}
}

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
