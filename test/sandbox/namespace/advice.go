package namespace

import "strings"

// userNamespaceSettings are the switches by which distributions close user
// namespaces to ordinary users, and what each must say to open them.
var userNamespaceSettings = []struct{ file, closed, remedy string }{
	{"/proc/sys/user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000"},
	{"/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1 (Debian)"},
	{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu 23.10 and later)"},
}

// advice says what an ordinary user has to ask for on this machine.
func advice(readFile func(string) ([]byte, error)) string {
	var remedies []string
	for _, setting := range userNamespaceSettings {
		value, err := readFile(setting.file)
		if err == nil && strings.TrimSpace(string(value)) == setting.closed {
			remedies = append(remedies, setting.remedy)
		}
	}
	if len(remedies) == 0 {
		return "the sandbox needs user namespaces or root, and here something else refuses them, such as a container's seccomp profile: run it as root, or outside the container"
	}
	return "the sandbox needs user namespaces or root: run it as root, or enable them with " + strings.Join(remedies, " and ")
}
