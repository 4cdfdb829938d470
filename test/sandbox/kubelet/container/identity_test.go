package container

import (
	"strings"
	"testing"
)

func TestAnIdIsMappedWhenALineOfTheMapHoldsIt(t *testing.T) {
	for _, test := range []struct {
		name, idMap string
		id          int
		want        bool
	}{
		{"the machine's own user namespace knows every id", "         0          0 4294967295\n", 65532, true},
		{"an ordinary user's knows its root", "         0       1000          1\n", 0, true},
		{"an ordinary user's knows nobody else", "         0       1000          1\n", 65532, false},
		{"the last id of a range", "0 1000 1\n1 100000 65532\n", 65532, true},
		{"the first id after a range", "0 1000 1\n1 100000 65531\n", 65532, false},
		{"a namespace whose map is not written yet", "", 0, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got, err := mapped(strings.NewReader(test.idMap), test.id); got != test.want || err != nil {
				t.Errorf("got %t, %v", got, err)
			}
		})
	}
}

func FuzzIdMap(f *testing.F) {
	f.Add("0 0 4294967295\n", 65532)
	f.Add("0 1000 1\n1 100000 65536\n", 1)
	f.Add("x", 0)
	f.Fuzz(func(t *testing.T, idMap string, id int) {
		if known, err := mapped(strings.NewReader(idMap), id); known && err != nil {
			t.Errorf("known and in error: %v", err)
		}
	})
}
