// Package exposition is the wire contract between agents and whoever reads
// them, in the Prometheus exposition formats. It is the only place that spells
// the names of metrics and labels.
//
// An agent shows one measurement in two views: MetricsPath, histograms and
// counters for Prometheus to keep, and MatrixPath, the statistics over the
// agent's own window, so that a scheduler knows all after one read and loses
// nothing when another replica takes over. Families writes the second view and
// Decode reads it, from an agent that may be broken or hostile.
package exposition
