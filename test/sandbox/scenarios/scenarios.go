// Package scenarios holds the scenarios that the project ships.
package scenarios

import "embed"

// Files are the shipped scenarios, <name>.yaml each, and the JSON schema of
// scenario files.
//
//go:embed *.yaml scenario.schema.json
var Files embed.FS
