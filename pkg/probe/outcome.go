package probe

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// StampSource says whose clock readings a sample rests on.
type StampSource string

const (
	// Kernel says that t1, t2, t3 and t4, as far as the method has them, are
	// all stamps of a kernel.
	Kernel StampSource = "kernel"
	// User says that at least one of them is a reading of the user's clock,
	// and what the host did between that and the network device is in the
	// sample.
	User StampSource = "user"
)

// Probe is one packet to be sent.
type Probe struct {
	Peer netip.AddrPort // the peer's probe port; ICMP takes the address alone
	Size int            // octets of UDP payload, or of an echo's data; MinSize to MaxSize
	// Tag is the caller's own, the number of a burst. Packets to a peer with
	// the same tag leave from the same port.
	Tag uint64
}

// checkSize says whether a packet can be that large.
func (p Probe) checkSize() error {
	if p.Size < MinSize || p.Size > MaxSize {
		return fmt.Errorf("size is %d: want %d to %d octets", p.Size, MinSize, MaxSize)
	}
	return nil
}

// checkPeer says whether the peer can be probed from local. The kernel takes
// the unspecified address for this host.
func (p Probe) checkPeer(local netip.Addr) error {
	if a := p.Peer.Addr().Unmap(); !a.IsValid() || a.IsUnspecified() || a.Is4() != local.Is4() {
		return fmt.Errorf("from %v: want an address of the same family", local)
	}
	return nil
}

// checkPort is checkPeer where a port belongs to the peer.
func (p Probe) checkPort(local netip.Addr) error {
	if p.Peer.Port() == 0 {
		return errors.New("want a port")
	}
	return p.checkPeer(local)
}

// Outcome is how a Probe ended. At most one of Lost and Discarded is set, and
// RTT is a latency only if neither is: a timeout is never a latency.
type Outcome struct {
	Probe
	Session uint64
	Seq     uint32
	// Lost: no answer came within the timeout.
	Lost bool
	// Discarded: neither a sample nor a loss, and to be counted as neither.
	// The answer came but its stamps contradict each other (a clock was
	// stepped), or the peer was forgotten or the engine ended before it came.
	Discarded bool
	// RTT is the round-trip time without the reflector's share, never
	// negative and never more than the monotonic clock saw pass.
	RTT time.Duration
	// Sent is when the packet was handed to the kernel, with a monotonic
	// reading.
	Sent time.Time
	// Stamps is set for a sample only.
	Stamps StampSource
}

// Reason is why a packet that arrived was not used. It is fit to be the value
// of a metric label.
type Reason string

const (
	// Malformed is a packet that is not ours.
	Malformed Reason = "malformed"
	// WrongSize is a reply that does not have the size of its request.
	WrongSize Reason = "size"
	// WrongSource is a reply from an address that was not probed.
	WrongSource Reason = "source"
	// WrongSession is a reply to another prober, or to one that has ended.
	WrongSession Reason = "session"
	// Unsent is a reply to a packet that was never sent.
	Unsent Reason = "unsent"
	// Duplicate is a reply to a packet that was answered already.
	Duplicate Reason = "duplicate"
	// Late is a reply after the timeout; its packet is lost.
	Late Reason = "late"
	// Unwanted is a request, and there is no Reflector.
	Unwanted Reason = "unwanted"
	// SourceLimit is a request beyond what one source is answered.
	SourceLimit Reason = "source_limit"
	// TotalLimit is a request beyond what all sources together are answered.
	TotalLimit Reason = "total_limit"
	// SendFailed is a request whose reply the kernel refused to send.
	SendFailed Reason = "send_failed"
)

// Counters is what an engine has counted since it was opened. Sent less all
// outcomes is what is under way: Kernel + User samples, Lost, OutOfBracket
// and Abandoned are the outcomes.
type Counters struct {
	Sent       uint64 // probes that the kernel took
	SendFailed uint64 // probes that the kernel refused

	KernelSamples, UserSamples uint64
	Lost                       uint64
	OutOfBracket               uint64 // discarded: stamps that contradict each other
	Abandoned                  uint64 // discarded: forgotten while under way

	// Reordered counts samples whose answer was overtaken: it came after that
	// of a later packet to the same peer (RFC 4737, Type-P-Reordered).
	Reordered uint64

	// Ignored counts packets that arrived and were not used. All reasons that
	// can occur are there from the start.
	Ignored map[Reason]uint64
	// Missing counts samples by the kernel stamps that they had to do
	// without: "t1", "t2", "t3", "t4".
	Missing map[string]uint64
}
