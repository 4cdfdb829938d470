// Package container runs one program the way a container runtime runs a
// pod's container: as PID 1 of its own pid, mount, IPC and UTS namespaces,
// in a network namespace that is given, in a root of its own that holds
// nothing but what the pod mounts, under the pod's user and without the
// capabilities the pod gives up.
//
// It needs no daemon and no root. The program starts itself again in a role of
// package namespace, so a program that calls namespace.Enter needs nothing
// else; that copy builds the root, gives up its privileges and becomes the
// container by exec. Where the user namespace that it is started
// from does not know the pod's user (an ordinary user maps only its own id),
// a nested one maps that single id.
//
// Not enforced: resource limits (no cgroup is made), seccomp and AppArmor
// profiles.
package container
