// Targets: where they run, and where the pods run that want to be near them.

import { getTargets, type Overview, type Target, type Targets } from "./api";
import { fresh, h, refill } from "./dom";
import { counted, digits } from "./format";
import { named } from "./matrix";
import type { View } from "./main";

export class TargetsView implements View {
  readonly element = h("div", { class: "targets-view" });
  private overview: Overview | null = null;
  private targets: Targets | null = null;

  update(overview: Overview): void {
    this.overview = overview;
    getTargets().then((t) => { this.targets = t; this.draw(); }, (e: Error) => { if (!this.targets) refill(this.element, h("p", { class: "empty" }, `The targets could not be read: ${e.message}.`)); });
  }

  shown(): void { this.draw(); }
  themed(): void {}

  private draw(): void {
    const o = this.overview, t = this.targets;
    if (!o || !t) return;
    if (o.recording) { refill(this.element, empty("A recording has latencies alone.", "Targets are those of a cluster: run this without --matrix.")); return; }
    if (t.profiles.length === 0) { refill(this.element, empty("The scheduler's configuration could not be read.", "It is a ConfigMap in netlatency's namespace; what went wrong is said above.")); return; }
    const provider = new Map(o.nodes.map((n) => [n.name, named(o.providers[n.provider]!)]));
    // The chart's profiles have the same targets. Where nobody uses one of them,
    // all would be there twice.
    const said = new Set<string>();
    const known = (p: Profile) => {
      const key = JSON.stringify(p.targets.map((x) => [x.name, x.chooses, x.weight, x.aggregation, x.max_rtt]));
      const used = p.targets.some((x) => x.nodes.some((n) => n.users > 0));
      const again = said.has(key) && !used;
      said.add(key);
      return again;
    };
    const profiles = [...t.profiles].sort((a, b) => users(b) - users(a));
    refill(this.element, ...profiles.flatMap((p) => known(p) ? [h("p", { class: "quiet profile" }, `Profile ${p.name} has the same targets, and no pods yet.`)] : [
      t.profiles.length > 1 ? h("h2", { class: "profile" }, `Profile ${p.name}`) : null,
      p.targets.length === 0 ? empty("This profile has no targets.", "Pods are placed as if netlatency were not there. The chart's value “targets” sets them.") :
        h("div", { class: "cards" }, ...p.targets.map((x) => card(x, provider))),
    ]));
  }
}

type Profile = Targets["profiles"][number];
const users = (p: Profile) => p.targets.reduce((n, t) => n + t.nodes.reduce((m, x) => m + x.users, 0), 0);

function empty(title: string, more: string): HTMLElement {
  return h("section", { class: "card" }, h("h2", {}, title), h("p", { class: "empty" }, more));
}

function card(t: Target, provider: Map<string, string>): HTMLElement {
  const replicas = t.nodes.reduce((n, p) => n + p.replicas, 0), users = t.nodes.reduce((n, p) => n + p.users, 0);
  const byProvider = new Map<string, { replicas: number; users: number }>();
  for (const p of t.nodes) {
    const sum = byProvider.get(provider.get(p.node) ?? "no provider") ?? { replicas: 0, users: 0 };
    sum.replicas += p.replicas;
    sum.users += p.users;
    byProvider.set(provider.get(p.node) ?? "no provider", sum);
  }
  const most = Math.max(1, ...[...byProvider.values()].flatMap((s) => [s.replicas, s.users]));
  const bar = (n: number, kind: string) => {
    const b = h("span", { class: `share ${kind}` });
    b.style.width = `${(100 * n) / most}%`;
    return h("span", { class: "share-row" }, h("span", { class: "track" }, b), h("span", {}, String(n)));
  };
  const id = fresh("target");
  return h("section", { class: "card target", "aria-labelledby": id },
    h("div", { class: "head" }, h("h2", { id }, t.name), h("span", { class: "quiet small" }, `weight ${t.weight} · ${t.aggregation}${t.max_rtt ? ` · at most ${t.max_rtt}` : ""}`)),
    h("p", { class: "quiet" }, `${t.kind}: `, h("code", {}, t.chooses)),
    t.differs_per_pod ? h("p", { class: "small" }, "It is another one for each pod, so that nobody can say where it runs.") :
      replicas === 0 ? h("p", { class: "warning" }, "It runs nowhere: it is left out of every pod's cost. Is what it chooses right, and ready?") : null,
    h("p", {}, h("strong", {}, t.differs_per_pod ? "–" : String(replicas)), t.kind === "nodes" ? " nodes, " : ` ${replicas === 1 ? "replica" : "replicas"}, `, h("strong", {}, String(users)), ` ${users === 1 ? "pod wants" : "pods want"} to be near`),
    byProvider.size === 0 ? null : h("table", { class: "list shares" },
      h("caption", { class: "hidden" }, `${t.name} by provider`),
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Provider"), h("th", { scope: "col" }, "Replicas"), h("th", { scope: "col" }, "Users"))),
      h("tbody", {}, ...[...byProvider].sort((a, b) => a[0].localeCompare(b[0])).map(([name, s]) => h("tr", {}, h("td", {}, name), h("td", {}, bar(s.replicas, "replicas")), h("td", {}, bar(s.users, "users")))))),
    t.nodes.length === 0 ? null : h("details", { open: t.nodes.length <= 16 },
      h("summary", {}, counted(t.nodes.length, "node")),
      h("table", { class: "list" },
        h("caption", { class: "hidden" }, `${t.name} by node`),
        h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Node"), h("th", { scope: "col" }, "Provider"), h("th", { scope: "col", class: "right" }, "Replicas"), h("th", { scope: "col", class: "right" }, "Users"), h("th", { scope: "col", class: "right", title: `What a pod here has to ${t.name}` }, "Latency to it"))),
        h("tbody", {}, ...t.nodes.map((p) => h("tr", {}, h("td", {}, h("a", { href: `#nodes/${encodeURIComponent(p.node)}` }, p.node)), h("td", { class: "quiet" }, provider.get(p.node) ?? "–"),
          h("td", { class: "right" }, p.replicas || "–"), h("td", { class: "right" }, p.users || "–"), h("td", { class: "right" }, p.latency_ms === null ? "?" : `${digits(p.latency_ms)} ms`)))))));
}
