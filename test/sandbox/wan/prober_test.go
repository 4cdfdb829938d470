package wan

import (
	"encoding/binary"
	"fmt"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/netlatency/netlatency/test/sandbox/namespace"
)

// prober exchanges datagrams between nodes and keeps the kernel's four stamps of
// each exchange. It is the yardstick for the WAN's log, so it shares no code
// with the probe engine that the log is there to judge.
type prober struct {
	nodes     []*namespace.Node
	asking    []int // sockets, by node
	answering []int
	closing   sync.Once
	mu        sync.Mutex
	exchanges map[exchange]*[4]int64 // t1 sent, t2 arrived, t3 sent back, t4 came back; Unix nanoseconds
}

// exchange is the session and sequence number of a packet's identity; the
// session is the asking node's index.
type exchange struct {
	session uint64
	seq     uint32
}

const probePort = 9465

func newProber(nodes []*namespace.Node) (*prober, error) {
	p := &prober{nodes: nodes, exchanges: map[exchange]*[4]int64{}}
	for _, n := range nodes {
		for _, role := range []struct {
			sockets *[]int
			port    int
		}{{&p.asking, 0}, {&p.answering, probePort}} {
			var fd int
			err := n.Do(func() (err error) {
				fd, err = stampedSocket(n.WAN.As4(), role.port)
				return err
			})
			if err != nil {
				return nil, err
			}
			*role.sockets = append(*role.sockets, fd)
		}
	}
	if len(nodes) > 0 {
		if err := awaitStamps(p.asking[0]); err != nil {
			return nil, err
		}
	}
	for i := range nodes {
		go p.answer(p.answering[i])
		go p.collect(p.asking[i])
	}
	return p, nil
}

func stampedSocket(address [4]byte, port int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	const stamps = unix.SOF_TIMESTAMPING_SOFTWARE | unix.SOF_TIMESTAMPING_RX_SOFTWARE | unix.SOF_TIMESTAMPING_TX_SOFTWARE | unix.SOF_TIMESTAMPING_OPT_TSONLY
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPING, stamps); err != nil {
		return 0, err
	}
	return fd, unix.Bind(fd, &unix.SockaddrInet4{Addr: address, Port: port})
}

// awaitStamps returns when packets get receive stamps. The kernel takes them
// only while some socket asks, and begins a while after the first one did.
func awaitStamps(fd int) error {
	own, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	for range 1000 {
		if _, err := sendStamped(fd, []byte("stamp?"), own); err != nil {
			return err
		}
		if _, _, _, err = receiveStamped(fd, make([]byte, 64)); err == nil {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
	return err
}

// close ends the goroutines: a socket shut down has nothing more to receive.
func (p *prober) close() {
	p.closing.Do(func() {
		for _, fd := range append(p.asking, p.answering...) {
			_ = unix.Shutdown(fd, unix.SHUT_RDWR) // wakes them up, though it says ENOTCONN
		}
	})
}

func (p *prober) stamp(e exchange, at int, stamp int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.exchanges[e] == nil {
		p.exchanges[e] = new([4]int64)
	}
	p.exchanges[e][at] = stamp
}

// ask sends one request. Only one goroutine may ask for a node.
func (p *prober) ask(from, to int, seq uint32) error {
	packet := make([]byte, 64)
	binary.BigEndian.PutUint32(packet, magicProbe)
	packet[4], packet[5] = 1, 1
	binary.BigEndian.PutUint64(packet[8:], uint64(from))
	binary.BigEndian.PutUint32(packet[16:], seq)
	sent, err := sendStamped(p.asking[from], packet, &unix.SockaddrInet4{Addr: p.nodes[to].WAN.As4(), Port: probePort})
	p.stamp(exchange{uint64(from), seq}, 0, sent)
	return err
}

func (p *prober) answer(fd int) {
	defer unix.Close(fd)
	for packet := make([]byte, 2048); ; {
		n, from, arrived, err := receiveStamped(fd, packet)
		if n == 0 {
			return
		}
		if err != nil {
			panic(err) // the yardstick is broken
		}
		e := exchange{binary.BigEndian.Uint64(packet[8:]), binary.BigEndian.Uint32(packet[16:])}
		packet[4] = 2
		sent, err := sendStamped(fd, packet[:n], from)
		if err != nil {
			panic(err)
		}
		p.stamp(e, 1, arrived)
		p.stamp(e, 2, sent)
	}
}

func (p *prober) collect(fd int) {
	defer unix.Close(fd)
	for packet := make([]byte, 2048); ; {
		n, _, arrived, err := receiveStamped(fd, packet)
		if n == 0 {
			return
		}
		if err != nil {
			panic(err)
		}
		p.stamp(exchange{binary.BigEndian.Uint64(packet[8:]), binary.BigEndian.Uint32(packet[16:])}, 3, arrived)
	}
}

// measured is the round trip of every finished exchange: (t4-t1)-(t3-t2), RFC 8762.
func (p *prober) measured() map[exchange]time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	trips := map[exchange]time.Duration{}
	for e, t := range p.exchanges {
		if t[0] != 0 && t[1] != 0 && t[2] != 0 && t[3] != 0 {
			trips[e] = time.Duration(t[3] - t[0] - t[2] + t[1])
		}
	}
	return trips
}

// sendStamped returns the transmit stamp, which a veth device has taken by the
// time that the send returns.
func sendStamped(fd int, packet []byte, to unix.Sockaddr) (int64, error) {
	if err := unix.Sendto(fd, packet, 0, to); err != nil {
		return 0, err
	}
	control := make([]byte, 256)
	_, n, _, _, err := unix.Recvmsg(fd, nil, control, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
	if err != nil {
		return 0, fmt.Errorf("read the transmit stamp: %w", err)
	}
	return softwareStamp(control[:n])
}

func receiveStamped(fd int, packet []byte) (int, unix.Sockaddr, int64, error) {
	control := make([]byte, 256)
	n, m, _, from, err := unix.Recvmsg(fd, packet, control, 0)
	if err != nil || n == 0 {
		return 0, nil, 0, err
	}
	stamp, err := softwareStamp(control[:m])
	return n, from, stamp, err
}

func softwareStamp(control []byte) (int64, error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return 0, err
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPING {
			return (*unix.Timespec)(unsafe.Pointer(&m.Data[0])).Nano(), nil
		}
	}
	return 0, fmt.Errorf("no stamp among %d control messages", len(messages))
}
