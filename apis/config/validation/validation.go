// Package validation says what is wrong with NetLatencyArgs, all of it at once.
package validation

import (
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	contentvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/netlatency/netlatency/apis/config"
)

// The agents publish these quantiles of their window and no others.
var quantiles = []float64{0.5, 0.9, 0.99}

var aggregations = []config.Aggregation{
	config.AggregationMean, config.AggregationNearest, config.AggregationWorst,
}

// ValidateNetLatencyArgs lists the faults of args, which have their defaults
// already. Field paths start at path, which may be nil.
func ValidateNetLatencyArgs(path *field.Path, args *config.NetLatencyArgs) field.ErrorList {
	var faults field.ErrorList
	faults = append(faults, validateSource(path.Child("source"), args.Source)...)
	faults = append(faults, validateDuration(path.Child("window"), args.Window, 0, time.Hour)...)
	faults = append(faults, validateStaleAfter(path.Child("staleAfter"), args.StaleAfter, args.Source)...)

	statistic := path.Child("statistic")
	faults = append(faults, validateShare(statistic.Child("tailWeight"), args.Statistic.TailWeight)...)
	faults = append(faults, validateDuration(statistic.Child("lossPenalty"), args.Statistic.LossPenalty, 0, time.Minute)...)

	hysteresis := path.Child("hysteresis")
	if ratio := args.Hysteresis.Ratio; !(ratio >= 0 && ratio < 1) {
		faults = append(faults, field.Invalid(hysteresis.Child("ratio"), ratio, "must be at least 0 and less than 1"))
	}
	faults = append(faults, validateDuration(hysteresis.Child("floor"), args.Hysteresis.Floor, 0, time.Second)...)

	band := path.Child("band")
	faults = append(faults, validateShare(band.Child("ratio"), args.Band.Ratio)...)
	faults = append(faults, validateDuration(band.Child("floor"), args.Band.Floor, 0, time.Second)...)

	faults = append(faults, validateSet(path.Child("providerLabels"), args.ProviderLabels, contentvalidation.IsQualifiedName)...)

	names := sets.New[string]()
	for i, target := range args.Targets {
		at := path.Child("targets").Index(i)
		if names.Has(target.Name) {
			faults = append(faults, field.Duplicate(at.Child("name"), target.Name))
		} else if target.Name != "" {
			names.Insert(target.Name)
		}
		faults = append(faults, validateTarget(at, target)...)
	}
	for i, rule := range args.Rules {
		faults = append(faults, validateRule(path.Child("rules").Index(i), rule, names)...)
	}
	return faults
}

func validateSource(path *field.Path, source config.Source) field.ErrorList {
	agents := source.Agents
	if agents == nil {
		return field.ErrorList{field.Required(path, "must name one source: agents")}
	}
	path = path.Child("agents")
	var faults field.ErrorList
	faults = append(faults, validateName(path.Child("namespace"), agents.Namespace, contentvalidation.IsDNS1123Label)...)
	faults = append(faults, validateName(path.Child("service"), agents.Service, contentvalidation.IsDNS1123Label)...)
	faults = append(faults, validateName(path.Child("port"), agents.Port, contentvalidation.IsValidPortName)...)
	interval := validateDuration(path.Child("interval"), agents.Interval, time.Second, 10*time.Minute)
	faults = append(faults, interval...)
	if len(interval) == 0 {
		faults = append(faults, validateDuration(path.Child("timeout"), agents.Timeout, 100*time.Millisecond, agents.Interval.Duration)...)
	}
	return faults
}

// A measurement that grows stale before the next read would make every node
// flap between measured and not.
func validateStaleAfter(path *field.Path, staleAfter metav1.Duration, source config.Source) field.ErrorList {
	least := time.Second
	if source.Agents != nil && source.Agents.Interval.Duration > least {
		least = source.Agents.Interval.Duration
	}
	return validateDuration(path, staleAfter, least, 24*time.Hour)
}

func validateTarget(path *field.Path, target config.Target) field.ErrorList {
	var faults field.ErrorList
	faults = append(faults, validateName(path.Child("name"), target.Name, contentvalidation.IsDNS1123Label)...)
	if target.Weight < 1 || target.Weight > 100 {
		faults = append(faults, field.Invalid(path.Child("weight"), target.Weight, "must be from 1 to 100"))
	}
	if !slices.Contains(aggregations, target.Aggregation) {
		faults = append(faults, field.NotSupported(path.Child("aggregation"), target.Aggregation, aggregations))
	}
	if q := target.Quantile; q != nil && !slices.Contains(quantiles, *q) {
		faults = append(faults, field.Invalid(path.Child("quantile"), *q, "must be 0.5, 0.9 or 0.99, or absent for the profile's statistic"))
	}

	kinds := 0
	if pods := target.Pods; pods != nil {
		kinds++
		at := path.Child("pods")
		if pods.LabelSelector == nil {
			faults = append(faults, field.Required(at.Child("labelSelector"), "must choose the target's pods"))
		} else {
			faults = append(faults, validateChoosing(at.Child("labelSelector"), pods.LabelSelector)...)
		}
		faults = append(faults, validateSet(at.Child("namespaces"), pods.Namespaces, contentvalidation.IsDNS1123Label)...)
	}
	if nodes := target.Nodes; nodes != nil {
		kinds++
		at := path.Child("nodes")
		if nodes.LabelSelector == nil && nodes.Resource == "" {
			faults = append(faults, field.Required(at, "must have a labelSelector or a resource to choose the target's nodes"))
		}
		if nodes.LabelSelector != nil {
			faults = append(faults, validateChoosing(at.Child("labelSelector"), nodes.LabelSelector)...)
		}
		if nodes.Resource != "" {
			faults = append(faults, validateName(at.Child("resource"), nodes.Resource, contentvalidation.IsQualifiedName)...)
		}
	}
	if service := target.Service; service != nil {
		kinds++
		at := path.Child("service")
		faults = append(faults, validateName(at.Child("namespace"), service.Namespace, contentvalidation.IsDNS1123Label)...)
		faults = append(faults, validateName(at.Child("name"), service.Name, contentvalidation.IsDNS1123Label)...)
	}
	switch {
	case kinds == 0:
		faults = append(faults, field.Required(path, "must have one of pods, nodes and service"))
	case kinds > 1:
		faults = append(faults, field.Forbidden(path, "may have only one of pods, nodes and service; make several targets of it"))
	}
	return faults
}

func validateRule(path *field.Path, rule config.Rule, targets sets.Set[string]) field.ErrorList {
	var faults field.ErrorList
	if rule.PodSelector != nil {
		faults = append(faults, validateSelector(path.Child("podSelector"), rule.PodSelector)...)
	}
	faults = append(faults, validateSet(path.Child("namespaces"), rule.Namespaces, contentvalidation.IsDNS1123Label)...)

	at := path.Child("targets")
	if len(rule.Targets) == 0 {
		faults = append(faults, field.Required(at, "must name at least one target"))
	}
	seen := sets.New[string]()
	for i, name := range rule.Targets {
		switch {
		case seen.Has(name):
			faults = append(faults, field.Duplicate(at.Index(i), name))
		case targets.Len() == 0:
			faults = append(faults, field.Invalid(at.Index(i), name, "there are no targets; add it to targets"))
		case !targets.Has(name):
			faults = append(faults, field.NotSupported(at.Index(i), name, sets.List(targets)))
		}
		seen.Insert(name)
	}
	return faults
}

// validateChoosing is for selectors that an empty one, which matches
// everything, would turn into a mistake.
func validateChoosing(path *field.Path, selector *metav1.LabelSelector) field.ErrorList {
	if len(selector.MatchLabels)+len(selector.MatchExpressions) == 0 {
		return field.ErrorList{field.Required(path, "must have matchLabels or matchExpressions, an empty selector would choose everything")}
	}
	return validateSelector(path, selector)
}

func validateSelector(path *field.Path, selector *metav1.LabelSelector) field.ErrorList {
	return metav1validation.ValidateLabelSelector(selector, metav1validation.LabelSelectorValidationOptions{}, path)
}

// validateSet applies valid to each name and refuses repetitions.
func validateSet(path *field.Path, names []string, valid func(string) []string) field.ErrorList {
	var faults field.ErrorList
	seen := sets.New[string]()
	for i, name := range names {
		if seen.Has(name) {
			faults = append(faults, field.Duplicate(path.Index(i), name))
		} else {
			faults = append(faults, validateName(path.Index(i), name, valid)...)
		}
		seen.Insert(name)
	}
	return faults
}

func validateName(path *field.Path, name string, valid func(string) []string) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(path, "must not be empty")}
	}
	var faults field.ErrorList
	for _, fault := range valid(name) {
		faults = append(faults, field.Invalid(path, name, fault))
	}
	return faults
}

func validateShare(path *field.Path, share float64) field.ErrorList {
	if !(share >= 0 && share <= 1) { // NaN as well
		return field.ErrorList{field.Invalid(path, share, "must be from 0 to 1")}
	}
	return nil
}

func validateDuration(path *field.Path, d metav1.Duration, least, most time.Duration) field.ErrorList {
	if d.Duration < least || d.Duration > most {
		return field.ErrorList{field.Invalid(path, d.Duration.String(), fmt.Sprintf("must be from %v to %v", least, most))}
	}
	return nil
}
