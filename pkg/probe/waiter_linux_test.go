package probe

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAWaiterThatCannotBeMadeIsAnErrorAndLeavesNothing(t *testing.T) {
	before := descriptors(t)
	if _, err := newWaiter([]int{-1}); !errors.Is(err, unix.EBADF) {
		t.Errorf("error %v, want %v", err, unix.EBADF)
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors are open, want %d as before", after, before)
	}
}
