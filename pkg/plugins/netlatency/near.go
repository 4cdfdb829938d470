package netlatency

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	contentvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/netlatency/netlatency/apis/config"
	"github.com/netlatency/netlatency/apis/config/validation"
	"github.com/netlatency/netlatency/pkg/target"
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
// where a name is that of one of the targets known, SP is any white space, and
// selectors are written as for kubectl. docs/configuration.md has the options.
// No two of the targets have the same name, nor choose the same.
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
	for _, part := range split(text, func(r rune) bool { return r == ';' }) {
		t, err := parseTarget(part, known)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(targets, func(other config.Target) bool { return isAgain(t, other) }) {
			return nil, fmt.Errorf("%s is named twice; give it once, with a weight", shortened(t.Name))
		}
		if targets = append(targets, t); len(targets) > maxNearTargets {
			return nil, fmt.Errorf("it names more than %d targets", maxNearTargets)
		}
	}
	return targets, nil
}

// isAgain reports whether t is other once more. Of those that an annotation
// describes it is the choice that counts, not how it is written.
func isAgain(t, other config.Target) bool {
	if !isDescribed(t) || !isDescribed(other) {
		return t.Name == other.Name
	}
	choice := func(t config.Target) config.Target {
		return config.Target{Pods: t.Pods, Nodes: t.Nodes, Service: t.Service}
	}
	return equality.Semantic.DeepEqual(choice(t), choice(other))
}

// isDescribed reports whether t is spelled out in an annotation: no name of the
// configuration has a parenthesis.
func isDescribed(t config.Target) bool { return strings.Contains(t.Name, "(") }

// split cuts text at separators that are not within parentheses.
func split(text string, isSeparator func(rune) bool) []string {
	var parts []string
	depth, from := 0, 0
	for i, r := range text {
		switch {
		case r == '(':
			depth++
		case r == ')':
			depth = max(0, depth-1)
		case depth == 0 && isSeparator(r):
			parts = append(parts, text[from:i])
			from = i + utf8.RuneLen(r)
		}
	}
	return append(parts, text[from:])
}

// shortened is text as a message quotes it: the cause comes after it, and must
// survive that an event's note is cut.
func shortened(text string) string {
	const most = 100
	if len(text) > most {
		return strings.ToValidUTF8(text[:most], "") + "…"
	}
	return strings.ToValidUTF8(text, "")
}

func parseTarget(text string, known []config.Target) (config.Target, error) {
	words := slices.DeleteFunc(split(text, unicode.IsSpace), func(word string) bool { return word == "" })
	if len(words) == 0 {
		return config.Target{}, errors.New("a target is empty; remove the semicolon before or after it")
	}
	t, err := parseWhat(words[0], known)
	if err != nil {
		return config.Target{}, err
	}
	name := shortened(t.Name)
	given := make(map[string]string)
	for _, option := range words[1:] {
		key, value, ok := strings.Cut(option, "=")
		if !ok || value == "" || strings.Contains(key, "(") {
			return config.Target{}, fmt.Errorf("%s: %q is no option; options are %s, as in weight=2, and a semicolon goes before another target",
				name, shortened(option), strings.Join(options, ", "))
		}
		if _, again := given[key]; again {
			return config.Target{}, fmt.Errorf("%s: %s is given twice", name, key)
		}
		given[key] = value
		if err := setOption(&t, key, value); err != nil {
			return config.Target{}, fmt.Errorf("%s: %w", name, err)
		}
	}
	if t.MaxRTT != nil && t.WhenUnknown == "" {
		t.WhenUnknown = config.UnknownAllow
	}
	checked := t
	if t.Service != nil && t.Service.Namespace == "" {
		checked.Service = &config.ServiceTarget{Namespace: "own", Name: t.Service.Name}
	}
	if faults := validation.ValidateTarget(field.NewPath(name), checked); len(faults) > 0 {
		if value := reflect.ValueOf(faults[0].BadValue); value.Kind() == reflect.String {
			faults[0].BadValue = shortened(value.String())
		}
		return config.Target{}, faults[0]
	}
	if isDescribed(t) {
		// What else it is chosen by tells it from others with the same labels.
		for _, key := range []string{"namespace", "same"} {
			if value, ok := given[key]; ok {
				t.Name += " " + key + "=" + value
			}
		}
	}
	return t, nil
}

func parseWhat(what string, known []config.Target) (config.Target, error) {
	kind, _, isSelection := strings.Cut(what, "(")
	if !isSelection {
		i := slices.IndexFunc(known, func(t config.Target) bool { return t.Name == what })
		if i < 0 {
			names := make([]string, 0, len(known))
			for _, t := range known {
				names = append(names, t.Name)
			}
			return config.Target{}, fmt.Errorf("there is no target %q; the configuration has %s, others are written as pods(...), nodes(...), resource(...) or service(...)", shortened(what), listed(names))
		}
		return *known[i].DeepCopy(), nil
	}
	end := closing(what)
	if end < 0 {
		return config.Target{}, fmt.Errorf("%s lacks its closing parenthesis", shortened(oneLine(what)))
	}
	inner, rest := what[len(kind)+1:end], what[end+1:]
	what = oneLine(what[:end+1])
	if rest != "" {
		return config.Target{}, fmt.Errorf("%s: after its parenthesis comes %q; put a space before an option, a semicolon before another target", shortened(what), shortened(rest))
	}
	t := config.Target{Name: what, Weight: 1, Aggregation: config.AggregationMean}
	switch kind {
	case "pods", "nodes":
		selector, err := parseSelector(inner)
		if err != nil {
			return config.Target{}, fmt.Errorf("%s: %w", shortened(what), err)
		}
		if kind == "pods" {
			// Validation refuses an empty one for what it is.
			if isEmpty := len(selector.MatchLabels)+len(selector.MatchExpressions) == 0; !isEmpty && !target.IsLookedUp(selector) {
				return config.Target{}, fmt.Errorf("%s gives no label a value, and all pods would have to be looked at each time that one changes; add a term with =, == or in, as in pods(app=redis,!debug)", shortened(what))
			}
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
				return config.Target{}, fmt.Errorf("%s has an empty namespace; leave the slash out for the pod's own", shortened(what))
			}
			t.Service = &config.ServiceTarget{Namespace: namespace, Name: name}
		}
	default:
		return config.Target{}, fmt.Errorf("%s: %q is none of pods, nodes, resource and service", shortened(what), shortened(kind))
	}
	return t, nil
}

// closing is the place in what of the parenthesis that closes its first; −1 if
// there is none.
func closing(what string) int {
	depth := 0
	for i := range len(what) {
		switch what[i] {
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

// oneLine is text with single spaces for its white space: names and messages
// are read in tables.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// parseSelector is metav1.ParseToLabelSelector, but that it refuses what that
// would silently change, and takes != as kubectl does.
func parseSelector(text string) (*metav1.LabelSelector, error) {
	terms, err := labels.ParseToRequirements(text, field.WithPath(field.NewPath("selector")))
	if err != nil {
		// The parser quotes words, which may be long.
		words := strings.Fields(err.Error())
		for i, word := range words {
			words[i] = shortened(word)
		}
		return nil, errors.New(strings.Join(words, " "))
	}
	selector := &metav1.LabelSelector{MatchLabels: map[string]string{}, MatchExpressions: []metav1.LabelSelectorRequirement{}}
	for _, term := range terms {
		values := term.Values().List()
		add := func(operator metav1.LabelSelectorOperator) {
			selector.MatchExpressions = append(selector.MatchExpressions, metav1.LabelSelectorRequirement{Key: term.Key(), Operator: operator, Values: values})
		}
		switch term.Operator() {
		case selection.Equals, selection.DoubleEquals:
			// In a map the second would take the place of the first.
			switch before, again := selector.MatchLabels[term.Key()]; {
			case again && before == values[0]:
				return nil, fmt.Errorf("%s is given twice; give it once", shortened(term.Key()))
			case again:
				return nil, fmt.Errorf("%s is given twice; write %[1]s in (%s,%s) for either", shortened(term.Key()), before, values[0])
			}
			selector.MatchLabels[term.Key()] = values[0]
		case selection.In:
			add(metav1.LabelSelectorOpIn)
		case selection.NotIn, selection.NotEquals:
			add(metav1.LabelSelectorOpNotIn)
		case selection.Exists:
			add(metav1.LabelSelectorOpExists)
		case selection.DoesNotExist:
			add(metav1.LabelSelectorOpDoesNotExist)
		default:
			return nil, fmt.Errorf("%s is compared by > or <, which choose no pods and nodes; name the values, as in %[1]s in (4,8)", shortened(term.Key()))
		}
	}
	return selector, nil
}

var options = []string{"weight", "aggregation", "quantile", "maxRTT", "whenUnknown", "namespace", "same"}

func setOption(t *config.Target, key, value string) error {
	switch key {
	case "weight":
		weight, err := strconv.ParseInt(value, 10, 32)
		if err != nil {
			return fmt.Errorf("weight=%s must be a whole number from 1 to 100", shortened(value))
		}
		t.Weight = int32(weight)
	case "aggregation":
		t.Aggregation = config.Aggregation(value)
	case "quantile":
		quantile, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return fmt.Errorf("quantile=%s must be 0.5, 0.9 or 0.99", shortened(value))
		}
		t.Quantile = &quantile
	case "maxRTT":
		limit, err := time.ParseDuration(value)
		if err != nil {
			return fmt.Errorf("maxRTT=%s must be a duration, such as 3ms", shortened(value))
		}
		t.MaxRTT = &metav1.Duration{Duration: limit}
	case "whenUnknown":
		t.WhenUnknown = config.UnknownPolicy(value)
	case "namespace", "same":
		if t.Service != nil && key == "namespace" {
			namespace := value
			if len(contentvalidation.IsDNS1123Label(value)) > 0 { // several, or *
				namespace = "NAMESPACE"
			}
			return fmt.Errorf("namespace is for pods alone, a Service is in one; write service(%s/%s)", namespace, shortened(t.Service.Name))
		}
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
		return fmt.Errorf("%q is no option; options are %s", shortened(key), strings.Join(options, ", "))
	}
	return nil
}

// inNamespaceOf is t with the pod's namespace where an annotation gave none.
// Those of the configuration know theirs: none is all.
func inNamespaceOf(pod *corev1.Pod, t config.Target) config.Target {
	switch {
	case !isDescribed(t):
	case t.Service != nil && t.Service.Namespace == "":
		t.Service = &config.ServiceTarget{Namespace: pod.Namespace, Name: t.Service.Name}
	case t.Pods != nil && len(t.Pods.Namespaces) == 0 && t.Pods.NamespaceSelector == nil:
		pods := *t.Pods
		pods.Namespaces = []string{pod.Namespace}
		t.Pods = &pods
	}
	return t
}
