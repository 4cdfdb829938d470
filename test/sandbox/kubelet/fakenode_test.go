package kubelet

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/netlatency/netlatency/test/sandbox/kubelet/container"
)

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
	spec     container.Spec
	at       time.Duration
	stubborn bool
	done     chan struct{}
	once     sync.Once
	code     int
	signals  []string
	node     *fakeNode
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
	case !p.stubborn:
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
	t.Helper()
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
	t.Helper()
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
	p := &fakeProcess{spec: spec, at: time.Since(n.began), stubborn: n.stubborn, done: make(chan struct{}), node: n}
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
	pod.DeletionTimestamp = new(metav1.NewTime(time.Now().Add(time.Duration(grace) * time.Second)))
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
