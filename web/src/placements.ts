// Pods of our profiles, the newest first, and why they are where they are.

import { getPlacements, now, type Overview, type Placement, type Placements, type Value } from "./api";
import { h, refill } from "./dom";
import { counted, digits, span, time } from "./format";
import { named } from "./matrix";
import type { View } from "./main";

export class PlacementsView implements View {
  readonly element = h("div", { class: "placements-view" });
  private overview: Overview | null = null;
  private placements: Placements | null = null;

  update(overview: Overview): void {
    this.overview = overview;
    getPlacements().then((p) => { this.placements = p; this.draw(); }, (e: Error) => { if (!this.placements) refill(this.element, h("p", { class: "empty" }, `The placements could not be read: ${e.message}.`)); });
  }

  shown(): void { this.draw(); }
  themed(): void {}

  private draw(): void {
    const o = this.overview, p = this.placements;
    if (!o || !p) return;
    const card = (...children: (HTMLElement | null)[]) => h("section", { class: "card", "aria-labelledby": "placements-title" }, h("h2", { id: "placements-title" }, "Recent placements"), ...children.filter((c) => c !== null));
    if (o.recording) { refill(this.element, card(h("p", { class: "empty" }, "A recording has latencies alone. Placements are those of a cluster: run this without --matrix."))); return; }
    if (p.placements.length === 0) {
      refill(this.element, card(h("p", { class: "empty" }, "No pod has the schedulerName of a profile with NetLatency yet. One line in a pod template gives it to them: schedulerName: netlatency-scheduler.")));
      return;
    }
    const provider = new Map(o.nodes.map((n) => [n.name, named(o.providers[n.provider]!)]));
    const profiles = new Set(p.placements.map((x) => x.profile));
    const waiting = p.placements.filter((x) => !x.node).length;
    const explained = p.placements.some((x) => x.explanation);
    const place = this.element.querySelector(".wide");
    const position = [place?.scrollLeft ?? 0, place?.scrollTop ?? 0] as const;
    refill(this.element, card(
      h("p", { class: "quiet" }, `${counted(p.placements.length, "pod")}${waiting ? `, ${waiting} of them waiting` : ""}${p.left_out ? `; ${counted(p.left_out, "older one")} left out` : ""}. Costs are mean latencies over the pod's targets, by weight.`),
      explained ? null : h("p", { class: "small" }, "None of them carries an explanation: the chart's value scheduler.args.annotatePlacement: true makes the scheduler write one onto each pod that it places. What they cost now is computed here."),
      h("div", { class: "wide tall", tabindex: 0, role: "region", "aria-label": "Recent placements" }, h("table", { class: "list" },
        h("caption", { class: "hidden" }, "Pods with their nodes, their costs and why they are there"),
        h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "When"), h("th", { scope: "col" }, "Pod"), profiles.size > 1 ? h("th", { scope: "col" }, "Profile") : null, h("th", { scope: "col" }, "Node"),
          h("th", { scope: "col", class: "right", title: "When it was placed, as the scheduler wrote it down" }, "Cost then"), h("th", { scope: "col", class: "right" }, "Cost now"), h("th", { scope: "col", class: "right", title: "The node that costs least now, whether there is room or not" }, "Best now"), h("th", { scope: "col" }, "Why"))),
        h("tbody", {}, ...p.placements.map((x) => row(x, provider, profiles.size > 1)))))));
    this.element.querySelector(".wide")?.scrollTo(...position);
  }
}

const inMs = (v: Value | undefined) => (v === null || v === undefined ? "–" : `${digits(v)} ms`);

function ordinal(n: number): string {
  const tens = n % 100 > 10 && n % 100 < 14;
  return `${n}${tens ? "th" : ["th", "st", "nd", "rd"][n % 10] ?? "th"}`;
}

// kept says what keptBy of an explanation stands for.
function kept(by: string): string {
  switch (by) {
    case "scores": return "and was free: other plugins' scores weighed more";
    case "unknown": return "but for something that cannot be told of a pod with volumes or devices";
    case "NodeGone": return "but has left the cluster";
  }
  return `but for the plugin ${by}`;
}

function row(p: Placement, provider: Map<string, string>, withProfile: boolean): HTMLElement {
  const at = now();
  const far = p.cost_ms !== null && p.best_ms !== null && p.cost_ms > 2 * p.best_ms + 0.1;
  return h("tr", {},
    h("td", { class: "quiet nowrap", title: new Date(p.since).toLocaleString() }, p.node ? time(p.since, at) : `waits for ${span((at - p.since) / 1000)}`),
    h("td", {}, h("span", { class: "quiet" }, `${p.namespace}/`), p.name), withProfile ? h("td", {}, p.profile) : null,
    h("td", { class: "nowrap" }, p.node ? h("a", { href: `#nodes/${encodeURIComponent(p.node)}` }, p.node) : "–", p.node ? h("span", { class: "quiet" }, ` ${provider.get(p.node) ?? ""}`) : null),
    h("td", { class: "right nowrap" }, inMs(p.explanation?.costMs)), h("td", { class: far ? "right nowrap far" : "right nowrap" }, inMs(p.cost_ms)), h("td", { class: "right nowrap", title: p.best ?? null }, inMs(p.best_ms)),
    h("td", { class: "why" }, ...why(p)));
}

function why(p: Placement): (HTMLElement | null)[] {
  const parts: (HTMLElement | null)[] = [];
  if (!p.node) parts.push(h("p", { class: "warning" }, p.waits || "It has not been tried yet."));
  const e = p.explanation;
  if (e) {
    const targets = (e.targets ?? []).map((t) => h("span", { class: "chip", title: `weight ${t.weight}, ${t.basis}` }, `${t.name} ${t.ms === undefined ? "unknown" : `${digits(t.ms)} ms`}`));
    if (targets.length) parts.push(h("p", {}, ...targets));
    const said: string[] = [];
    if (e.rank && e.of) said.push(e.rank === 1 ? `Nearest of ${counted(e.of, "node")} that it fitted.` : `By latency the ${ordinal(e.rank)} of ${counted(e.of, "node")} that it fitted.`);
    if (e.keptBy && e.best) said.push(`${e.best} would have been ${inMs(e.bestMs)} ${kept(e.keptBy)}.`);
    if (said.length) parts.push(h("p", { class: "quiet small" }, said.join(" ")));
  }
  for (const event of p.events ?? []) parts.push(h("p", { class: "warning" }, h("strong", {}, event.reason), ` ${event.note}`));
  return parts.length ? parts : [h("p", { class: "quiet small" }, p.cost_ms === null && p.best_ms === null ? "Nothing is known of what it costs." : "No explanation was written.")];
}
