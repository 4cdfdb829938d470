// Command scenario-schema writes the JSON schema of the sandbox's scenario
// files, made from the Go types and their comments, to standard output.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"

	"github.com/invopop/jsonschema"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/netlatency/netlatency/test/sandbox/scenario"
)

const (
	module  = "github.com/netlatency/netlatency"
	sources = "./test/sandbox/scenario"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "scenario-schema:", err)
		os.Exit(1)
	}
}

func run() error {
	reflector := &jsonschema.Reflector{Mapper: kubernetesTypes}
	if err := reflector.AddGoComments(module, sources); err != nil {
		return fmt.Errorf("read comments (run it at the root of the repository): %w", err)
	}
	schema := reflector.Reflect(&scenario.Scenario{})
	schema.Title = "Scenario of the netlatency sandbox"
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", "  ")
	return out.Encode(schema)
}

// kubernetesTypes describes the types that encode themselves.
func kubernetesTypes(t reflect.Type) *jsonschema.Schema {
	switch t {
	case reflect.TypeFor[metav1.Duration]():
		return &jsonschema.Schema{Type: "string", Pattern: `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$|^0$`, Description: "A duration with its unit, for instance 500us or 2.5ms."}
	case reflect.TypeFor[resource.Quantity]():
		return &jsonschema.Schema{OneOf: []*jsonschema.Schema{{Type: "string"}, {Type: "number"}}, Description: "A quantity as Kubernetes writes it, for instance 24, 500m or 96Gi."}
	}
	return nil
}
