package probe

import (
	"maps"
	"net/netip"
	"sync"
	"time"
)

// ReflectorOptions bounds what a Reflector does for others. The zero value of
// each field is its default.
type ReflectorOptions struct {
	// PerSource is what one source address is answered. The default is 200
	// per second and 400 at once: an agent sends a few packets per second to
	// each peer, and behind a NAT a whole provider may have one address.
	PerSource Rate
	// Total is what all sources together are answered. The default is 5000
	// per second and 5000 at once: a target node of a cluster of 5000, probed
	// by all of them. At about 10 µs a reply this is 5 % of a core.
	Total Rate
	// Memory is how many sources and how many sessions are remembered; the
	// default is 8192, about 2 MiB. A forgotten source has its full rate
	// again, a forgotten session costs one sample its kernel stamp t3.
	Memory int
}

// Reflector decides which requests are answered and remembers, per source and
// session, when the last answer left. The UDPs that it is given to carry it;
// it may be shared by several, and its limits hold for all of them together.
// A reply has the size of its request, so that nothing is amplified.
type Reflector struct {
	options ReflectorOptions

	mu       sync.Mutex
	total    bucket
	sources  *recent[netip.Addr, bucket]
	sessions *recent[reflectorSession, reflection]
	tickets  uint64
	counters ReflectorCounters
}

// ReflectorCounters is what a Reflector has counted since it was made.
type ReflectorCounters struct {
	Replies uint64
	// Refused counts well-formed requests that were not answered.
	Refused map[Reason]uint64
}

// reflectorSession includes the source, so that no one can move the record of
// another's session. The port is not in it: probes of one session leave from
// several.
type reflectorSession struct {
	source netip.Addr
	id     uint64
}

// reflection is the last reply of a session.
type reflection struct {
	seq    uint32
	t2     int64  // when the request came; no stamp from before is its reply's
	t3     int64  // kernel's transmit stamp, 0 as long as there is none
	ticket uint64 // never the same for two replies
}

// NewReflector makes a Reflector, which answers as soon as a UDP that it was
// given to runs.
func NewReflector(options ReflectorOptions) *Reflector {
	if options.PerSource == (Rate{}) {
		options.PerSource = Rate{PerSecond: 200, Burst: 400}
	}
	if options.Total == (Rate{}) {
		options.Total = Rate{PerSecond: 5000, Burst: 5000}
	}
	if options.Memory <= 0 {
		options.Memory = 8192
	}
	return &Reflector{
		options:  options,
		sources:  newRecent[netip.Addr, bucket](options.Memory),
		sessions: newRecent[reflectorSession, reflection](options.Memory),
		counters: ReflectorCounters{Refused: counts(SourceLimit, TotalLimit, SendFailed)},
	}
}

// Counters returns what was counted so far.
func (r *Reflector) Counters() ReflectorCounters {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.counters
	c.Refused = maps.Clone(c.Refused)
	return c
}

// Sources is the number of addresses that have sent a request since then, as
// far as they are remembered.
func (r *Reflector) Sources(since time.Time) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for e := r.sources.root.older; e != &r.sources.root && !e.value.at.Before(since); e = e.older {
		n++
	}
	return n
}

// answer returns the reply to a request that came at t2, without its T3, and
// what transmitted wants to know when the reply has left. ok is false if the
// request is refused.
func (r *Reflector) answer(from netip.AddrPort, request Header, t2 int64, kernelT2 bool, now time.Time) (reply Header, record *reflection, ticket uint64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	// The source first: one that floods must not use up what is for all.
	if !r.sources.get(from.Addr()).take(r.options.PerSource, now) {
		r.counters.Refused[SourceLimit]++
		return Header{}, nil, 0, false
	}
	if !r.total.take(r.options.Total, now) {
		r.counters.Refused[TotalLimit]++
		return Header{}, nil, 0, false
	}
	reply = Header{Kind: Reply, Session: request.Session, Seq: request.Seq, T2: t2, KernelT2: kernelT2}
	record = r.sessions.get(reflectorSession{from.Addr(), request.Session})
	if record.ticket != 0 {
		reply.PrevSeq, reply.PrevT3, reply.PrevSent = record.seq, record.t3, record.t3 != 0
		if int32(request.Seq-record.seq) <= 0 {
			// A duplicate, or one that was overtaken. The prober has taken
			// the first reply of a duplicate; the stamp of this one would
			// shorten that sample.
			return reply, nil, 0, true
		}
	}
	r.tickets++
	*record = reflection{seq: request.Seq, t2: t2, ticket: r.tickets}
	return reply, record, r.tickets, true
}

// transmitted notes the kernel's transmit stamp of a reply; the first one wins.
func (r *Reflector) transmitted(record *reflection, ticket uint64, t3 int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if record.ticket == ticket && record.t3 == 0 && t3 >= record.t2 {
		record.t3 = t3
	}
}

// replied counts replies that were sent, and such that the kernel refused to
// send.
func (r *Reflector) replied(sent, failed int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counters.Replies += uint64(sent)
	r.counters.Refused[SendFailed] += uint64(failed)
}
