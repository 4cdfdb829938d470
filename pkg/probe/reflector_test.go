package probe

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func aRequestOf(session uint64, seq uint32) Header {
	return Header{Kind: Request, Session: session, Seq: seq}
}

func TestAReplyCarriesTheTransmitStampOfTheOneBefore(t *testing.T) {
	r := NewReflector(ReflectorOptions{})
	got, record, ticket, ok := r.answer(peerA, aRequestOf(5, 1), 1000, true, noon)
	if diff := cmp.Diff(Header{Kind: Reply, Session: 5, Seq: 1, T2: 1000, KernelT2: true}, got); !ok || diff != "" {
		t.Fatalf("first reply (-want +got), ok %v:\n%s", ok, diff)
	}
	r.transmitted(record, ticket, 1070)
	r.transmitted(record, ticket, 1090) // the second stamp of the same packet

	got, record, ticket, _ = r.answer(peerA, aRequestOf(5, 2), 2000, false, noon)
	if diff := cmp.Diff(Header{Kind: Reply, Session: 5, Seq: 2, T2: 2000, PrevSeq: 1, PrevSent: true, PrevT3: 1070}, got); diff != "" {
		t.Errorf("second reply (-want +got):\n%s", diff)
	}
	got, _, _, _ = r.answer(peerA, aRequestOf(5, 3), 3000, true, noon)
	if diff := cmp.Diff(Header{Kind: Reply, Session: 5, Seq: 3, T2: 3000, KernelT2: true, PrevSeq: 2}, got); diff != "" {
		t.Errorf("reply after one whose stamp did not come (-want +got):\n%s", diff)
	}
	r.transmitted(record, ticket, 2070) // comes after its place was taken
	got, _, _, _ = r.answer(peerA, aRequestOf(5, 4), 4000, true, noon)
	if got.PrevSeq != 3 || got.PrevSent {
		t.Errorf("reply after a stamp that came too late: got %+v, want no stamp of request 3", got)
	}
}

func TestSessionsAreKeptApart(t *testing.T) {
	r := NewReflector(ReflectorOptions{})
	_, record, ticket, _ := r.answer(peerA, aRequestOf(5, 1), 1000, true, noon)
	r.transmitted(record, ticket, 1070)
	for name, test := range map[string]struct {
		from    netip.AddrPort
		session uint64
	}{
		"another session of the same source":   {peerA, 6},
		"the same session from another source": {peerB, 5},
	} {
		if got, _, _, _ := r.answer(test.from, aRequestOf(test.session, 2), 2000, true, noon); got.PrevSeq != 0 || got.PrevSent {
			t.Errorf("%s: the reply knows of request %d", name, got.PrevSeq)
		}
	}
}

// Successive bursts of a session leave from different ports.
func TestASessionIsTheSameFromAllPortsOfItsSource(t *testing.T) {
	r := NewReflector(ReflectorOptions{})
	_, record, ticket, _ := r.answer(peerA, aRequestOf(5, 1), 1000, true, noon)
	r.transmitted(record, ticket, 1070)
	got, _, _, _ := r.answer(netip.AddrPortFrom(peerA.Addr(), 1), aRequestOf(5, 2), 2000, true, noon)
	if got.PrevSeq != 1 || got.PrevT3 != 1070 {
		t.Errorf("reply to a request from another port: got %+v, want the stamp of request 1", got)
	}
}

// The prober takes the first reply of a duplicate. The stamp of the second
// would make that sample too short.
func TestADuplicateDoesNotMoveTheTransmitStamp(t *testing.T) {
	r := NewReflector(ReflectorOptions{})
	_, record, ticket, _ := r.answer(peerA, aRequestOf(5, 2), 1000, true, noon)
	r.transmitted(record, ticket, 1070)
	for _, seq := range []uint32{2, 1} {
		if _, record, _, ok := r.answer(peerA, aRequestOf(5, seq), 1500, true, noon); !ok || record != nil {
			t.Errorf("request %d after 2: answered %v and recorded %v, want an answer without record", seq, ok, record != nil)
		}
	}
	got, _, _, _ := r.answer(peerA, aRequestOf(5, 3), 2000, true, noon)
	if got.PrevSeq != 2 || got.PrevT3 != 1070 {
		t.Errorf("reply to request 3: got %+v, want the first stamp of request 2", got)
	}
}

func TestRequestsBeyondTheLimitsAreRefused(t *testing.T) {
	r := NewReflector(ReflectorOptions{PerSource: Rate{PerSecond: 10, Burst: 3}, Total: Rate{PerSecond: 10, Burst: 5}})
	now := noon
	answered := func(from netip.AddrPort, requests int, now time.Time) (n int) {
		for seq := range requests {
			if _, _, _, ok := r.answer(from, aRequestOf(1, uint32(seq+1)), 1, true, now); ok {
				n++
			}
		}
		return n
	}
	for _, step := range []struct {
		name     string
		from     netip.AddrPort
		after    time.Duration
		requests int
		want     int
	}{
		{"the burst of a source", peerA, 0, 10, 3},
		{"another port of the same source", netip.AddrPortFrom(peerA.Addr(), 1), 0, 10, 0},
		{"another source, up to the total", peerB, 0, 10, 2},
		{"what grew back in 200 ms", peerA, 200 * time.Millisecond, 10, 2},
		{"never more than the burst", peerA, time.Hour, 10, 3},
	} {
		now = now.Add(step.after)
		if got := answered(step.from, step.requests, now); got != step.want {
			t.Errorf("%s: %d of %d requests answered, want %d", step.name, got, step.requests, step.want)
		}
	}
	if diff := cmp.Diff(map[Reason]uint64{SourceLimit: 7 + 10 + 7 + 8 + 7, TotalLimit: 1, SendFailed: 0}, r.Counters().Refused); diff != "" {
		t.Errorf("refused (-want +got):\n%s", diff)
	}
}

func TestTheReflectorRemembersABoundedNumberOfSessions(t *testing.T) {
	r := NewReflector(ReflectorOptions{Memory: 2})
	_, record, ticket, _ := r.answer(peerA, aRequestOf(1, 1), 1000, true, noon)
	r.answer(peerA, aRequestOf(2, 1), 1000, true, noon)
	r.answer(peerA, aRequestOf(3, 1), 1000, true, noon) // takes the place of session 1
	r.transmitted(record, ticket, 1070)
	for session, want := range map[uint64]uint32{2: 1, 3: 1} {
		got, _, _, _ := r.answer(peerA, aRequestOf(session, 2), 2000, true, noon)
		if got.PrevSeq != want || got.PrevSent {
			t.Errorf("session %d: got %+v, want request %d without a stamp", session, got, want)
		}
	}
	if got, _, _, _ := r.answer(peerA, aRequestOf(1, 2), 2000, true, noon); got.PrevSeq != 0 {
		t.Errorf("session 1 is remembered: %+v", got)
	}
	if n := len(r.sessions.byKey); n != 2 {
		t.Errorf("%d sessions are remembered, want 2", n)
	}
}

func TestRecentForgetsWhatWasNotAskedForLongest(t *testing.T) {
	r := newRecent[string, int](2)
	*r.get("a") = 1
	*r.get("b") = 2
	r.get("a")
	*r.get("c") = 3 // instead of b
	for _, want := range []struct {
		key   string
		value int
	}{{"a", 1}, {"c", 3}, {"b", 0}} {
		if got := *r.get(want.key); got != want.value {
			t.Errorf("%s is %d, want %d", want.key, got, want.value)
		}
	}
}
