// Package probe measures round-trip times to peers well: the UDP two-way
// method in the manner of STAMP (RFC 8762), with kernel time stamps.
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
// # One port
//
// A UDP carries both directions of the method on one port: the requests of
// peers, which it answers with its Reflector, and the replies to its own
// probes. So one port is enough in a network policy, and a node has the same
// path as prober and as reflector. Every packet that leaves, request or reply,
// takes one number in the sequence of transmit stamps, under one lock. A node
// with addresses of both families opens one UDP for each, and shares one
// Reflector between them so that its limits hold in total.
//
// All peers share the sockets, whatever their number. Everything is received
// on one socket; what is sent goes through a second one with the same address,
// for the sake of the transmit stamp (see openSender).
//
// # Ownership
//
// One goroutine, in [UDP.Run], receives, answers, matches and calls
// [UDPOptions.Outcome]; any goroutine may Send, Forget or read Counters. A
// mutex in UDP guards the prober's state and the sending side of the sockets;
// Reflector has its own, always taken second. Outcome is called without a
// lock held.
package probe
