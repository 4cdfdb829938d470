package netlatency

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/netlatency/netlatency/apis/config"
	"github.com/netlatency/netlatency/apis/config/validation"
)

// nearAnnotation says on a pod what it wants to be near, in place of the rules.
const nearAnnotation = "netlatency.io/near"

// What an annotation may have, so that nobody's pod makes the scheduler work.
const (
	maxNearBytes   = 2048
	maxNearTargets = 16
)

// near is what an annotation says. Targets in the pod's own namespace have
// none yet.
type near struct {
	targets []config.Target
	shared  []string // labels of which targets have the values of the pod
	fault   error
}

// parse is the meaning of an annotation. Each text is parsed once.
func (ds *demands) parse(text string) *near {
	if known, ok := ds.texts.Get(text); ok {
		return known.(*near)
	}
	n := &near{}
	n.targets, n.fault = parseNear(text, ds.args.Targets)
	n.shared = sharedLabels(n.targets)
	if len(text) <= maxNearBytes {
		ds.texts.Add(text, n)
	}
	return n
}

// parseNear reads
//
//	near   = "none" / target *( ";" target )
//	target = what *( SP option )
//	what   = name / "pods(" selector ")" / "nodes(" selector ")" /
//	         "resource(" name ")" / "service(" [ namespace "/" ] name ")"
//	option = key "=" value
//
// where a name is that of one of the targets known, and selectors are written
// as for kubectl. docs/configuration.md has the options.
func parseNear(text string, known []config.Target) ([]config.Target, error) {
	if len(text) > maxNearBytes {
		return nil, fmt.Errorf("it has %d bytes; at most %d are read", len(text), maxNearBytes)
	}
	switch strings.TrimSpace(text) {
	case "none":
		return nil, nil
	case "":
		return nil, errors.New(`it is empty; name targets, as in "qdrant; pods(app=redis) weight=2", or say none`)
	}
	var targets []config.Target
	for _, part := range split(text, ';') {
		t, err := parseTarget(part, known)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(targets, func(other config.Target) bool { return other.Name == t.Name }) {
			return nil, fmt.Errorf("%s is named twice; give it once, with a weight", t.Name)
		}
		if targets = append(targets, t); len(targets) > maxNearTargets {
			return nil, fmt.Errorf("it names more than %d targets", maxNearTargets)
		}
	}
	return targets, nil
}

// split cuts text at separators that are not within parentheses.
func split(text string, separator byte) []string {
	var parts []string
	depth, from := 0, 0
	for i := range len(text) {
		switch text[i] {
		case '(':
			depth++
		case ')':
			depth--
		case separator:
			if depth <= 0 {
				parts = append(parts, text[from:i])
				from = i + 1
			}
		}
	}
	return append(parts, text[from:])
}

func parseTarget(text string, known []config.Target) (config.Target, error) {
	words := slices.DeleteFunc(split(strings.TrimSpace(text), ' '), func(word string) bool { return word == "" })
	if len(words) == 0 {
		return config.Target{}, errors.New("a target is empty; remove the semicolon before or after it")
	}
	t, err := parseWhat(words[0], known)
	if err != nil {
		return config.Target{}, err
	}
	seen := make(map[string]bool)
	for _, option := range words[1:] {
		key, value, ok := strings.Cut(option, "=")
		if !ok || value == "" {
			return config.Target{}, fmt.Errorf("%s: %q is no option; options are %s, as in weight=2", t.Name, option, strings.Join(options, ", "))
		}
		if seen[key] {
			return config.Target{}, fmt.Errorf("%s: %s is given twice", t.Name, key)
		}
		seen[key] = true
		if err := setOption(&t, key, value); err != nil {
			return config.Target{}, fmt.Errorf("%s: %w", t.Name, err)
		}
	}
	if t.MaxRTT != nil && t.WhenUnknown == "" {
		t.WhenUnknown = config.UnknownAllow
	}
	checked := t
	if t.Service != nil && t.Service.Namespace == "" {
		checked.Service = &config.ServiceTarget{Namespace: "own", Name: t.Service.Name}
	}
	if faults := validation.ValidateTarget(field.NewPath(t.Name), checked); len(faults) > 0 {
		return config.Target{}, faults[0]
	}
	return t, nil
}

func parseWhat(what string, known []config.Target) (config.Target, error) {
	kind, rest, isSelection := strings.Cut(what, "(")
	if !isSelection {
		i := slices.IndexFunc(known, func(t config.Target) bool { return t.Name == what })
		if i < 0 {
			names := make([]string, 0, len(known))
			for _, t := range known {
				names = append(names, t.Name)
			}
			return config.Target{}, fmt.Errorf("there is no target %q; the configuration has %s, others are written as pods(...), nodes(...), resource(...) or service(...)", what, listed(names))
		}
		return *known[i].DeepCopy(), nil
	}
	inner, closed := strings.CutSuffix(rest, ")")
	if !closed {
		return config.Target{}, fmt.Errorf("%s lacks its closing parenthesis", what)
	}
	t := config.Target{Name: what, Weight: 1, Aggregation: config.AggregationMean}
	switch kind {
	case "pods", "nodes":
		selector, err := metav1.ParseToLabelSelector(inner)
		if err != nil {
			return config.Target{}, fmt.Errorf("%s: %w", what, err)
		}
		if kind == "pods" {
			t.Pods = &config.PodsTarget{LabelSelector: selector}
		} else {
			t.Nodes = &config.NodesTarget{LabelSelector: selector}
		}
	case "resource":
		t.Nodes = &config.NodesTarget{Resource: inner}
	case "service":
		t.Service = &config.ServiceTarget{Name: inner}
		if namespace, name, both := strings.Cut(inner, "/"); both {
			if namespace == "" {
				return config.Target{}, fmt.Errorf("%s has an empty namespace; leave the slash out for the pod's own", what)
			}
			t.Service = &config.ServiceTarget{Namespace: namespace, Name: name}
		}
	default:
		return config.Target{}, fmt.Errorf("%s: %q is none of pods, nodes, resource and service", what, kind)
	}
	return t, nil
}

var options = []string{"weight", "aggregation", "quantile", "maxRTT", "whenUnknown", "namespace", "same"}

func setOption(t *config.Target, key, value string) error {
	switch key {
	case "weight":
		weight, err := strconv.ParseInt(value, 10, 32)
		if err != nil {
			return fmt.Errorf("weight=%s must be a whole number from 1 to 100", value)
		}
		t.Weight = int32(weight)
	case "aggregation":
		t.Aggregation = config.Aggregation(value)
	case "quantile":
		quantile, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return fmt.Errorf("quantile=%s must be 0.5, 0.9 or 0.99", value)
		}
		t.Quantile = &quantile
	case "maxRTT":
		limit, err := time.ParseDuration(value)
		if err != nil {
			return fmt.Errorf("maxRTT=%s must be a duration, such as 3ms", value)
		}
		t.MaxRTT = &metav1.Duration{Duration: limit}
	case "whenUnknown":
		t.WhenUnknown = config.UnknownPolicy(value)
	case "namespace", "same":
		if t.Pods == nil {
			return fmt.Errorf("%s is for pods alone", key)
		}
		switch {
		case key == "same":
			t.Pods.MatchLabelKeys = strings.Split(value, ",")
		case value == "*":
			t.Pods.Namespaces, t.Pods.NamespaceSelector = nil, &metav1.LabelSelector{}
		default:
			t.Pods.Namespaces, t.Pods.NamespaceSelector = strings.Split(value, ","), nil
		}
	default:
		return fmt.Errorf("%q is no option; options are %s", key, strings.Join(options, ", "))
	}
	return nil
}

// inNamespaceOf is t with the pod's namespace where an annotation gave none.
// Those of the configuration know theirs: none is all.
func inNamespaceOf(pod *corev1.Pod, t config.Target) config.Target {
	fromAnnotation := strings.Contains(t.Name, "(") // no name of the configuration has one
	switch {
	case !fromAnnotation:
	case t.Service != nil && t.Service.Namespace == "":
		t.Service = &config.ServiceTarget{Namespace: pod.Namespace, Name: t.Service.Name}
	case t.Pods != nil && len(t.Pods.Namespaces) == 0 && t.Pods.NamespaceSelector == nil:
		pods := *t.Pods
		pods.Namespaces = []string{pod.Namespace}
		t.Pods = &pods
	}
	return t
}
