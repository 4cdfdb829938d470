package probe

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Times of the world that these tests pretend: a packet is stamped 10 µs after
// the user's clock was read, the way takes 100 µs in each direction, the
// reflector answers 50 µs after its stamp and the answer leaves 20 µs later,
// and the user reads it 30 µs after its stamp.
const (
	toKernel  = 10 * us
	oneWay    = 100 * us
	answering = 50 * us
	leaving   = 20 * us
	toUser    = 30 * us

	trueRTT = time.Duration(2 * oneWay)
	userRTT = trueRTT + time.Duration(leaving)
)

var (
	peerA = netip.MustParseAddrPort("192.0.2.1:9465")
	peerB = netip.MustParseAddrPort("192.0.2.2:9465")
)

// bench drives a prober without sockets, on a clock of its own.
type bench struct {
	*testing.T
	*prober
	now  reading
	left map[flight]int64 // when the reflector's answer left
}

// flight identifies a packet of a test.
type flight struct {
	session uint64
	seq     uint32
}

// sentPacket is what a test remembers of a packet that it sent.
type sentPacket struct {
	flight
	packet *packet
	peer   netip.AddrPort
	size   int
	ticket uint64
	at     int64
}

func newBench(t *testing.T, timeout, hold time.Duration) *bench {
	t.Helper()
	b := &bench{T: t, prober: newProber(timeout, hold, false), left: make(map[flight]int64)}
	b.now = reading{at: time.Unix(1_800_000_000, 0), unix: 1_800_000_000_000_000_000}
	session := uint64(100)
	b.newSession = func() uint64 { session++; return session }
	return b
}

func (b *bench) pass(d time.Duration) {
	b.now.at, b.now.unix = b.now.at.Add(d), b.now.unix+int64(d)
}

// send sends a packet and stamps it.
func (b *bench) send(peer netip.AddrPort, tag uint64) sentPacket {
	k := b.begin(Probe{Peer: peer, Size: MinSize, Tag: tag})
	k.sent = b.now
	p := sentPacket{flight{k.session.id, k.seq}, k, peer, k.Size, k.ticket, b.now.unix}
	k.transmitted(p.ticket, p.at+toKernel)
	return p
}

// header is the reply to p. previous is the packet that was answered before,
// whose kernel stamp it brings; nil if there is none.
func (b *bench) header(p sentPacket, previous *sentPacket) Header {
	h := Header{Kind: Reply, Session: p.session, Seq: p.seq, KernelT2: true}
	h.T2 = p.at + toKernel + oneWay
	h.T3 = h.T2 + answering
	b.left[p.flight] = h.T3 + leaving
	if previous != nil {
		h.PrevSeq, h.PrevSent, h.PrevT3 = previous.seq, true, b.left[previous.flight]
	}
	return h
}

// receive delivers the reply to p, after the time that it takes.
func (b *bench) receive(p sentPacket, previous *sentPacket) {
	h := b.header(p, previous)
	t4 := b.left[p.flight] + oneWay
	if b.now.unix < t4+toUser {
		b.pass(time.Duration(t4 + toUser - b.now.unix))
	}
	b.reply(p.peer, h, p.size, t4, b.now)
}

// brief is what the tests compare of an Outcome.
type brief struct {
	Seq    uint32
	Result string
}

func (b *bench) outcomes() []brief {
	var all []brief
	for _, o := range b.ready {
		result := fmt.Sprint(o.RTT, " ", o.Stamps)
		switch {
		case o.Lost:
			result = "lost"
		case o.Discarded:
			result = "discarded"
		}
		all = append(all, brief{o.Seq, result})
	}
	b.ready = b.ready[:0]
	return all
}

func (b *bench) want(when string, want ...brief) {
	b.Helper()
	if diff := cmp.Diff(want, b.outcomes()); diff != "" {
		b.Errorf("%s: outcomes (-want +got):\n%s", when, diff)
	}
}

func (b *bench) wantIgnored(want map[Reason]uint64) {
	b.Helper()
	got := make(map[Reason]uint64)
	for reason, n := range b.counters.Ignored {
		if n > 0 {
			got[reason] = n
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		b.Errorf("ignored packets (-want +got):\n%s", diff)
	}
}

var (
	byKernel = fmt.Sprint(trueRTT, " kernel")
	byUser   = fmt.Sprint(userRTT, " user")
)

func TestASampleIsHeldUntilTheNextReplyBringsItsTransmitStamp(t *testing.T) {
	b := newBench(t, time.Second, 15*time.Second)
	first := b.send(peerA, 1)
	b.receive(first, nil)
	b.want("after its reply")
	b.pass(10 * time.Second) // the next burst
	b.expire(b.now.at)
	second := b.send(peerA, 2)
	b.receive(second, &first)
	b.want("after the next reply", brief{1, byKernel})
	b.pass(15 * time.Second)
	b.expire(b.now.at)
	b.want("after the longest hold", brief{2, byUser})
	if diff := cmp.Diff(map[string]uint64{"t1": 0, "t2": 0, "t3": 1, "t4": 0}, b.counters.Missing); diff != "" {
		t.Errorf("missing stamps (-want +got):\n%s", diff)
	}
}

func TestASampleIsNotHeldForAStampThatCannotComeAnyMore(t *testing.T) {
	t.Run("the reply that had it was lost", func(t *testing.T) {
		b := newBench(t, time.Second, time.Minute)
		first, second, third := b.send(peerA, 0), b.send(peerA, 0), b.send(peerA, 0)
		b.receive(first, nil)
		b.header(second, &first) // answered, and lost on its way
		b.receive(third, &second)
		b.want("while the second reply may come")
		b.pass(2 * time.Second)
		b.expire(b.now.at)
		b.want("after the timeout", brief{2, "lost"})
		b.receive(b.send(peerA, 0), &third)
		b.want("after the next reply", brief{1, byUser}, brief{3, byKernel})
	})
	t.Run("the reflector has no transmit stamps", func(t *testing.T) {
		b := newBench(t, time.Second, time.Minute)
		first, second := b.send(peerA, 0), b.send(peerA, 0)
		b.receive(first, nil)
		b.receive(second, nil)
		b.want("after the second reply", brief{1, byUser})
	})
	t.Run("the reflector's clock was stepped before it left", func(t *testing.T) {
		b := newBench(t, time.Second, time.Minute)
		first, second := b.send(peerA, 0), b.send(peerA, 0)
		b.receive(first, nil)
		b.left[first.flight] -= int64(time.Hour)
		b.receive(second, &first)
		b.want("after the second reply", brief{1, byUser})
	})
	t.Run("samples are not to be held", func(t *testing.T) {
		b := newBench(t, time.Second, 0)
		b.receive(b.send(peerA, 0), nil)
		b.want("after its reply", brief{1, byUser})
	})
}

func TestAReplyThatWasOvertakenLeavesLaterSamplesAlone(t *testing.T) {
	b := newBench(t, time.Second, time.Minute)
	first, second := b.send(peerA, 0), b.send(peerA, 0)
	b.receive(second, nil)
	b.receive(first, &second)
	b.want("after both replies")
	third := b.send(peerA, 0)
	b.receive(third, &second)
	b.want("after a third reply", brief{1, byUser}, brief{2, byKernel})
}

func TestAStampMayComeBeforeTheReplyThatItIsOf(t *testing.T) {
	b := newBench(t, time.Second, time.Minute)
	first, second := b.send(peerA, 0), b.send(peerA, 0)
	before := b.header(first, nil) // which waits in another socket
	b.receive(second, &first)
	b.reply(peerA, before, first.size, b.left[first.flight]+oneWay, b.now)
	b.want("after both replies", brief{1, byKernel})

	third, fourth := b.send(peerA, 0), b.send(peerA, 0)
	before = b.header(third, &second)
	stepped := b.header(fourth, &third)
	stepped.PrevT3 = before.T3 - 1 // the reflector's clock was stepped back
	b.pass(time.Millisecond)
	b.reply(peerA, stepped, fourth.size, b.left[fourth.flight]+oneWay, b.now)
	b.reply(peerA, before, third.size, b.left[third.flight]+oneWay, b.now)
	b.receive(b.send(peerA, 0), &fourth)
	b.want("after the step", brief{2, byKernel}, brief{3, byUser}, brief{4, byKernel})
}

func TestStampsOfOnePeerDoNotTouchAnother(t *testing.T) {
	b := newBench(t, time.Second, time.Minute)
	a := b.send(peerA, 0)
	b.receive(a, nil)
	other := b.send(peerB, 0)
	b.receive(other, nil)
	b.want("after a reply of another peer")
}

func TestTheFirstTransmitStampOfAPacketWins(t *testing.T) {
	b := newBench(t, time.Second, time.Minute)
	first := b.send(peerA, 0)
	first.packet.transmitted(first.ticket, first.at+toKernel+5*us)
	b.receive(first, nil)
	second := b.send(peerA, 0)
	b.receive(second, &first)
	b.want("after two stamps", brief{1, byKernel})
}

func TestATransmitStampOfAPacketThatEndedDoesNotTouchTheNext(t *testing.T) {
	b := newBench(t, time.Second, 0)
	first := b.send(peerA, 0)
	b.receive(first, nil)
	second := b.begin(Probe{Peer: peerA, Size: MinSize})
	if second != first.packet {
		t.Fatal("the packet is not used again, so this test shows nothing")
	}
	second.sent = b.now
	second.transmitted(first.ticket, b.now.unix)
	if second.t1 != 0 {
		t.Errorf("t1 of the second packet is %d, the first one's", second.t1)
	}
}

func TestPacketsWithoutAnAnswerAreLostAfterTheTimeout(t *testing.T) {
	b := newBench(t, time.Second, time.Minute)
	first := b.send(peerA, 0)
	b.pass(time.Second)
	b.expire(b.now.at)
	b.want("at the timeout")
	b.pass(1)
	b.expire(b.now.at)
	b.want("after the timeout", brief{1, "lost"})
	b.receive(first, nil)
	b.want("after a late reply")
	b.wantIgnored(map[Reason]uint64{Late: 1})
}

func TestAReplyThatCameLateIsALossEvenBeforeTheNextTick(t *testing.T) {
	b := newBench(t, time.Second, time.Minute)
	first := b.send(peerA, 0)
	b.pass(1200 * time.Millisecond)
	b.reply(peerA, b.header(first, nil), first.size, b.now.unix-toUser, b.now)
	b.want("after a late reply", brief{1, "lost"})
	b.wantIgnored(map[Reason]uint64{Late: 1})
}

func TestAReplyThatWaitedInTheSocketIsNotLate(t *testing.T) {
	b := newBench(t, time.Second, 0)
	first := b.send(peerA, 0)
	b.pass(3 * time.Second) // the agent was stopped
	b.receive(first, nil)
	b.want("after the agent went on", brief{1, byUser})
}

func TestRepliesThatBelongToNothingAreIgnored(t *testing.T) {
	for _, test := range []struct {
		name  string
		reply func(*bench, sentPacket)
		want  Reason
	}{
		{"from an address that was not probed", func(b *bench, p sentPacket) { p.peer = peerB; b.receive(p, nil) }, WrongSource},
		{"from another port", func(b *bench, p sentPacket) {
			p.peer = netip.AddrPortFrom(peerA.Addr(), 1)
			b.receive(p, nil)
		}, WrongSource},
		{"of another session", func(b *bench, p sentPacket) { p.session++; b.receive(p, nil) }, WrongSession},
		{"to a packet that was not sent yet", func(b *bench, p sentPacket) { p.seq++; b.receive(p, nil) }, Unsent},
		{"to packet 0, which there is not", func(b *bench, p sentPacket) { p.seq = 0; b.receive(p, nil) }, Unsent},
		{"of another size", func(b *bench, p sentPacket) { p.size++; b.receive(p, nil) }, WrongSize},
	} {
		b := newBench(t, time.Second, 0)
		first := b.send(peerA, 0)
		test.reply(b, first)
		b.want("a reply " + test.name)
		b.wantIgnored(map[Reason]uint64{test.want: 1})
		b.receive(first, nil)
		b.want("the true reply after one "+test.name, brief{1, byUser})
	}
}

func TestDuplicatesAreIgnored(t *testing.T) {
	b := newBench(t, time.Second, time.Minute)
	first := b.send(peerA, 0)
	b.receive(first, nil)
	b.receive(first, nil) // while it is held
	second := b.send(peerA, 0)
	b.receive(second, &first)
	b.receive(first, nil) // after it was delivered
	b.want("after duplicates", brief{1, byKernel})
	b.wantIgnored(map[Reason]uint64{Duplicate: 2})
}

func TestAnswersThatWereOvertakenAreCounted(t *testing.T) {
	b := newBench(t, time.Second, 0)
	first, second, third, other := b.send(peerA, 0), b.send(peerA, 0), b.send(peerA, 0), b.send(peerB, 0)
	b.receive(third, nil)
	b.receive(other, nil)
	b.receive(first, nil)
	b.receive(second, nil) // by the third, not by the first
	b.receive(second, nil) // a duplicate is only that
	b.receive(b.send(peerA, 0), nil)
	if got := b.counters.Reordered; got != 2 {
		t.Errorf("%d answers were overtaken, want 2", got)
	}
	b.wantIgnored(map[Reason]uint64{Duplicate: 1})
}

func TestAnAnswerThatWaitedInAnotherSocketWasNotOvertaken(t *testing.T) {
	b := newBench(t, time.Second, 0)
	first, second := b.send(peerA, 0), b.send(peerA, 0)
	arrived := b.now.unix + 500*us
	b.pass(time.Millisecond)
	b.reply(peerA, b.header(second, nil), second.size, arrived+1, b.now)
	b.reply(peerA, b.header(first, nil), first.size, arrived, b.now)
	if got := b.counters.Reordered; got != 0 {
		t.Errorf("%d answers were overtaken, want none", got)
	}
}

func TestAPacketOfABatchThatWasNotSentLeavesTheOthersAlone(t *testing.T) {
	b := newBench(t, time.Second, 0)
	first, second, third := b.send(peerA, 1), b.send(peerA, 2), b.send(peerA, 3)
	b.abort(second.packet)
	b.abort(third.packet)
	fourth := b.send(peerA, 4)
	if fourth.seq != 3 {
		t.Errorf("the packet after two that failed has number %d, want that of the last", fourth.seq)
	}
	b.receive(first, nil)
	b.receive(fourth, nil)
	b.want("after both replies", brief{1, byUser}, brief{3, byUser})
}

// An echo has no t2 and t3: what the peer's kernel took is part of the sample.
func TestAnEchoIsASampleByTheStampsOfItsProber(t *testing.T) {
	for _, test := range []struct {
		name        string
		t1, t4      bool
		want        string
		wantMissing map[string]uint64
	}{
		{"both stamps", true, true, "200µs kernel", map[string]uint64{"t1": 0, "t4": 0}},
		{"without t1", false, true, "210µs user", map[string]uint64{"t1": 1, "t4": 0}},
		{"without t4", true, false, "230µs user", map[string]uint64{"t1": 0, "t4": 1}},
		{"neither", false, false, "240µs user", map[string]uint64{"t1": 1, "t4": 1}},
	} {
		b := newBench(t, time.Second, 0)
		b.prober = newProber(time.Second, 0, true)
		k := b.begin(Probe{Peer: peerA, Size: MinSize})
		k.sent = b.now
		stamp := map[bool]int64{true: 1}
		k.transmitted(k.ticket, stamp[test.t1]*(b.now.unix+toKernel))
		b.pass(time.Duration(toKernel + 2*oneWay + toUser))
		// The kernel does not know of ports.
		from := netip.AddrPortFrom(peerA.Addr(), 0)
		b.reply(from, Header{Kind: Request, Session: k.session.id, Seq: 1}, MinSize, stamp[test.t4]*(b.now.unix-toUser), b.now)
		b.want(test.name, brief{1, test.want})
		if diff := cmp.Diff(test.wantMissing, b.counters.Missing); diff != "" {
			t.Errorf("%s: missing stamps (-want +got):\n%s", test.name, diff)
		}
	}
}

func TestAPeerOfEchoesIsAnAddress(t *testing.T) {
	p := newProber(time.Second, 0, true)
	k := p.begin(Probe{Peer: peerA, Size: MinSize})
	k.sent = reading{at: noon}
	p.forget(netip.AddrPortFrom(peerA.Addr(), 1))
	if len(p.sessions) != 0 || len(p.ready) != 1 || p.ready[0].Peer != peerA {
		t.Errorf("forgotten by another port: sessions %v, outcomes %+v, want none and that of %v", p.sessions, p.ready, peerA)
	}
}

func TestAStepOfTheClockDiscardsTheSample(t *testing.T) {
	b := newBench(t, time.Second, 0)
	for i, step := range []time.Duration{10 * time.Second, 10 * time.Millisecond, -200 * time.Microsecond, -time.Hour} {
		p := b.send(peerA, 0)
		h := b.header(p, nil)
		b.now.unix += int64(step)
		b.pass(2 * time.Millisecond)
		b.reply(peerA, h, p.size, b.now.unix-toUser, b.now)
		b.want("after a step of "+step.String(), brief{uint32(i) + 1, "discarded"})
	}
}

// moment is when the clock that stamps are of is stepped.
type moment uint8

const (
	betweenBursts moment = iota
	betweenPackets
	beforeT1 // after the user's own reading
	betweenT1AndT4
	afterT4 // before the user's own reading
)

// A step costs the one packet that is under way, which is no loss: all others
// are the samples that they would have been, those that are held meanwhile too.
func TestAStepOfTheClockTouchesNothingButThePacketUnderWay(t *testing.T) {
	for _, test := range []struct {
		name    string
		at      moment
		discard bool
	}{
		{"between bursts", betweenBursts, false},
		{"between two packets of a burst", betweenPackets, false},
		{"before t1", beforeT1, true},
		{"between t1 and t4", betweenT1AndT4, true},
		{"after t4", afterT4, true},
	} {
		for _, echo := range []bool{false, true} {
			for _, step := range []time.Duration{10 * time.Second, -10 * time.Second} {
				name := fmt.Sprintf("%s, by %v, echo %v", test.name, step, echo)
				b := newBench(t, 2*time.Second, 20*time.Second)
				sample := byKernel
				if echo {
					b.prober = newProber(2*time.Second, 0, true)
					sample = fmt.Sprint(trueRTT+time.Duration(answering+leaving), " kernel")
				}
				got := b.stepped(test.at, step)
				want := make([]brief, 12)
				for i := range want {
					want[i] = brief{uint32(i + 1), sample}
				}
				if test.discard {
					want[5].Result = "discarded"
				}
				if !echo {
					want[11].Result = byUser // nothing follows that would bring t3
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s: outcomes (-want +got):\n%s", name, diff)
				}
			}
		}
	}
}

// stepped are the outcomes of three bursts of four packets, with a step of the
// clock at the sixth packet, or before the burst that it is in.
func (b *bench) stepped(when moment, step time.Duration) []brief {
	b.Helper()
	stepped := 5
	if when == betweenBursts {
		stepped = 4
	}
	var previous *sentPacket
	for i := range 12 {
		at := func(m moment) {
			if i == stepped && m == when {
				b.now.unix += int64(step)
			}
		}
		at(betweenBursts)
		at(betweenPackets)
		k := b.begin(Probe{Peer: peerA, Size: MinSize, Tag: uint64(i / 4)})
		k.sent = b.now
		at(beforeT1)
		p := sentPacket{flight{k.session.id, k.seq}, k, peerA, k.Size, k.ticket, b.now.unix}
		b.pass(time.Duration(toKernel))
		k.transmitted(p.ticket, b.now.unix)
		h := b.header(p, previous)
		b.pass(time.Duration(2*oneWay + answering + leaving))
		at(betweenT1AndT4)
		t4 := b.now.unix
		b.pass(time.Duration(toUser))
		at(afterT4)
		if b.echo {
			h = Header{Kind: Request, Session: p.session, Seq: p.seq}
		}
		b.reply(p.peer, h, p.size, t4, b.now)
		previous = &p
		b.expire(b.now.at)
		if b.pass(20 * time.Millisecond); i%4 == 3 {
			b.pass(10 * time.Second)
			b.expire(b.now.at)
		}
	}
	b.pass(20 * time.Second)
	b.expire(b.now.at)
	return b.outcomes()
}

func TestForgetEndsWhatIsUnderWayAndStartsAnotherSession(t *testing.T) {
	b := newBench(t, time.Second, time.Minute)
	first, second := b.send(peerA, 0), b.send(peerA, 0)
	other := b.send(peerB, 0)
	b.receive(first, nil)
	b.forget(peerA)
	b.want("after forget", brief{1, byUser}, brief{2, "discarded"})
	third := b.send(peerA, 0)
	if third.session == first.session || third.seq != 1 {
		t.Errorf("after forget the next packet is %+v, want the first of another session than %d", third.flight, first.session)
	}
	b.receive(second, nil)
	b.wantIgnored(map[Reason]uint64{WrongSession: 1})
	b.receive(other, nil)
	b.end()
	got := b.outcomes()
	slices.SortFunc(got, func(x, y brief) int { return strings.Compare(x.Result, y.Result) }) // sessions end in any order
	if diff := cmp.Diff([]brief{{1, byUser}, {1, "discarded"}}, got); diff != "" {
		t.Errorf("at the end (-want +got):\n%s", diff)
	}
}

func TestAPacketThatWasNotSentHasNoOutcomeAndNoNumber(t *testing.T) {
	b := newBench(t, time.Second, 0)
	b.receive(b.send(peerA, 0), nil)
	b.abort(b.begin(Probe{Peer: peerA, Size: MinSize}))
	second := b.send(peerA, 0)
	if second.seq != 2 {
		t.Errorf("the packet after one that failed has number %d, want 2", second.seq)
	}
	b.end()
	b.want("at the end", brief{1, byUser}, brief{2, "discarded"})
}

// Whatever the network does to packets and stamps, each packet ends in one
// Outcome, and a sample is possible.
func TestEveryPacketEndsInExactlyOneOutcome(t *testing.T) {
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 0))
		b := newBench(t, 50*time.Millisecond, 80*time.Millisecond)
		peers := []netip.AddrPort{peerA, peerB, netip.MustParseAddrPort("[2001:db8::1]:9465")}
		var all []sentPacket
		previous := make(map[uint64]*sentPacket)
		tags := make(map[uint64]int)
		for range 200 {
			switch action := random.IntN(20); {
			case action < 8:
				tag := uint64(len(all))
				k := b.begin(Probe{Peer: peers[random.IntN(len(peers))], Size: MinSize, Tag: tag})
				k.sent = b.now
				all = append(all, sentPacket{flight{k.session.id, k.seq}, k, k.Peer, k.Size, k.ticket, b.now.unix})
			case action < 16 && len(all) > 0:
				// A packet of any age: early, late, again, forgotten; with a
				// stamp or without, t3 or not, before t1 or after.
				p := all[max(0, len(all)-1-random.IntN(12))]
				if random.IntN(4) > 0 {
					p.packet.transmitted(p.ticket, p.at+random.Int64N(2*toKernel))
				}
				h := b.header(p, previous[p.session])
				h.KernelT2 = random.IntN(4) > 0
				t4 := b.now.unix - random.Int64N(2*toUser)
				if random.IntN(4) == 0 {
					t4 = 0
				}
				b.reply(p.peer, h, p.size, t4, b.now)
				previous[p.session] = &p
			case action == 16:
				b.forget(peers[random.IntN(len(peers))])
			case action == 17:
				b.now.unix += random.Int64N(int64(2*time.Second)) - int64(time.Second) // a step
			default:
				b.pass(time.Duration(random.Int64N(int64(20 * time.Millisecond))))
				b.expire(b.now.at)
			}
			b.pass(time.Duration(random.Int64N(300 * us)))
		}
		b.end()
		for _, o := range b.ready {
			tags[o.Tag]++
			if sample := !o.Lost && !o.Discarded; sample != (o.Stamps != "") || o.Lost && o.Discarded {
				t.Fatalf("seed %d: outcome %+v is not one thing", seed, o)
			}
			if o.RTT < 0 || o.RTT > b.now.at.Sub(o.Sent) {
				t.Fatalf("seed %d: outcome %+v has an impossible round trip", seed, o)
			}
			p := all[o.Tag]
			if o.Session != p.session || o.Seq != p.seq || o.Peer != p.peer || o.Sent.UnixNano() > b.now.at.UnixNano() {
				t.Fatalf("seed %d: outcome %+v is of another packet than %+v", seed, o, p.flight)
			}
		}
		for tag := range all {
			if tags[uint64(tag)] != 1 {
				t.Fatalf("seed %d: packet %d of %d has %d outcomes, want 1", seed, tag, len(all), tags[uint64(tag)])
			}
		}
		c := b.counters
		if sum := c.KernelSamples + c.UserSamples + c.Lost + c.OutOfBracket + c.Abandoned; sum != uint64(len(all)) {
			t.Fatalf("seed %d: the counters add up to %d outcomes of %d packets", seed, sum, len(all))
		}
		if len(b.sessions) != 0 {
			t.Fatalf("seed %d: %d sessions are left at the end", seed, len(b.sessions))
		}
	}
}
