package scenario

import (
	"errors"
	"fmt"
	"os"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// maxBytes bounds a scenario file: 64 nodes described one by one take a
// fraction of it.
const maxBytes = 1 << 20

// Load reads and checks the scenario file at path.
func Load(path string) (*Scenario, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read scenario: %w", err)
	}
	s, err := Decode(data)
	if err != nil {
		return nil, fmt.Errorf("scenario %s: %w", path, err)
	}
	return s, nil
}

// Decode reads a scenario strictly, fills in the defaults and checks it. An
// unknown field is an error that names it, and all faults are reported at
// once, each with its field path.
func Decode(data []byte) (*Scenario, error) {
	if len(data) > maxBytes {
		return nil, fmt.Errorf("is %d bytes long: want at most %d", len(data), maxBytes)
	}
	s := &Scenario{}
	asJSON, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return nil, err
	}
	// The strict decoder of Kubernetes names a field by its whole path.
	strict, err := json.UnmarshalStrict(asJSON, s)
	if err := errors.Join(append(strict, err)...); err != nil {
		return nil, err
	}
	s.setDefaults()
	if errs := s.validate(); len(errs) > 0 {
		return nil, errs.ToAggregate()
	}
	return s, nil
}

func (s *Scenario) setDefaults() {
	if s.Probe.Interval.Duration == 0 {
		s.Probe.Interval = metav1.Duration{Duration: DefaultProbeInterval}
	}
	if s.Probe.Window.Duration == 0 {
		s.Probe.Window = metav1.Duration{Duration: DefaultProbeWindow}
	}
	if s.Applications.GPU.Port == 0 {
		s.Applications.GPU.Port = DefaultGPUPort
	}
}
