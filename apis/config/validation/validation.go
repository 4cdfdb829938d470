// Package validation says what is wrong with NetLatencyArgs, all of it at once.
package validation

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	contentvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/netlatency/netlatency/apis/config"
)

// A limit below what a kernel's own stack takes would admit only the target's
// own node; one above a timeout would admit every node.
const (
	leastMaxRTT = 10 * time.Microsecond
	mostMaxRTT  = 10 * time.Second
)

// The agents publish these quantiles of their window and no others.
var quantiles = []float64{0.5, 0.9, 0.99}

var aggregations = []config.Aggregation{
	config.AggregationMean, config.AggregationNearest, config.AggregationWorst,
}

var unknownPolicies = []config.UnknownPolicy{config.UnknownAllow, config.UnknownReject}

// ValidateNetLatencyArgs lists the faults of args, which have their defaults
// already. Field paths start at path, which may be nil.
func ValidateNetLatencyArgs(path *field.Path, args *config.NetLatencyArgs) field.ErrorList {
	var faults field.ErrorList
	faults = append(faults, validateSource(path.Child("source"), args.Source)...)
	faults = append(faults, validateTargetSlices(path.Child("targetSlices"), args.TargetSlices, args.Source.Agents)...)
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
	var faults field.ErrorList
	kinds := 0
	if source.Agents != nil {
		kinds++
		faults = append(faults, validateAgents(path.Child("agents"), source.Agents)...)
	}
	if source.Prometheus != nil {
		kinds++
		faults = append(faults, validatePrometheus(path.Child("prometheus"), source.Prometheus)...)
	}
	if source.File != nil {
		kinds++
		faults = append(faults, validatePath(path.Child("file", "path"), source.File.Path)...)
		faults = append(faults, validateDuration(path.Child("file", "interval"), source.File.Interval, time.Second, 10*time.Minute)...)
	}
	switch {
	case kinds == 0:
		faults = append(faults, field.Required(path, "must have one of agents, prometheus and file"))
	case kinds > 1:
		faults = append(faults, field.Forbidden(path, "may have only one of agents, prometheus and file"))
	}
	return faults
}

func validateAgents(path *field.Path, agents *config.AgentsSource) field.ErrorList {
	var faults field.ErrorList
	faults = append(faults, validateName(path.Child("namespace"), agents.Namespace, contentvalidation.IsDNS1123Label)...)
	faults = append(faults, validateName(path.Child("service"), agents.Service, contentvalidation.IsDNS1123Label)...)
	faults = append(faults, validateName(path.Child("port"), agents.Port, contentvalidation.IsValidPortName)...)
	return append(faults, validateTimes(path, agents.Interval, agents.Timeout)...)
}

// validateTargetSlices is for slices beside the agents' own.
func validateTargetSlices(path *field.Path, slices config.TargetSlices, agents *config.AgentsSource) field.ErrorList {
	if slices.Namespace == "" {
		return nil // nobody is told
	}
	faults := validateName(path.Child("namespace"), slices.Namespace, contentvalidation.IsDNS1123Label)
	faults = append(faults, validateName(path.Child("service"), slices.Service, contentvalidation.IsDNS1123Label)...)
	if agents != nil && slices.Service == agents.Service && slices.Namespace == agents.Namespace {
		faults = append(faults, field.Invalid(path.Child("service"), slices.Service, "must not be the agents' own Service: targets would be taken for agents"))
	}
	return faults
}

// validateTimes is of a source that reads over the network.
func validateTimes(path *field.Path, interval, timeout metav1.Duration) field.ErrorList {
	faults := validateDuration(path.Child("interval"), interval, time.Second, 10*time.Minute)
	if len(faults) == 0 {
		faults = validateDuration(path.Child("timeout"), timeout, 100*time.Millisecond, interval.Duration)
	}
	return faults
}

func validatePrometheus(path *field.Path, prometheus *config.PrometheusSource) field.ErrorList {
	var faults field.ErrorList
	faults = append(faults, validateAddress(path.Child("address"), prometheus.Address)...)
	for _, name := range slices.Sorted(maps.Keys(prometheus.Headers)) {
		at := path.Child("headers").Key(name)
		switch value := prometheus.Headers[name]; {
		case !httpguts.ValidHeaderFieldName(name):
			faults = append(faults, field.Invalid(at, name, "must be the name of an HTTP header"))
		case slices.Contains(ownHeaders, http.CanonicalHeaderKey(name)):
			faults = append(faults, field.Forbidden(at, "may not be one of "+strings.Join(ownHeaders, ", ")))
		case value == "" || !httpguts.ValidHeaderFieldValue(value):
			faults = append(faults, field.Invalid(at, value, "must be the value of an HTTP header, in one line"))
		}
	}
	if file := prometheus.BearerTokenFile; file != "" {
		faults = append(faults, validatePath(path.Child("bearerTokenFile"), file)...)
	}
	faults = append(faults, validateTLS(path.Child("tls"), prometheus.TLS)...)
	faults = append(faults, validateTimes(path, prometheus.Interval, prometheus.Timeout)...)
	if bytes := prometheus.MaxBytes; bytes < 1<<10 || bytes > 1<<30 {
		faults = append(faults, field.Invalid(path.Child("maxBytes"), bytes, "must be from 1024 to 1073741824"))
	}
	queries := path.Child("queries")
	if prometheus.Queries.Mean == "" && prometheus.Queries.P50 == "" {
		faults = append(faults, field.Required(queries.Child("mean"), "must be given, or p50"))
	}
	if prometheus.Queries.Timestamp == "" {
		faults = append(faults, field.Required(queries.Child("timestamp"), "must return the time of a pair's newest sample: that a query succeeds does not make its answer fresh"))
	}
	faults = append(faults, validateName(path.Child("nodeLabel"), prometheus.NodeLabel, isLabelOfMetric)...)
	faults = append(faults, validateName(path.Child("peerLabel"), prometheus.PeerLabel, isLabelOfMetric)...)
	if prometheus.NodeLabel == prometheus.PeerLabel && prometheus.PeerLabel != "" {
		faults = append(faults, field.Duplicate(path.Child("peerLabel"), prometheus.PeerLabel))
	}
	if scale := prometheus.Scale; !(scale >= 1e-9 && scale <= 1e3) { // NaN as well
		faults = append(faults, field.Invalid(path.Child("scale"), scale, "must be from 1e-9, nanoseconds, to 1000"))
	}
	return faults
}

// ownHeaders are set by what the options say, or by HTTP itself.
var ownHeaders = []string{
	"Accept-Encoding", "Authorization", "Connection", "Content-Encoding", "Content-Length", "Content-Type", "Host",
	"Keep-Alive", "Proxy-Authorization", "Transfer-Encoding", "User-Agent",
}

func validateTLS(path *field.Path, tls config.ClientTLS) field.ErrorList {
	var faults field.ErrorList
	for _, file := range []struct{ field, path string }{{"caFile", tls.CAFile}, {"certFile", tls.CertFile}, {"keyFile", tls.KeyFile}} {
		if file.path != "" {
			faults = append(faults, validatePath(path.Child(file.field), file.path)...)
		}
	}
	if tls.CertFile != "" && tls.KeyFile == "" {
		faults = append(faults, field.Required(path.Child("keyFile"), "must be given with certFile"))
	}
	if tls.KeyFile != "" && tls.CertFile == "" {
		faults = append(faults, field.Required(path.Child("certFile"), "must be given with keyFile"))
	}
	if tls.InsecureSkipVerify && tls.CAFile != "" {
		faults = append(faults, field.Forbidden(path.Child("insecureSkipVerify"), "may not be true with caFile: there would be nothing to verify with it"))
	}
	return faults
}

func validateAddress(path *field.Path, address string) field.ErrorList {
	if address == "" {
		return field.ErrorList{field.Required(path, "must be the URL of the server, for instance http://prometheus.monitoring.svc:9090")}
	}
	u, err := url.Parse(address)
	switch {
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Host == "":
		return field.ErrorList{field.Invalid(path, address, "must be a URL with scheme http or https and a host")}
	case u.User != nil:
		// Not repeated: it has a password in it.
		return field.ErrorList{field.Forbidden(path, "may not have a user in it; use bearerTokenFile")}
	case u.RawQuery != "" || u.Fragment != "":
		return field.ErrorList{field.Invalid(path, address, "must end with its path")}
	}
	return nil
}

// The scheduler's working directory is nobody's choice.
func validatePath(path *field.Path, file string) field.ErrorList {
	if file == "" {
		return field.ErrorList{field.Required(path, "must be the path of a file")}
	}
	if !filepath.IsAbs(file) {
		return field.ErrorList{field.Invalid(path, file, "must be an absolute path")}
	}
	return nil
}

// isLabelOfMetric is for labels in Prometheus' classic character set, which
// PromQL needs no quotes for.
func isLabelOfMetric(name string) []string {
	if !labelOfMetric.MatchString(name) {
		return []string{"must be the name of a label of a metric, such as node"}
	}
	return nil
}

var labelOfMetric = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)

// A measurement that grows stale before the next read would make every node
// flap between measured and not.
func validateStaleAfter(path *field.Path, staleAfter metav1.Duration, source config.Source) field.ErrorList {
	least := max(time.Second, source.Interval())
	return validateDuration(path, staleAfter, least, 24*time.Hour)
}

func validateTarget(path *field.Path, target config.Target) field.ErrorList {
	var faults field.ErrorList
	faults = append(faults, validateName(path.Child("name"), target.Name, contentvalidation.IsDNS1123Label)...)
	if target.Name == "none" {
		faults = append(faults, field.Invalid(path.Child("name"), target.Name, "must be another: a pod's annotation netlatency.io/near says none for no targets at all"))
	}
	if target.Weight < 1 || target.Weight > 100 {
		faults = append(faults, field.Invalid(path.Child("weight"), target.Weight, "must be from 1 to 100"))
	}
	if !slices.Contains(aggregations, target.Aggregation) {
		faults = append(faults, field.NotSupported(path.Child("aggregation"), target.Aggregation, aggregations))
	}
	if q := target.Quantile; q != nil && !slices.Contains(quantiles, *q) {
		faults = append(faults, field.Invalid(path.Child("quantile"), *q, "must be 0.5, 0.9 or 0.99, or absent for the profile's statistic"))
	}
	faults = append(faults, validateLimit(path, target)...)

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
		if pods.NamespaceSelector != nil {
			faults = append(faults, validateSelector(at.Child("namespaceSelector"), pods.NamespaceSelector)...)
		}
		faults = append(faults, validateSet(at.Child("matchLabelKeys"), pods.MatchLabelKeys, contentvalidation.IsQualifiedName)...)
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

// ValidateTarget lists the faults of a target that is not among those of the
// arguments. Its name is not looked at.
func ValidateTarget(path *field.Path, target config.Target) field.ErrorList {
	target.Name = "any"
	return validateTarget(path, target)
}

func validateLimit(path *field.Path, target config.Target) field.ErrorList {
	switch {
	case target.MaxRTT == nil && target.WhenUnknown != "":
		return field.ErrorList{field.Forbidden(path.Child("whenUnknown"), "may be given only with maxRTT")}
	case target.MaxRTT == nil:
		return nil
	}
	faults := validateDuration(path.Child("maxRTT"), *target.MaxRTT, leastMaxRTT, mostMaxRTT)
	if !slices.Contains(unknownPolicies, target.WhenUnknown) {
		faults = append(faults, field.NotSupported(path.Child("whenUnknown"), target.WhenUnknown, unknownPolicies))
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
