// Package ui serves the page of "kubectl netlatency ui": what the agents
// measure, where targets and those who want to be near them are, and why pods
// are where they are. It only reads.
//
// Whoever watches a cluster gives a Server one Snapshot after the other; the
// page asks for what has changed. The page itself is made of web/ and is
// embedded, so that building it takes no Node.
package ui
