package container

import "testing"

func TestPingGroupsAreThoseOfTheUserNamespace(t *testing.T) {
	for _, test := range []struct {
		name, value string
		hostGID     int
		want        string
	}{
		{"as root they are the pod's", "65532 65532", 65532, "65532 65532"},
		{"an ordinary user's only group stands for the pod's", "65532 65532", 0, "0 0"},
		{"also in a wider range", "0\t2147483647", 0, "0 0"},
		{"a range without the pod's group stays closed to it", "0 1000", 0, "1 0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got, err := pingGroupRange(test.value, 65532, test.hostGID); got != test.want || err != nil {
				t.Errorf("got %q, %v, want %q", got, err, test.want)
			}
		})
	}
}

func FuzzPingGroupRange(f *testing.F) {
	f.Add("65532 65532", 0)
	f.Add("1", 65532)
	f.Fuzz(func(t *testing.T, value string, hostGID int) {
		if got, err := pingGroupRange(value, 65532, hostGID); err == nil {
			if again, err := pingGroupRange(got, hostGID, hostGID); again != got || err != nil {
				t.Errorf("%q is written as %q, which reads as %q, %v", value, got, again, err)
			}
		}
	})
}
