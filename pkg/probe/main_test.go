package probe

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	os.Exit(inLab(func() int {
		// The kernel stamps what arrives only while some socket asks for it,
		// and starts to a moment after the first one did. Here sockets come
		// and go with every test, so one is kept open for all of them.
		if runtime.GOOS == "linux" {
			if err := keepStamping(); err != nil {
				fmt.Fprintln(os.Stderr, "This machine does not stamp packets:", err)
			}
		}
		return m.Run()
	}))
}

func keepStamping() error {
	stamped := make(chan Outcome, 1000)
	u, err := ListenUDP(context.Background(), netip.MustParseAddrPort("127.0.0.1:0"), UDPOptions{
		Timeout:   100 * time.Millisecond,
		Outcome:   func(o Outcome) { stamped <- o },
		Reflector: NewReflector(ReflectorOptions{}),
	})
	if err != nil {
		return err
	}
	go u.Run(context.Background())
	for range 100 {
		if err := u.Send(Probe{Peer: u.LocalAddr(), Size: MinSize}); err != nil {
			return err
		}
		<-stamped
		if missing := u.Counters().Missing; missing["t4"] == 0 || missing["t3"] > missing["t4"] {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("100 packets without a receive stamp: %+v", u.Counters())
}
