package probe

import (
	"encoding/binary"
	"net"
	"slices"
	"testing"
	"time"
)

// BenchmarkUserRoundTrip is what BenchmarkUDPRoundTrip is measured against: the
// same exchange of four times over the same interface, but each is read by the
// process beside its system call, as a prober does that is made of Go's net
// package. The round trips are again the error that the method adds.
func BenchmarkUserRoundTrip(b *testing.B) {
	start := time.Now()
	now := func() int64 { return int64(time.Since(start)) }

	reflector, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(loopback4))
	if err != nil {
		b.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		packet := make([]byte, MinSize)
		for {
			n, from, err := reflector.ReadFromUDPAddrPort(packet)
			if err != nil {
				return
			}
			binary.BigEndian.PutUint64(packet, uint64(now()))
			binary.BigEndian.PutUint64(packet[8:], uint64(now()))
			if _, err := reflector.WriteToUDPAddrPort(packet[:n], from); err != nil {
				return
			}
		}
	}()
	b.Cleanup(func() {
		reflector.Close()
		<-ended
	})
	prober, err := net.DialUDP("udp4", nil, reflector.LocalAddr().(*net.UDPAddr))
	if err != nil {
		b.Fatal(err)
	}
	defer prober.Close()

	packet := make([]byte, MinSize)
	rtts := make([]time.Duration, 0, 1<<20)
	b.ReportAllocs()
	for b.Loop() {
		t1 := now()
		if _, err := prober.Write(packet); err != nil {
			b.Fatal(err)
		}
		if err := prober.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
			b.Fatal(err)
		}
		if _, err := prober.Read(packet); err != nil {
			b.Fatal(err)
		}
		t4 := now()
		t2, t3 := int64(binary.BigEndian.Uint64(packet)), int64(binary.BigEndian.Uint64(packet[8:]))
		if len(rtts) < cap(rtts) {
			rtts = append(rtts, time.Duration(t4-t1-(t3-t2)))
		}
	}
	slices.Sort(rtts)
	b.ReportMetric(float64(rtts[len(rtts)/2])/1e3, "p50-µs")
	b.ReportMetric(float64(rtts[len(rtts)*99/100])/1e3, "p99-µs")
}
