package source

import (
	"fmt"
	"io"
	"time"
	"unicode/utf8"
)

const (
	// maxAge bounds ages: older is a fault, and would overflow elsewhere.
	maxAge = 365 * 24 * time.Hour
	// maxNameBytes is the longest name that Kubernetes gives a node.
	maxNameBytes = 253
	// maxMethodBytes is far more than any method's name.
	maxMethodBytes = 63
)

// validName says what is wrong with the name of a node.
func validName(field, name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%s is empty: want the name of a node", field)
	case len(name) > maxNameBytes:
		return fmt.Errorf("%s has %d bytes: the name of a node has at most %d", field, len(name), maxNameBytes)
	case !utf8.ValidString(name):
		return fmt.Errorf("%s is not UTF-8", field)
	}
	return nil
}

// bounded reads from r and fails with err, unlike io.LimitReader, beyond left
// bytes.
type bounded struct {
	r    io.Reader
	left int64
	err  error
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p[:min(int64(len(p)), b.left+1)])
	if b.left -= int64(n); b.left < 0 {
		return 0, b.err
	}
	return n, err
}

// nameTable keeps one string of each name, of the many that are read.
type nameTable map[string]string

func (n nameTable) shared(name string) string {
	if one, ok := n[name]; ok {
		return one
	}
	n[name] = name
	return name
}
