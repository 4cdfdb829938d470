package kubelet

import (
	"bufio"
	"context"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/netlatency/netlatency/test/sandbox/kubelet/container"
	"github.com/netlatency/netlatency/test/sandbox/namespace"
)

// holder is the role of a process that starts one container, tells its pid and
// waits to be killed.
const holder = "test container holder"

func init() { namespace.Role(holder, hold) }

func hold() int {
	starter, err := container.NewStarter(context.Background(), "/proc/self/ns/net")
	var p *container.Process
	if err == nil {
		p, err = startWitness(starter, os.Args[1])
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(p.Pid())
	<-p.Done()
	return 0
}

// startWitness starts the witness, confined like an agent, with its root on
// the folder.
func startWitness(starter *container.Starter, folder string) (*container.Process, error) {
	binary, err := os.Executable()
	if err != nil {
		return nil, err
	}
	pod := agentPod()
	c := &pod.Spec.Containers[0]
	c.VolumeMounts = nil
	id, err := identify(pod, c)
	if err != nil {
		return nil, err
	}
	image := Image{Path: binary, Entrypoint: "/netlatency-agent"}
	spec, err := specification(pod, c, id, image, nil, netip.MustParseAddr("10.250.0.1"))
	if err != nil {
		return nil, err
	}
	spec.Args = []string{image.Entrypoint, witness, "127.0.0.1:0", "", ""}
	spec.Root = folder
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	return starter.Start(spec, null)
}

func TestAContainerDiesWithTheProcessThatStartedIt(t *testing.T) {
	cmd := namespace.Command(holder, t.TempDir())
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said, _ := bufio.NewReader(output).ReadString('\n')
	pid, err := strconv.Atoi(strings.TrimSpace(said))
	if err != nil {
		t.Fatalf("the container did not start: %s", said)
	}
	if err := syscall.Kill(pid, 0); err != nil {
		t.Fatalf("process %d of the container: %v", pid, err)
	}

	killed := time.Now()
	cmd.Process.Kill()
	cmd.Wait()
	for syscall.Kill(pid, 0) == nil {
		if time.Since(killed) > 10*time.Second {
			t.Fatalf("process %d of the container outlives the killed process that started it", pid)
		}
		time.Sleep(time.Millisecond)
	}
	t.Logf("nothing is left %s after SIGKILL", time.Since(killed).Round(time.Millisecond))
}

// BenchmarkStartContainer measures how long it takes until a confined
// container's program is executed. A pod is expected to be set up in 40 ms.
func BenchmarkStartContainer(b *testing.B) {
	node, err := namespace.NewNode(testNode, 7)
	if err != nil {
		b.Fatal(err)
	}
	defer node.Close()
	starter, err := container.NewStarter(b.Context(), node.Path())
	if err != nil {
		b.Fatal(err)
	}
	folder := b.TempDir()
	for b.Loop() {
		p, err := startWitness(starter, folder)
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		p.Signal(syscall.SIGKILL)
		<-p.Done()
		b.StartTimer()
	}
}
