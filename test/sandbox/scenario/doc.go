// Package scenario is the script of a sandbox: which providers and nodes
// there are, what the network between them is like and how it changes, which
// applications run where, and how the workers burst. It is read from a YAML
// file (docs/sandbox.md); the package is pure and starts nothing.
package scenario
