package container

import (
	"fmt"
	"slices"
	"strings"
)

// names of the capabilities by number, linux/capability.h.
var names = []string{
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE",
	"NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO",
	"SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME",
	"SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG",
	"WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE",
}

// runtimeDefault is what CRI-O leaves a container that says nothing
// (cri-o/pkg/config default_capabilities). containerd leaves five more, so
// what works here works there.
var runtimeDefault = []string{
	"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "NET_BIND_SERVICE",
}

// Capabilities is the bounding set of a container whose security context
// drops and adds the named capabilities ("ALL" is all of them), starting from
// what container runtimes leave by default. Adding wins over dropping ALL, as
// in the CRI.
func Capabilities(drop, add []string) ([]string, error) {
	var kept []string
	for _, name := range names {
		byDefault := slices.Contains(runtimeDefault, name) && !has(drop, name) && !has(drop, "ALL")
		if byDefault || (has(add, name) || has(add, "ALL")) && !has(drop, name) {
			kept = append(kept, name)
		}
	}
	for _, name := range slices.Concat(drop, add) {
		if bare := bare(name); bare != "ALL" && !slices.Contains(names, bare) {
			return nil, fmt.Errorf("unknown capability %q", name)
		}
	}
	return kept, nil
}

func has(list []string, name string) bool {
	return slices.ContainsFunc(list, func(s string) bool { return bare(s) == name })
}

func bare(name string) string {
	return strings.TrimPrefix(strings.ToUpper(name), "CAP_")
}
