package container

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestABoundingSetIsTheRuntimesLessDroppedPlusAdded(t *testing.T) {
	byDefault := "CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE"
	for _, test := range []struct {
		name, drop, add, want string
	}{
		{"nothing said", "", "", byDefault},
		{"all dropped, as Pod Security restricted demands", "ALL", "", ""},
		{"all dropped, one added", "ALL", "NET_BIND_SERVICE", "NET_BIND_SERVICE"},
		{"one dropped", "CHOWN", "", strings.TrimPrefix(byDefault, "CHOWN ")},
		{"one added", "", "NET_RAW", byDefault + " NET_RAW"},
		{"one dropped and added", "KILL", "KILL", strings.Replace(byDefault, "KILL ", "", 1)},
		{"all added", "", "ALL", strings.Join(names, " ")},
		{"names in lower case and with their prefix", "all", "CAP_NET_RAW", "NET_RAW"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := Capabilities(strings.Fields(test.drop), strings.Fields(test.add))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, strings.Join(got, " ")); diff != "" {
				t.Error(diff)
			}
		})
	}
	if _, err := Capabilities([]string{"NET_ROW"}, nil); err == nil {
		t.Error("an unknown capability is no error")
	}
}
