package namespace

import (
	"fmt"
	"os"
	"os/exec"
)

// roleVariable tells a re-executed copy of the program what it is. It is taken
// out of the environment before any other code can pass it on.
const roleVariable = "NETLATENCY_SANDBOX_ROLE"

const (
	roleInit = "init"
	roleMain = "main"
)

// Descriptors that a copy of the program inherits, after the standard three.
const (
	listenerDescriptor = 3 // init and main: the host side's listening socket
	signalDescriptor   = 4 // init: outer's pipe of signal numbers; its end means that outer is gone
)

var roles = map[string]func() int{}

// Role registers what a copy of the program started with Command(name) does
// instead of the program's own work; the process exits with the returned code.
// Call it from an init function, so that it is known when Enter runs. A name
// registered twice is a programming error and panics.
func Role(name string, run func() int) {
	if _, taken := roles[name]; taken || name == roleInit || name == roleMain {
		panic(fmt.Sprintf("namespace: role %q registered twice", name))
	}
	roles[name] = run
}

// Command is this program again, in the given role, with the given arguments
// from os.Args[1] on. It starts in the caller's namespaces; use Network.Start to
// start it elsewhere. It shares the caller's process group, so a Ctrl-C reaches
// it too, unless SysProcAttr says otherwise. It ends with the sandbox.
func Command(role string, args ...string) *exec.Cmd {
	// The link stays good when the file was replaced by a newer build meanwhile.
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	return cmd
}

// Enter moves the program into a sandbox. Call it before anything else in main
// or TestMain: the first process of the program never returns from it, it waits
// for the copy inside and exits with its code. Arguments, environment, working
// directory and standard streams are the same inside. Copies in a role
// registered with Role do not return either. A second call does nothing.
//
// When the sandbox cannot be made, Enter says why and what to do on standard
// error and exits with code 1.
func Enter() {
	if inside != nil {
		return
	}
	role := os.Getenv(roleVariable)
	os.Unsetenv(roleVariable)
	switch role {
	case "":
		exit(runOuter())
	case roleInit:
		exit(runInit())
	case roleMain:
		entered, err := openSandbox()
		if err != nil {
			exit(1, err)
		}
		inside = entered
	default:
		run, known := roles[role]
		if !known {
			exit(1, fmt.Errorf("this program has no role %q: unset %s", role, roleVariable))
		}
		os.Exit(run())
	}
}

// Outside reports whether this is the program's first process, which Enter will
// turn into the one that waits. What needs the host's network, a build that
// downloads modules for instance, is done there, before Enter.
func Outside() bool { return inside == nil && os.Getenv(roleVariable) == "" }

func exit(code int, err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "sandbox:", err)
	}
	os.Exit(code)
}
