// Package agent is the probe agent of one node: it finds the agents of the
// other nodes, plans when to probe whom, keeps the round trips of the last
// minutes per peer, and serves them.
//
// Who owns what:
//
//	discovery (informer) ── wakes ──▶ run loop ── owns plan, writes pairs
//	                                     │ Send
//	                                     ▼
//	                                probe engine ── Outcome ──▶ window of the pair, histogram
//	                                                                  ▲
//	                           HTTP handlers ─────────── read ────────┘
//
// The run loop is one goroutine and the only one that adds and removes pairs.
// A pair's window has its own lock, because outcomes and readers come from
// other goroutines.
package agent
