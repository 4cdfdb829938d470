// Package wan is the wide area network between the sandbox's nodes: a process
// that takes every packet which leaves a node's eth0, holds it for the delay of
// its link, and puts it into the other node, or drops it.
//
// Nothing but the delay is simulated. ICMP, UDP and TCP are the kernel's own,
// and so are the stamps: a packet's delay begins with the kernel's receive stamp
// at the WAN's end of the sender's veth pair. A queue ordered by deadline is
// served by one thread, which sleeps until shortly before the next deadline and
// spins for the rest, under SCHED_FIFO where that is permitted.
//
// What the WAN did is on record. For every packet that carries one of the
// sandbox's identities (a probe, or a message of the stand-in applications) the
// log says when the kernel received it and when the kernel transmitted it again.
// That, not the delay asked for, is the truth that measurements are held against.
package wan
