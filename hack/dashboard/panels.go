package main

// Parts of many queries.
const (
	rate    = "[$__rate_interval]"
	ours    = `{profile=~"$profile"}`
	between = `{provider=~"$provider",peer_provider=~"$peer_provider"}`
	way     = "{{provider}} → {{peer_provider}}"
)

var (
	bad      = []threshold{{1, "red"}}
	needsOne = []threshold{{-1, "red"}, {1, "green"}}
)

// rows is the dashboard. Each query is run against a real Prometheus by
// test/integration, which also says which of them may have no answer.
var rows = []row{
	{"Is it well?", []panel{
		{
			title: "Agents that answer", description: "Of the agents that Prometheus knows. Whether every node has one is for the DaemonSet to tell.",
			kind: "stat", width: 4, height: 4, unit: "short", thresholds: needsOne,
			queries: []query{{expr: `sum(up{job="netlatency-agent"})`, legend: "up"}, {expr: `count(up{job="netlatency-agent"})`, legend: "all"}},
		},
		{
			title: "Schedulers that lead", description: "One. Without it pods with our schedulerName wait.",
			kind: "stat", width: 4, height: 4, unit: "short", thresholds: needsOne,
			queries: []query{{expr: `count(leader_election_master_status{job="netlatency-scheduler",name="kube-scheduler"} == 1) or vector(0)`, legend: "leading"}},
		},
		{
			title: "Age of the matrix", description: "Since the latencies that the scheduler uses were put together, in the worst replica. It is some seconds.",
			kind: "stat", width: 4, height: 4, unit: "s", thresholds: []threshold{{60, "orange"}, {120, "red"}},
			queries: []query{{expr: `max(netlatency_matrix_age_seconds` + ours + `)`, legend: "age"}},
		},
		{
			title: "Pairs measured", description: "Ordered pairs of nodes with a fresh measurement, in the replica that knows least.",
			kind: "stat", width: 4, height: 4, unit: "short",
			queries: []query{{expr: `min(netlatency_matrix_pairs` + ours + `)`, legend: "pairs"}},
		},
		{
			title: "Targets that run nowhere", description: "Of the configuration and of pods' own annotations.",
			kind: "stat", width: 4, height: 4, unit: "short", thresholds: bad,
			queries: []query{{expr: `max(netlatency_targets{state="empty",profile=~"$profile"})`, legend: "empty"}},
		},
		{
			title: "Placed without latency", description: "Share of the pods with targets, in the last hour, of whose nodes nothing was known.",
			kind: "stat", width: 4, height: 4, unit: "percentunit", thresholds: []threshold{{0.01, "orange"}, {0.1, "red"}},
			queries: []query{{expr: `sum(increase(netlatency_scorings_total{outcome=~"no_data|no_replicas",profile=~"$profile"}[1h])) / sum(increase(netlatency_scorings_total{outcome!="no_targets",profile=~"$profile"}[1h]))`, legend: "share"}},
		},
		{
			title: "Alerts", description: "What each means and what to do: docs/operations.md.",
			kind: "table", width: 12, height: 6, unit: "short", hidden: []string{"Value", "__name__", "alertstate"},
			queries: []query{{expr: `ALERTS{alertname=~"Netlatency.+",alertstate="firing"}`, instant: true}},
		},
		{
			title: "Pods that wait", description: "By the queues of the leading scheduler. Unschedulable: no node has room, or none is within a limit.",
			kind: "timeseries", width: 6, height: 6, unit: "short", stacked: true,
			queries: []query{{expr: `sum by (queue) (scheduler_pending_pods{job="netlatency-scheduler"})`, legend: "{{queue}}"}},
		},
		{
			title: "Pods without a node", description: "By schedulerName, whether a scheduler of that name is there or not. Needs kube-state-metrics 2.11.",
			kind: "timeseries", width: 6, height: 6, unit: "short", stacked: true,
			queries: []query{{expr: `count by (name) (kube_pod_scheduler{name=~"netlatency-.+"} and on (namespace, pod, uid) kube_pod_info{node=""} and on (namespace, pod, uid) kube_pod_status_phase{phase="Pending"} == 1)`, legend: "{{name}}"}},
		},
	}},
	{"Where pods go", []panel{
		{
			title: "Cost, and the best there was", description: "Mean expected latency of placed pods to their targets, and on the nearest nodes of all, whether these had room or not.",
			kind: "timeseries", width: 8, height: 8, unit: "s",
			queries: []query{
				{expr: `sum(rate(netlatency_placement_cost_seconds_sum` + ours + rate + `)) / sum(rate(netlatency_placement_cost_seconds_count` + ours + rate + `))`, legend: "placed"},
				{expr: `sum(rate(netlatency_placement_cost_seconds_sum` + ours + rate + `)) / sum(rate(netlatency_placement_cost_seconds_count` + ours + rate + `)) - sum(rate(netlatency_placement_excess_seconds_sum` + ours + rate + `)) / sum(rate(netlatency_placement_excess_seconds_count` + ours + rate + `))`, legend: "best"},
				{expr: `histogram_quantile(0.9, sum by (le) (rate(netlatency_placement_cost_seconds_bucket` + ours + rate + `)))`, legend: "placed, p90"},
			},
		},
		{
			title: "Farther than the nearest", description: "By how much placed pods are farther from their targets than on the nearest node.",
			kind: "timeseries", width: 8, height: 8, unit: "s",
			queries: []query{
				{expr: `histogram_quantile(0.5, sum by (le) (rate(netlatency_placement_excess_seconds_bucket` + ours + rate + `)))`, legend: "p50"},
				{expr: `histogram_quantile(0.9, sum by (le) (rate(netlatency_placement_excess_seconds_bucket` + ours + rate + `)))`, legend: "p90"},
				{expr: `histogram_quantile(0.99, sum by (le) (rate(netlatency_placement_excess_seconds_bucket` + ours + rate + `)))`, legend: "p99"},
			},
		},
		{
			title: "Placed on a nearest node", description: "Share of the pods with targets that are on a node as near as the nearest. The rank of one pod is in its annotation netlatency.io/placement.",
			kind: "timeseries", width: 8, height: 8, unit: "percentunit",
			queries: []query{{expr: `sum by (profile) (rate(netlatency_placements_total{kept_by="",profile=~"$profile"}` + rate + `)) / sum by (profile) (rate(netlatency_placements_total` + ours + rate + `))`, legend: "{{profile}}"}},
		},
		{
			title: "What kept pods from it", description: "The plugin that refused the nearest node, or scores of others. Nothing: the pod is as near.",
			kind: "timeseries", width: 8, height: 8, unit: "short", stacked: true,
			queries: []query{{expr: `sum by (kept_by) (increase(netlatency_placements_total` + ours + rate + `))`, legend: "{{kept_by}}"}},
		},
		{
			title: "What placements rest on", description: "The weakest basis among a pod's targets: local and measured are facts, reverse and group are estimates.",
			kind: "timeseries", width: 8, height: 8, unit: "short", stacked: true,
			queries: []query{{expr: `sum by (basis) (increase(netlatency_placements_total` + ours + rate + `))`, legend: "{{basis}}"}},
		},
		{
			title: "Scheduling cycles", description: "By what came of them: scored by latency, or without it because of missing targets, replicas or data.",
			kind: "timeseries", width: 8, height: 8, unit: "short", stacked: true,
			queries: []query{{expr: `sum by (outcome) (increase(netlatency_scorings_total` + ours + rate + `))`, legend: "{{outcome}}"}},
		},
	}},
	{"Latency between providers", []panel{
		{
			title: "Mean round trip", description: "Of all pairs of nodes in the last five minutes, from the provider on the left.",
			kind: "table", width: 12, height: 7, unit: "s", matrix: &[2]string{"provider", "peer_provider"},
			queries: []query{{expr: `histogram_avg(netlatency:provider_rtt_seconds:increase5m)`, instant: true}},
		},
		{
			title: "99th percentile", description: "The same.",
			kind: "table", width: 12, height: 7, unit: "s", matrix: &[2]string{"provider", "peer_provider"},
			queries: []query{{expr: `histogram_quantile(0.99, netlatency:provider_rtt_seconds:increase5m)`, instant: true}},
		},
		{
			title: "Median over time", description: "For the providers chosen above.",
			kind: "timeseries", width: 8, height: 9, unit: "s",
			queries: []query{{expr: `histogram_quantile(0.5, netlatency:provider_rtt_seconds:increase5m` + between + `)`, legend: way}},
		},
		{
			title: "99th percentile over time", description: "For the providers chosen above.",
			kind: "timeseries", width: 8, height: 9, unit: "s",
			queries: []query{{expr: `histogram_quantile(0.99, netlatency:provider_rtt_seconds:increase5m` + between + `)`, legend: way}},
		},
		{
			title: "All round trips", description: "Their distribution, for the providers chosen above. Choose one pair to see the shape of its path.",
			kind: "heatmap", width: 8, height: 9, unit: "s",
			queries: []query{{expr: `sum(netlatency:provider_rtt_seconds:increase5m` + between + `)`}},
		},
		{
			title: "Loss", description: "Share of the probes of 30 minutes. Pairs of providers without any loss are not there.",
			kind: "timeseries", width: 8, height: 8, unit: "percentunit",
			queries: []query{{expr: `netlatency:provider_probes_lost:ratio30m` + between, legend: way}},
		},
		{
			title: "Loss on the way to targets", description: "The ten nodes with targets that lose most, by the mean over the nodes that lose.",
			kind: "timeseries", width: 8, height: 8, unit: "percentunit",
			queries: []query{{expr: `topk(10, avg by (peer) (netlatency:probes_lost:ratio30m))`, legend: "{{peer}}"}},
		},
		{
			title: "Large packets that are lost", description: "By node, the ten with most. Where small ones pass, look at the MTU.",
			kind: "timeseries", width: 8, height: 8, unit: "short",
			queries: []query{{expr: `topk(10, sum by (node) (increase(netlatency_full_size_probes_lost_total` + rate + `)))`, legend: "{{node}}"}},
		},
	}},
	{"How it is measured", []panel{
		{
			title: "Age of the newest round trip", description: "To each node on which a target runs, from the node that heard from it longest ago. Recorded a minute too late at most.",
			kind: "timeseries", width: 8, height: 8, unit: "s",
			queries: []query{{expr: `max by (peer) (time() - max_over_time(netlatency:rtt_newest_timestamp_seconds:max[10m]))`, legend: "{{peer}}"}},
		},
		{
			title: "Methods", description: "Pairs by the method of their newest answer. Nodes without an agent are probed by tcp.",
			kind: "timeseries", width: 8, height: 8, unit: "short", stacked: true,
			queries: []query{{expr: `sum by (method) (netlatency_agent_pairs)`, legend: "{{method}}"}},
		},
		{
			title: "Loss by method", description: "Probes that are sent to find out whether a blocked method works again count too.",
			kind: "timeseries", width: 8, height: 8, unit: "percentunit",
			queries: []query{{expr: `sum by (method) (rate(netlatency_probes_lost_total` + rate + `)) / sum by (method) (rate(netlatency_probes_sent_total` + rate + `))`, legend: "{{method}}"}},
		},
		{
			title: "Probes", description: "Samples by whose time stamps they rest on, probes that had to wait, and probes that the kernel refused.",
			kind: "timeseries", width: 8, height: 8, unit: "pps",
			queries: []query{
				{expr: `sum by (stamps) (rate(netlatency_agent_samples_total` + rate + `))`, legend: "{{stamps}}"},
				{expr: `sum(rate(netlatency_agent_probes_capped_total` + rate + `))`, legend: "delayed"},
				{expr: `sum(rate(netlatency_agent_send_errors_total` + rate + `))`, legend: "refused"},
			},
		},
		{
			title: "Farthest ways to targets", description: "Pairs of nodes by the 99th percentile of five minutes.",
			kind: "table", width: 8, height: 8, unit: "s", hidden: []string{"__name__"},
			queries: []query{{expr: `topk(10, netlatency:rtt_seconds:p99_5m)`, instant: true}},
		},
		{
			title: "Agents: processor and memory", description: "The agent that takes most.",
			kind: "timeseries", width: 8, height: 8, unit: "short",
			queries: []query{
				{expr: `max(rate(process_cpu_seconds_total{job="netlatency-agent"}` + rate + `))`, legend: "processors"},
				{expr: `max(process_resident_memory_bytes{job="netlatency-agent"}) / 2^30`, legend: "GiB"},
			},
		},
	}},
	{"What is missing", []panel{
		{
			title: "Nodes by what is known of a target", description: "From unknown nodes neither a measurement nor an estimate leads to the target.",
			kind: "timeseries", width: 8, height: 8, unit: "short",
			queries: []query{{expr: `max by (target, basis) (netlatency_target_coverage_nodes` + ours + `) > 0`, legend: "{{target}}: {{basis}}"}},
		},
		{
			title: "Reads that failed", description: "By reason. See NetlatencyMatrixStale in docs/operations.md.",
			kind: "timeseries", width: 8, height: 8, unit: "short", stacked: true,
			queries: []query{{expr: `sum by (source, reason) (increase(netlatency_source_failures_total` + ours + rate + `))`, legend: "{{source}}: {{reason}}"}},
		},
		{
			title: "Rows that were dropped", description: "Malformed, impossible, twice there, or of the future.",
			kind: "timeseries", width: 8, height: 8, unit: "short", stacked: true,
			queries: []query{{expr: `sum by (source, reason) (increase(netlatency_source_dropped_rows_total` + ours + rate + `))`, legend: "{{source}}: {{reason}}"}},
		},
		{
			title: "Agents that are read", description: "By each scheduler: nodes with a ready agent, and those that answered in the last round.",
			kind: "timeseries", width: 8, height: 8, unit: "short",
			queries: []query{{expr: `max by (instance, state) (netlatency_source_agents` + ours + `)`, legend: "{{instance}}: {{state}}"}},
		},
		{
			title: "Peers without an answer", description: "Probed and never heard of; known and not probed because there are more than --max-peers.",
			kind: "timeseries", width: 8, height: 8, unit: "short",
			queries: []query{
				{expr: `sum(netlatency_agent_peers) - sum(netlatency_agent_pairs)`, legend: "silent"},
				{expr: `sum(netlatency_agent_peers_left_out)`, legend: "left out"},
			},
		},
		{
			title: "Packets that made no sample", description: "By reason; and probes of others that reflectors did not answer.",
			kind: "timeseries", width: 8, height: 8, unit: "pps",
			queries: []query{
				{expr: `sum by (reason) (rate(netlatency_agent_invalid_packets_total` + rate + `))`, legend: "{{reason}}"},
				{expr: `sum by (reason) (rate(netlatency_agent_reflector_refusals_total` + rate + `))`, legend: "not answered: {{reason}}"},
			},
		},
	}},
	{"Targets", []panel{
		{
			title: "Replicas", description: "Ready ones (nodes, for a node target).",
			kind: "timeseries", width: 8, height: 7, unit: "short",
			queries: []query{{expr: `max by (target) (netlatency_target_replicas` + ours + `)`, legend: "{{target}}"}},
		},
		{
			title: "Nodes", description: "On which each target runs; and those that the agents are not told of, because there are more than 500.",
			kind: "timeseries", width: 8, height: 7, unit: "short",
			queries: []query{
				{expr: `max by (target) (netlatency_target_nodes` + ours + `)`, legend: "{{target}}"},
				{expr: `max(netlatency_target_nodes_left_out` + ours + `)`, legend: "left out"},
			},
		},
		{
			title: "Targets that are kept current", description: "Those that pods' own annotations describe among them.",
			kind: "timeseries", width: 8, height: 7, unit: "short",
			queries: []query{{expr: `max by (state) (netlatency_targets` + ours + `)`, legend: "{{state}}"}},
		},
	}},
	{"Scheduler", []panel{
		{
			title: "The plugin's part", description: "99th percentile of what NetLatency takes, by extension point. kube-scheduler times one cycle of ten.",
			kind: "timeseries", width: 8, height: 8, unit: "s",
			queries: []query{{expr: `histogram_quantile(0.99, sum by (le, extension_point) (rate(scheduler_plugin_execution_duration_seconds_bucket{job="netlatency-scheduler",plugin="NetLatency"}` + rate + `)))`, legend: "{{extension_point}}"}},
		},
		{
			title: "From queue to node", description: "How long pods take, of which the scheduler is the reason.",
			kind: "timeseries", width: 8, height: 8, unit: "s",
			queries: []query{
				{expr: `histogram_quantile(0.5, sum by (le) (rate(scheduler_pod_scheduling_sli_duration_seconds_bucket{job="netlatency-scheduler"}` + rate + `)))`, legend: "p50"},
				{expr: `histogram_quantile(0.99, sum by (le) (rate(scheduler_pod_scheduling_sli_duration_seconds_bucket{job="netlatency-scheduler"}` + rate + `)))`, legend: "p99"},
			},
		},
		{
			title: "Attempts", description: "By result, a second.",
			kind: "timeseries", width: 8, height: 8, unit: "short", stacked: true,
			queries: []query{{expr: `sum by (result) (rate(scheduler_schedule_attempts_total{job="netlatency-scheduler",profile=~"$profile"}` + rate + `))`, legend: "{{result}}"}},
		},
		{
			title: "A round of reads", description: "How long the last one took.",
			kind: "timeseries", width: 8, height: 8, unit: "s",
			queries: []query{{expr: `max by (instance, source) (netlatency_source_round_seconds` + ours + `)`, legend: "{{instance}}: {{source}}"}},
		},
		{
			title: "Tried again", description: "Pods that waited for a node within a limit and were tried again because one may have come.",
			kind: "timeseries", width: 8, height: 8, unit: "short",
			queries: []query{{expr: `sum by (profile) (increase(netlatency_activations_total` + ours + rate + `))`, legend: "{{profile}}"}},
		},
		{
			title: "Schedulers: processor and memory", description: "By replica.",
			kind: "timeseries", width: 8, height: 8, unit: "short",
			queries: []query{
				{expr: `sum by (instance) (rate(process_cpu_seconds_total{job="netlatency-scheduler"}` + rate + `))`, legend: "{{instance}}: processors"},
				{expr: `sum by (instance) (process_resident_memory_bytes{job="netlatency-scheduler"}) / 2^30`, legend: "{{instance}}: GiB"},
			},
		},
	}},
}
