// Package application stands in for what runs on the cluster: small TCP
// servers for Qdrant and the GPU service, and clients that search from where
// the Ray workers landed. Every request and reply is one segment that starts
// with a tag, by which the log of the sandbox's WAN names it; so the
// network's part of a search is known apart from the noise of the machine.
package application
