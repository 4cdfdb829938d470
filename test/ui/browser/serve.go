package browser

import (
	"context"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/netlatency/netlatency/pkg/cli"
)

// Serve runs "kubectl netlatency ui" with args until the test ends, and returns
// the URL that it prints.
func Serve(t *testing.T, args ...string) string {
	t.Helper()
	out, in := io.Pipe()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	c := cli.NewCommand(genericiooptions.IOStreams{In: strings.NewReader(""), Out: in, ErrOut: os.Stderr})
	c.SetArgs(append([]string{"ui"}, args...))
	go func() {
		err := c.ExecuteContext(ctx)
		in.CloseWithError(fmt.Errorf("it ended: %w", err))
		ended <- err
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("kubectl netlatency ui ended with %v", err)
		}
	})
	line := make([]byte, 256)
	n, err := out.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	url := regexp.MustCompile(`http://\S+`).FindString(string(line[:n]))
	if url == "" {
		t.Fatalf("it printed %q, and no URL", line[:n])
	}
	return url
}
