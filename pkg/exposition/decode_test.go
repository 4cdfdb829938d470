package exposition

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"google.golang.org/protobuf/proto"
)

// Property: a window comes out of either format as it went in, on the reader's
// clock, with ages at most 2 ms greater (the resolution of timestamps).
func TestAWindowSurvivesTheRoundTrip(t *testing.T) {
	for name, format := range formats {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(50) {
				r := rand.New(rand.NewPCG(seed, 0))
				sent := randomWindow(r, r.IntN(200))
				got, dropped, err := decode(t, format, encode(t, format, Families(sent)))
				if err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				if dropped != nil {
					t.Errorf("seed %d: dropped %v, want nothing", seed, dropped)
				}
				want := sent
				want.Rows = slices.Clone(sent.Rows)
				if len(got.Rows) != len(want.Rows) {
					t.Fatalf("seed %d: %d rows of %d came out", seed, len(got.Rows), len(want.Rows))
				}
				if off := got.Now.Sub(agentNow).Abs(); off > time.Microsecond {
					t.Errorf("seed %d: the window's time is off by %v", seed, off)
				}
				want.Now = got.Now
				slices.SortFunc(got.Rows, func(a, b Row) int { return strings.Compare(a.Peer, b.Peer) })
				for i := range want.Rows {
					ageSent, ageGot := agentNow.Sub(want.Rows[i].Newest), readerNow.Sub(got.Rows[i].Newest)
					if ageGot < ageSent-time.Microsecond || ageGot > ageSent+2*time.Millisecond {
						t.Errorf("seed %d: %s is of age %v, sent as %v", seed, want.Rows[i].Peer, ageGot, ageSent)
					}
					want.Rows[i].Newest = got.Rows[i].Newest
					if want.Rows[i].Lost == 0 {
						want.Rows[i].Sent = 0 // not sent for pairs without loss
					}
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Fatalf("seed %d: window (-sent +got):\n%s", seed, diff)
				}
			}
		})
	}
}

// A fault in one row costs that row and no other.
func TestARowThatCannotBeTrueIsDroppedAndCounted(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	summary := func(f func(m *dto.Metric, s *dto.Summary)) func(map[string]*dto.Metric) {
		return func(of map[string]*dto.Metric) { f(of[WindowRTTSeconds], of[WindowRTTSeconds].Summary) }
	}
	value := func(family string, v float64) func(map[string]*dto.Metric) {
		return func(of map[string]*dto.Metric) { of[family].Gauge.Value = &v }
	}
	quantile := func(i int, v float64) func(map[string]*dto.Metric) {
		return summary(func(_ *dto.Metric, s *dto.Summary) { s.Quantile[i].Value = &v })
	}
	peer := func(name string) func(map[string]*dto.Metric) {
		return func(of map[string]*dto.Metric) {
			for _, m := range of {
				m.Label[1].Value = &name
			}
		}
	}
	for name, test := range map[string]struct {
		spoil func(of map[string]*dto.Metric) // the peer's series by family
		want  Reason
	}{
		"a quantile is NaN":          {quantile(1, nan), Malformed},
		"a quantile is infinite":     {quantile(3, inf), Malformed},
		"a quantile is missing":      {summary(func(_ *dto.Metric, s *dto.Summary) { s.Quantile = s.Quantile[1:] }), Malformed},
		"the sum is NaN":             {summary(func(_ *dto.Metric, s *dto.Summary) { s.SampleSum = &nan }), Malformed},
		"no time of the newest":      {summary(func(m *dto.Metric, _ *dto.Summary) { m.TimestampMs = nil }), Malformed},
		"the newest is ages old":     {summary(func(m *dto.Metric, _ *dto.Summary) { m.TimestampMs = proto.Int64(math.MinInt64) }), Malformed},
		"the newest is yet to come":  {summary(func(m *dto.Metric, _ *dto.Summary) { *m.TimestampMs += 5000 }), Future},
		"the newest is in eternity":  {summary(func(m *dto.Metric, _ *dto.Summary) { m.TimestampMs = proto.Int64(math.MaxInt64) }), Future},
		"the count is beyond an int": {summary(func(_ *dto.Metric, s *dto.Summary) { s.SampleCount = proto.Uint64(1 << 63) }), Malformed},
		"there are no samples":       {summary(func(_ *dto.Metric, s *dto.Summary) { s.SampleCount = proto.Uint64(0) }), Impossible},
		"a latency is negative":      {quantile(0, -1e-4), Impossible},
		"a latency is an hour":       {quantile(3, 3600), Impossible},
		"a latency overflows":        {quantile(3, 1e300), Impossible},
		"the mean is negative":       {summary(func(_ *dto.Metric, s *dto.Summary) { *s.SampleSum = -1 }), Impossible},
		"the quantiles fall":         {quantile(1, 5e-3), Impossible},
		"more lost than sent":        {value(WindowSent, 1), Impossible},
		"lost is negative":           {value(WindowLost, -2), Impossible},
		"lost is a fraction":         {value(WindowLost, 0.5), Malformed},
		"lost is NaN":                {value(WindowLost, nan), Malformed},
		"sent is infinite":           {value(WindowSent, inf), Malformed},
		"the peer has no name":       {peer(""), Malformed},
		"the name is too long":       {peer(strings.Repeat("n", 254)), Malformed},
		"the peer is the node":       {peer("node-a"), Self},
		"the peer came before":       {peer("node-b"), Duplicate},
		"losses without round trips": {func(of map[string]*dto.Metric) { of[WindowRTTSeconds].Label[1].Value = new("node-b") }, Orphan},
	} {
		for formatName, format := range formats {
			t.Run(name+" in "+formatName, func(t *testing.T) {
				w := windowOf(rowTo("node-b"), rowTo("node-c", func(r *Row) { r.Sent, r.Lost = 720, 3 }), rowTo("node-d"))
				families := Families(w)
				spoilt := make(map[string]*dto.Metric)
				for _, f := range families {
					for i, m := range f.Metric {
						if len(m.Label) > 1 && m.Label[1].GetValue() == "node-c" {
							f.Metric[i] = proto.Clone(m).(*dto.Metric) // series share their labels
							spoilt[f.GetName()] = f.Metric[i]
						}
					}
				}
				test.spoil(spoilt)
				got, dropped, err := decode(t, format, encode(t, format, families))
				if err != nil {
					t.Fatal(err)
				}
				want := Dropped{test.want: 1}
				if test.want == Orphan {
					want[Duplicate] = 1 // the round trips, which went to another peer
				}
				if diff := cmp.Diff(want, dropped); diff != "" {
					t.Errorf("dropped (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff([]string{"node-b", "node-d"}, peersOf(got)); diff != "" {
					t.Errorf("peers that are left (-want +got):\n%s", diff)
				}
			})
		}
	}
}

func peersOf(w Window) []string {
	var peers []string
	for _, row := range w.Rows {
		peers = append(peers, row.Peer)
	}
	return peers
}

func TestOfTwoRowsForAPeerTheFirstGoodOneCounts(t *testing.T) {
	for name, format := range formats {
		t.Run(name, func(t *testing.T) {
			families := Families(windowOf(rowTo("node-b")))
			rtt := families[1]
			first := rtt.Metric[0]
			impossible, later := proto.Clone(first).(*dto.Metric), proto.Clone(first).(*dto.Metric)
			*impossible.Summary.Quantile[0].Value = -1
			*later.Summary.Quantile[3].Value = 9
			rtt.Metric = []*dto.Metric{impossible, first, later}
			got, dropped, err := decode(t, format, encode(t, format, families))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(Dropped{Impossible: 1, Duplicate: 1}, dropped); diff != "" {
				t.Errorf("dropped (-want +got):\n%s", diff)
			}
			if len(got.Rows) != 1 || got.Rows[0].P99 != measured().P99 {
				t.Errorf("rows are %v, want the second one only", got.Rows)
			}
		})
	}
}

func TestWhatIsUnknownIsIgnored(t *testing.T) {
	for name, format := range formats {
		t.Run(name, func(t *testing.T) {
			families := Families(windowOf(rowTo("node-b")))
			want, _, err := decode(t, format, encode(t, format, families))
			if err != nil {
				t.Fatal(err)
			}
			row := families[1].Metric[0]
			row.Label = append(row.Label, label("path", "ecmp-3"))
			row.Summary.Quantile = append(row.Summary.Quantile, quantile(0.999, time.Hour))
			other := family("netlatency_window_jitter_seconds", dto.MetricType_GAUGE, "Of a later version.")
			other.Metric = []*dto.Metric{gauge([]*dto.LabelPair{label(LabelPeer, "node-b")}, 1)}
			got, dropped, err := decode(t, format, encode(t, format, append(families, other)))
			if err != nil {
				t.Fatal(err)
			}
			if dropped != nil {
				t.Errorf("dropped %v, want nothing", dropped)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("window (-without +with unknown parts):\n%s", diff)
			}
		})
	}
}

func TestAWindowOfNobodyIsAnError(t *testing.T) {
	nan := math.NaN()
	for name, test := range map[string]struct {
		spoil func(info *dto.MetricFamily)
		want  string
	}{
		"no info":                {func(f *dto.MetricFamily) { *f.Name = "another" }, "no netlatency_window_info"},
		"two infos":              {func(f *dto.MetricFamily) { f.Metric = append(f.Metric, f.Metric[0]) }, "2 series"},
		"no node":                {func(f *dto.MetricFamily) { *f.Metric[0].Label[0].Value = "" }, "names node"},
		"a node's name too long": {func(f *dto.MetricFamily) { *f.Metric[0].Label[0].Value = strings.Repeat("n", 254) }, "names node"},
		"no time":                {func(f *dto.MetricFamily) { f.Metric[0].Gauge.Value = &nan }, "gives time"},
		"a time before 1970":     {func(f *dto.MetricFamily) { *f.Metric[0].Gauge.Value = -1 }, "gives time"},
		"a time after 2262":      {func(f *dto.MetricFamily) { *f.Metric[0].Gauge.Value = 1e300 }, "gives time"},
	} {
		for formatName, format := range formats {
			t.Run(name+" in "+formatName, func(t *testing.T) {
				families := Families(windowOf(rowTo("node-b")))
				test.spoil(families[0])
				w, _, err := decode(t, format, encode(t, format, families))
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("error is %v, want one with %q", err, test.want)
				}
				if len(w.Rows) != 0 {
					t.Errorf("rows came with the error: %v", w.Rows)
				}
			})
		}
	}
}

func TestContentTypes(t *testing.T) {
	families := Families(windowOf(rowTo("node-b")))
	for contentType, test := range map[string]struct {
		body []byte
		ok   bool
	}{
		"application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited": {encode(t, formats["protobuf"], families), true},
		"text/plain; version=0.0.4; charset=utf-8; escaping=underscores":                               {encode(t, formats["text"], families), true},
		"text/plain": {encode(t, formats["text"], families), true},
		"application/openmetrics-text; version=1.0":                                               {encode(t, formats["text"], families), false},
		"application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=text": {nil, false},
		"text/html": {[]byte("<html>"), false},
		"":          {encode(t, formats["text"], families), false},
	} {
		t.Run(contentType, func(t *testing.T) {
			w, _, err := Decode(bytes.NewReader(test.body), contentType, Limits{}, readerNow)
			if (err == nil) != test.ok {
				t.Errorf("error is %v, want success %t", err, test.ok)
			}
			if test.ok && len(w.Rows) != 1 {
				t.Errorf("%d rows, want 1", len(w.Rows))
			}
		})
	}
}

func TestAnAnswerBeyondItsLimitsIsRefused(t *testing.T) {
	for name, format := range formats {
		// Two peers without loss: two series and the info.
		body := encode(t, format, Families(windowOf(rowTo("node-b"), rowTo("node-c"))))
		for _, test := range []struct {
			name   string
			limits Limits
			ok     bool
		}{
			{"just as many bytes", Limits{Bytes: int64(len(body))}, true},
			{"a byte too many", Limits{Bytes: int64(len(body)) - 1}, false},
			{"just as many series", Limits{Series: 3}, true},
			{"a series too many", Limits{Series: 2}, false},
		} {
			t.Run(test.name+" in "+name, func(t *testing.T) {
				_, _, err := Decode(bytes.NewReader(body), string(format), test.limits, readerNow)
				if test.ok && err != nil {
					t.Errorf("error is %v, want none", err)
				}
				if !test.ok && !errors.Is(err, ErrLimit) {
					t.Errorf("error is %v, want ErrLimit", err)
				}
			})
		}
		t.Run("an endless answer in "+name, func(t *testing.T) {
			endless := &counting{Reader: io.MultiReader(bytes.NewReader(body), zeros{})}
			if _, _, err := Decode(endless, string(format), Limits{Bytes: 1 << 16}, readerNow); !errors.Is(err, ErrLimit) {
				t.Errorf("error is %v, want ErrLimit", err)
			}
			if endless.n > 1<<16+1 {
				t.Errorf("read %d bytes beyond the limit", endless.n-1<<16)
			}
		})
	}
}

// A length prefix is only a claim: nothing may be allocated on its word.
func TestAHostileLengthCostsNothing(t *testing.T) {
	for name, length := range map[string]uint64{
		"just beyond the answer": 100,
		"a gigabyte":             1 << 30,
		"all of int64":           math.MaxInt64,
		"all of uint64":          math.MaxUint64,
	} {
		t.Run(name, func(t *testing.T) {
			body := append(binary.AppendUvarint(nil, length), make([]byte, 50)...)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, _, err := decode(t, formats["protobuf"], body)
			runtime.ReadMemStats(&after)
			if err == nil {
				t.Error("no error")
			}
			if allocated := after.TotalAlloc - before.TotalAlloc; allocated > 1<<16 {
				t.Errorf("%d bytes were allocated for an answer of %d", allocated, len(body))
			}
		})
	}
}

// An empty submessage is two bytes on the wire and a hundred as an object.
func TestEmptyPartsCostNoMoreThanTheirBytes(t *testing.T) {
	families := Families(windowOf(rowTo("node-b"), rowTo("node-c")))
	bloated := families[1].Metric[0]
	for range 50_000 {
		bloated.Summary.Quantile = append(bloated.Summary.Quantile, &dto.Quantile{})
		bloated.Label = append(bloated.Label, &dto.LabelPair{})
	}
	body := encode(t, formats["protobuf"], families)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	got, dropped, err := decode(t, formats["protobuf"], body)
	runtime.ReadMemStats(&after)
	if err != nil {
		t.Fatal(err)
	}
	// Reading all of it grows a buffer by a quarter at a time.
	if allocated := after.TotalAlloc - before.TotalAlloc; allocated > 8*uint64(len(body)) {
		t.Errorf("%d bytes were allocated for an answer of %d", allocated, len(body))
	}
	if diff := cmp.Diff(Dropped{Malformed: 1}, dropped); diff != "" {
		t.Errorf("dropped (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"node-c"}, peersOf(got)); diff != "" {
		t.Errorf("peers that are left (-want +got):\n%s", diff)
	}
}

// Inside a family every series has its own length: garbage in one leaves the
// others readable.
func TestGarbageInASeriesCostsOnlyThatSeries(t *testing.T) {
	families := Families(windowOf(rowTo("node-b"), rowTo("node-c"), rowTo("node-d")))
	body := encode(t, formats["protobuf"], families)
	good, err := proto.Marshal(families[1].Metric[1])
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		bad := bytes.Clone(good)
		for j := i; j < len(bad); j++ {
			bad[j] = 0xff
		}
		got, dropped, err := decode(t, formats["protobuf"], bytes.Replace(body, good, bad, 1))
		if err != nil {
			t.Fatalf("garbage from byte %d: %v", i, err)
		}
		if diff := cmp.Diff([]string{"node-b", "node-d"}, peersOf(got)); diff != "" {
			t.Errorf("garbage from byte %d: peers that are left (-want +got):\n%s", i, diff)
		}
		if diff := cmp.Diff(Dropped{Malformed: 1}, dropped); diff != "" {
			t.Errorf("garbage from byte %d: dropped (-want +got):\n%s", i, diff)
		}
	}
}

// A connection that breaks must not leave half a window, nor half a number.
func TestABrokenOffProtobufIsAnError(t *testing.T) {
	body := encode(t, formats["protobuf"], Families(windowOf(rowTo("node-b"), rowTo("node-c"))))
	whole := make(map[int]bool) // ends of messages
	for rest := body; len(rest) > 0; {
		whole[len(body)-len(rest)] = true
		size, n := binary.Uvarint(rest)
		rest = rest[n+int(size):]
	}
	for end := range body {
		if whole[end] {
			continue
		}
		if _, _, err := decode(t, formats["protobuf"], body[:end]); err == nil {
			t.Errorf("no error for the first %d of %d bytes", end, len(body))
		}
	}
}

func TestUnreadableLinesCostOnlyTheirRows(t *testing.T) {
	text := string(encode(t, formats["text"], Families(windowOf(rowTo("node-b"), rowTo("node-c"), rowTo("node-d")))))
	spoil := func(line string) string {
		return strings.Replace(text, `netlatency_window_rtt_seconds{method="udp",peer="node-c",quantile="0.5"}`, line, 1)
	}
	const row = 1 // node-c lacks its median
	for name, test := range map[string]struct {
		text    string
		dropped int
		peers   []string
	}{
		"a label without end":  {spoil(`netlatency_window_rtt_seconds{method="udp,peer=`), row + 1, []string{"node-b", "node-d"}},
		"no labels, no value":  {spoil("netlatency_window_rtt_seconds{} x"), row + 1, []string{"node-b", "node-d"}},
		"an endless line":      {spoil(`netlatency_window_rtt_seconds{peer="` + strings.Repeat("x", 5000) + `"}`), row + 1, []string{"node-b", "node-d"}},
		"a thousand labels":    {spoil(`netlatency_window_rtt_seconds{` + strings.Repeat(`a="",`, 1000) + `}`), row + 1, []string{"node-b", "node-d"}},
		"binary":               {spoil("netlatency_window_\xff\x00"), row + 1, []string{"node-b", "node-d"}},
		"a line of a stranger": {spoil("go_goroutines 1\n#"), row, []string{"node-b", "node-d"}},
		"broken off":           {strings.TrimSuffix(text, " 1789999996123\n"), row + 1, []string{"node-b", "node-c"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, dropped, err := decode(t, formats["text"], []byte(test.text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(Dropped{Malformed: test.dropped}, dropped); diff != "" {
				t.Errorf("dropped (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.peers, peersOf(got)); diff != "" {
				t.Errorf("peers that are left (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAFailingReaderIsAnError(t *testing.T) {
	broken := errors.New("connection reset")
	body := encode(t, formats["protobuf"], Families(windowOf(rowTo("node-b"))))
	_, _, err := Decode(io.MultiReader(bytes.NewReader(body), failing{broken}), string(formats["protobuf"]), Limits{}, readerNow)
	if !errors.Is(err, broken) || !errors.Is(err, ErrRead) {
		t.Errorf("error is %v, want ErrRead for %v", err, broken)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

type failing struct{ error }

func (f failing) Read([]byte) (int, error) { return 0, f.error }

type counting struct {
	io.Reader
	n int
}

func (c *counting) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.n += n
	return n, err
}

// FuzzDecode: whatever comes, Decode returns, and each row that it gives is
// one that it would take again.
func FuzzDecode(f *testing.F) {
	r := rand.New(rand.NewPCG(7, 7))
	for _, format := range slices.Sorted(maps.Values(formats)) {
		isProtobuf := format == formats["protobuf"]
		for _, w := range []Window{windowOf(), windowOf(rowTo("node-b")), randomWindow(r, 5)} {
			body := encode(f, format, Families(w))
			f.Add(isProtobuf, body)
			f.Add(isProtobuf, body[:len(body)/2])
			f.Add(isProtobuf, append(body, body...))
		}
	}
	f.Add(true, binary.AppendUvarint(nil, math.MaxUint64))
	f.Add(true, []byte{2, 0x22, 0})
	f.Add(false, []byte("netlatency_window_info{"))
	f.Add(false, []byte(`netlatency_window_info{node="a"} 1`+"\n"+`netlatency_window_rtt_seconds{quantile=""} NaN -1`+"\n"))
	f.Add(false, []byte(`netlatency_window_info{node="a"} 0x1p-2`+"\n{}\n"+`netlatency_window_{"}`+"\n"))
	f.Fuzz(func(t *testing.T, isProtobuf bool, body []byte) {
		format := formats["text"]
		if isProtobuf {
			format = formats["protobuf"]
		}
		w, dropped, err := decode(t, format, body)
		if err != nil {
			if w.Node != "" || w.Rows != nil || dropped != nil {
				t.Fatalf("a window came with the error %v", err)
			}
			return
		}
		for reason, n := range dropped {
			if n < 1 || reason == "" {
				t.Fatalf("dropped %d for %q", n, reason)
			}
		}
		for i := range w.Rows {
			if w.Rows[i].Newest.After(readerNow) {
				t.Fatalf("row %v is newer than its arrival", w.Rows[i])
			}
			// Back onto the agent's clock, which may be at the start of time.
			w.Rows[i].Newest = w.Now.Add(w.Rows[i].Newest.Sub(readerNow))
		}
		again, dropped, err := decode(t, expfmt.NewFormat(expfmt.TypeProtoDelim), encode(t, formats["protobuf"], Families(w)))
		if err != nil || dropped != nil || len(again.Rows) != len(w.Rows) {
			t.Fatalf("of %d rows %d were taken again; dropped %v, error %v", len(w.Rows), len(again.Rows), dropped, err)
		}
	})
}
