// Package namespace gives a program a machine of its own: fresh PID, mount,
// network, IPC and UTS namespaces (and a user namespace when it is not started
// by root), with a network namespace for each node of the sandbox's cluster.
//
// Enter makes three processes of one program by executing it again:
//
//	outer   in the host's namespaces: owns nothing, waits, passes signals on
//	init    PID 1 inside: private /proc and /dev/shm, reaps orphans
//	main    what the program was written to do; Enter returns only here
//
// Nothing outlives them. Whichever is killed, also by SIGKILL, takes the others
// along (the parent death signal outside, PID 1's death inside), the kernel ends
// every other process of the PID namespace, and with the last process go the
// mounts and the network namespaces. No name is ever made on the host, so that
// any number of sandboxes run side by side.
//
// Inside, the control side (where main runs) is 10.251.0.1 on a bridge. Node i
// has eth0 with 10.250.0.(i+1), whose only way out is the WAN (package wan), and
// mgmt0 with 10.251.0.(i+2) on the bridge, for the traffic between a node and
// the control plane, which the WAN must not delay.
package namespace
