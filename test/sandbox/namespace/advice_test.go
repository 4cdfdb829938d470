package namespace

import (
	"os"
	"strings"
	"testing"
)

func TestAdviceNamesTheSwitchThatIsClosed(t *testing.T) {
	const (
		limit    = "/proc/sys/user/max_user_namespaces"
		debian   = "/proc/sys/kernel/unprivileged_userns_clone"
		apparmor = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"
	)
	tests := []struct {
		name     string
		settings map[string]string
		want     []string
	}{
		{"a limit of none", map[string]string{limit: "0\n"}, []string{"user.max_user_namespaces=15000"}},
		{"Debian's switch", map[string]string{limit: "9000\n", debian: "0\n"}, []string{"unprivileged_userns_clone=1"}},
		{"Ubuntu's AppArmor", map[string]string{debian: "1\n", apparmor: "1\n"}, []string{"apparmor_restrict_unprivileged_userns=0"}},
		{"two at once", map[string]string{limit: "0\n", apparmor: "1\n"}, []string{"user.max_user_namespaces", "apparmor_restrict_unprivileged_userns"}},
		{"none of them", map[string]string{limit: "9000\n", debian: "1\n", apparmor: "0\n"}, []string{"seccomp", "root"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := advice(func(file string) ([]byte, error) {
				value, ok := test.settings[file]
				if !ok {
					return nil, os.ErrNotExist
				}
				return []byte(value), nil
			})
			for _, want := range test.want {
				if !strings.Contains(got, want) {
					t.Errorf("%q does not say %q", got, want)
				}
			}
			if len(test.settings) > 0 && strings.Contains(got, "seccomp") != (test.name == "none of them") {
				t.Errorf("%q blames something else", got)
			}
		})
	}
}
