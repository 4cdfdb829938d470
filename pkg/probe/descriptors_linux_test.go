package probe

import (
	"errors"
	"io"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// However many are to be had: it is opened or an error says so, and what was
// opened in between is closed.
func TestALackOfDescriptorsIsAnErrorAndLeavesNoneOpen(t *testing.T) {
	hasICMP(t)
	for name, open := range map[string]func() (io.Closer, error){
		"UDP": func() (io.Closer, error) {
			return ListenUDP(t.Context(), loopback4, UDPOptions{Timeout: time.Second, Outcome: func(Outcome) {}})
		},
		"ICMP": func() (io.Closer, error) {
			return ListenICMP(t.Context(), loopback4.Addr(), ICMPOptions{Timeout: time.Second})
		},
		"TCP": func() (io.Closer, error) {
			return OpenTCP(t.Context(), loopback4.Addr(), TCPOptions{Timeout: time.Second})
		},
	} {
		t.Run(name, func(t *testing.T) {
			var before unix.Rlimit
			if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
				t.Fatal(err)
			}
			first, err := unix.Dup(0) // the first that is free
			if err != nil {
				t.Fatal(err)
			}
			unix.Close(first)
			opened := descriptors(t)
			for spare := range uint64(12) {
				few := before
				few.Cur = uint64(first) + spare
				if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
					t.Fatal(err)
				}
				c, err := open()
				if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
					t.Fatal(err)
				}
				switch {
				case err == nil:
					c.Close()
				case spare == 11 || !errors.Is(err, unix.EMFILE):
					t.Errorf("with %d descriptors: %v", spare, err)
				}
				if spare == 0 && err == nil {
					t.Error("without a descriptor: no error")
				}
				if now := descriptors(t); now != opened {
					t.Errorf("with %d descriptors: %d are open, want %d as before", spare, now, opened)
				}
			}
		})
	}
}
