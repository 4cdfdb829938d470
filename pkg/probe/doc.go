// Package probe measures round-trip times to peers well, with kernel time
// stamps: by the UDP two-way method in the manner of STAMP (RFC 8762), and by
// ICMP echo.
//
// # Method
//
// A request leaves at t1 and reaches the reflector at t2; the reply leaves at
// t3 and returns at t4. The round trip is (t4-t1)-(t3-t2), so the time that
// the reflector took is not in it, and the clocks of the two nodes need not
// agree. All four are stamps of the kernel where it gives them, taken at the
// edge of the network device: what the scheduler, the garbage collector and
// CPU limits do to the agent stays outside of the measurement. The kernel
// stamp t3 of a reply exists only after the reply has left, hence it comes
// with the next reply of the same session, and a sample is held until then.
//
// An echo is answered by the peer's kernel, where nobody needs to run. It has
// t1 and t4 alone, and what that kernel took is in the round trip.
//
// # Engines
//
// [UDP] and [ICMP] are two protocols on one engine, which sends in batches,
// numbers transmit stamps and collects them, and matches replies with requests
// in a prober. Stamps make it indifferent when a packet is read: after some
// were, an engine rests for a few milliseconds, so that what it costs to wake
// is shared by all that come meanwhile.
//
// [TCP] and [Portable] have the same lifecycle, for where neither passes: TCP has
// the kernel's own measurement of a handshake, and Portable what the process
// reads, where the kernel stamps nothing.
//
// # One port
//
// A UDP carries both directions of the method on one port: the requests of
// peers, which it answers with its Reflector, and the replies to its own
// probes. So one port is enough in a network policy, and a node has the same
// path as prober and as reflector. Some of its probes leave from other ports,
// for the sake of paths that are chosen by port (see [UDPOptions.Ports]); they
// too go to that one port, and their replies belong to the same connection. A
// node with addresses of both families opens one UDP for each, and shares one
// Reflector between them so that its limits hold in total.
//
// All peers share the sockets, whatever their number. Every address and port
// has two: everything is received on one, what is sent goes through the other,
// for the sake of the transmit stamp (see openSender). Every packet that leaves
// from a port, request or reply, takes one number in the sequence of its
// transmit stamps, under one lock.
//
// # Ownership
//
// One goroutine, in Run, receives, answers, matches and calls Outcome; any
// goroutine may Send, SendBatch, Forget or read Counters. That, and how it
// begins and ends, is one lifecycle for all methods. Its mutex guards the state
// of probes and the sending side of the sockets; Reflector has its own, always
// taken second. Outcome is called without a lock held.
package probe
