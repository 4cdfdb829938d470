package cli

import (
	"fmt"
	"sync"
	"time"
)

// A person who waits longer than this wants to know for what.
const silence = 2 * time.Second

// progress says what is being done if that takes long, until the function that
// it returns is called.
func (o *options) progress(what string) (done func()) {
	var mu sync.Mutex
	ended := false
	timer := time.AfterFunc(silence, func() {
		mu.Lock()
		defer mu.Unlock()
		if !ended {
			fmt.Fprintln(o.ErrOut, what+" ...")
		}
	})
	return func() {
		timer.Stop()
		mu.Lock()
		defer mu.Unlock()
		ended = true
	}
}
