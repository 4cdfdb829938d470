// What the server says, and how it is asked. pkg/ui is the other side.

export type AgentState = "answered" | "silent" | "none" | "recorded";

export interface Node {
  name: string;
  provider: number;
  region: string;
  zone: string;
  agent: AgentState;
  answered: number; // ms since 1970, 0 for never
  fault: string;
}

export interface Overview {
  version: string;
  taken: number;
  since: number;
  interval_ms: number;
  stale_ms: number;
  recording: string;
  tail_weight: number;
  loss_penalty_ms: number;
  providers: string[];
  nodes: Node[];
  max_nodes: number;
  agents: number;
  answered: number;
  measured: number;
  pairs: number;
  problems: string[];
}

export type Value = number | null;

/** A quantity of pairs: rows of values, and a letter for each pair's basis. */
export interface Cells {
  rows: Value[][];
  basis: string[];
}

export interface Blocks extends Cells {
  pairs: number[][];
  measured: number[][];
}

export interface Matrix {
  version: string;
  show: string;
  unit: string;
  rows: Value[][] | null; // null in a cluster of too many nodes
  basis: string[] | null;
  blocks: Blocks;
  methods?: string[];
}

export interface Distribution {
  min: number; p50: number; p90: number; p99: number; mean: number; // µs
  samples: number; sent: number; lost: number; loss: number;
  method: string; age_ms: number; stale: boolean;
}

export interface Direction {
  estimate: { basis: string; latency?: number; error?: number };
  measured: Distribution | null;
}

export interface History {
  since: number;
  at: number[];
  latency: Value[]; p50: Value[]; p99: Value[]; loss: Value[];
}

export interface Cell { version: string; from: string; to: string; there: Direction; back: Direction; history: History | null }

/** Latency, p50, p99 in µs, loss in millionths, age in seconds, basis. */
export type Brief = [Value, Value, Value, Value, Value, string];

export interface NodeRows { version: string; name: string; peers: [number, Brief, Brief][] }

export interface TargetPlace { node: string; replicas: number; users: number; latency_ms: Value }
export interface Target {
  name: string; kind: string; chooses: string; weight: number; aggregation: string;
  max_rtt?: string; differs_per_pod?: boolean; nodes: TargetPlace[];
}
export interface Targets { version: string; profiles: { name: string; targets: Target[] }[] }

export interface Explanation {
  costMs?: number; targets?: { name: string; ms?: number; weight: number; basis: string }[];
  best?: string; bestMs?: number; keptBy?: string; rank?: number; of?: number; matrixAgeSeconds?: number;
}
export interface Placement {
  namespace: string; name: string; profile: string; node?: string; since: number; waits?: string;
  explanation?: Explanation; cost_ms: Value; best?: string; best_ms: Value;
  events?: { reason: string; note: string; at: number }[];
}
export interface Placements { version: string; placements: Placement[]; left_out: number }

/** How far the server's clock is ahead of this machine's, in ms. */
let ahead = 0;

/** Now, on the server's clock. */
export function now(): number {
  return Date.now() + ahead;
}

/** A refusal of the server: it is there, but has no answer. */
export class Refused extends Error {
  constructor(readonly status: number, message: string) { super(message); }
}

async function get<T>(path: string): Promise<T> {
  // Relative, so that the page works below a path, as behind the API server's
  // proxy. The browser sends the version that it has and is told if it is the
  // same.
  const response = await fetch(path);
  const at = Number(response.headers.get("X-Now"));
  if (at > 0) ahead = at - Date.now();
  const answer = await response.json();
  if (!response.ok) throw new Refused(response.status, answer.error ?? response.statusText);
  return answer as T;
}

export async function getOverview(): Promise<Overview> {
  const o = await get<Omit<Overview, "nodes"> & { nodes: [string, number, string, string, AgentState, number, string][] }>("api/overview");
  return { ...o, nodes: o.nodes.map(([name, provider, region, zone, agent, answered, fault]) => ({ name, provider, region, zone, agent, answered, fault })) };
}

export const getMatrix = (show: string) => get<Matrix>(`api/matrix?show=${encodeURIComponent(show)}`);
export const getCell = (from: string, to: string) => get<Cell>(`api/cell?from=${encodeURIComponent(from)}&to=${encodeURIComponent(to)}`);
export const getNode = (name: string) => get<NodeRows>(`api/node?name=${encodeURIComponent(name)}`);
export const getTargets = () => get<Targets>("api/targets");
export const getPlacements = () => get<Placements>("api/placements");
