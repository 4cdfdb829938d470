// The nodes: how each one's agent does, and its row and column of the matrix.

import { getMatrix, getNode, now, type Brief, type Matrix, type NodeRows, type Overview, type Value } from "./api";
import { h, refill, svg } from "./dom";
import { counted, latency, ms, percent, span } from "./format";
import { named } from "./matrix";
import { bases } from "./scale";
import type { View } from "./main";

const states: Record<string, { mark: string; text: string; tone: string }> = {
  answered: { mark: "●", text: "answers", tone: "good" },
  silent: { mark: "▲", text: "does not answer", tone: "bad" },
  none: { mark: "○", text: "no ready agent", tone: "warn" },
  recorded: { mark: "–", text: "recorded", tone: "plain" },
};

export class NodesView implements View {
  readonly element = h("div", { class: "nodes-view" });
  private overview: Overview | null = null;
  private matrix: Matrix | null = null;
  private node = "";
  private rows: NodeRows | null = null;
  private asked = 0;
  private search = h("input", { type: "search", id: "search", placeholder: "name or provider", input: () => this.drawList() });
  private list = h("div", { class: "wide tall", tabindex: 0, role: "region", "aria-label": "Nodes" });
  private summary = h("p", { class: "quiet small" });
  private one = h("section", { class: "card one", "aria-label": "One node" });

  constructor(private open: (name: string) => void) {
    this.element.append(h("div", { class: "columns even" },
      h("section", { class: "card", "aria-labelledby": "nodes-heading" },
        h("div", { class: "head" }, h("h2", { id: "nodes-heading" }, "Nodes"), h("div", { class: "tools" }, h("label", { for: "search" }, "Filter"), this.search)),
        this.summary, this.list),
      this.one));
  }

  select(name: string): void {
    this.node = name;
    this.rows = null;
    this.drawList();
    void this.loadNode();
  }

  update(overview: Overview): void {
    this.overview = overview;
    void this.load();
  }

  shown(): void {
    this.drawList();
    this.drawNode();
  }

  themed(): void {}

  private async load(): Promise<void> {
    try {
      this.matrix = await getMatrix("latency");
    } catch { /* the list has the rest */ }
    this.drawList();
    await this.loadNode();
  }

  private async loadNode(): Promise<void> {
    if (!this.node) { this.drawNode(); return; }
    const mine = ++this.asked;
    try {
      const rows = await getNode(this.node);
      if (mine !== this.asked) return;
      this.rows = rows;
    } catch (e) {
      if (mine !== this.asked) return;
      this.rows = null;
      refill(this.one, h("h2", {}, this.node), h("p", { class: "empty" }, `It could not be read: ${(e as Error).message}.`));
      return;
    }
    this.drawNode();
  }

  private drawList(): void {
    const o = this.overview;
    if (!o || !this.element.isConnected) return;
    const wanted = this.search.value.trim().toLowerCase();
    const shown = o.nodes.map((n, i) => ({ n, i, provider: named(o.providers[n.provider]!) }))
      .filter(({ n, provider }) => !wanted || n.name.toLowerCase().includes(wanted) || provider.toLowerCase().includes(wanted));
    const silent = o.nodes.filter((n) => n.agent === "silent").length, bare = o.nodes.filter((n) => n.agent === "none").length;
    refill(this.summary, o.recording ? counted(o.nodes.length, "node") + " in this recording." :
      `${counted(o.nodes.length, "node")}; ${o.answered} of ${counted(o.agents, "agent")} answered${silent ? `, ${silent} did not` : ""}${bare ? `; ${bare} without a ready agent` : ""}.`);
    const position = this.list.scrollTop;
    const focused = this.list.contains(document.activeElement) ? document.activeElement!.textContent : null;
    if (shown.length === 0) { refill(this.list, h("p", { class: "empty" }, o.nodes.length ? "No node has this in its name or provider." : "There are no nodes yet.")); return; }
    refill(this.list, h("table", { class: "list" },
      h("caption", { class: "hidden" }, "Nodes with the state of their agents"),
      h("thead", {}, h("tr", {}, ...["Node", "Provider", "Region, zone", "Agent"].map((t) => h("th", { scope: "col" }, t)),
        h("th", { scope: "col", class: "right", title: "Median latency to the other nodes" }, "To others"), h("th", { scope: "col", class: "right", title: "Median latency from the other nodes" }, "From others"))),
      h("tbody", {}, ...shown.map(({ n, i, provider }) => {
        const s = states[n.agent]!;
        return h("tr", { class: n.name === this.node ? "chosen" : null },
          h("td", { class: "nowrap" }, h("button", { class: "link", "aria-pressed": String(n.name === this.node), click: () => this.open(n.name) }, n.name)),
          h("td", {}, provider), h("td", { class: "quiet nowrap" }, [n.region, n.zone].filter(Boolean).join(", ") || "–"),
          h("td", { title: n.fault || null }, h("span", { class: `state ${s.tone}` }, h("span", { "aria-hidden": "true" }, s.mark), ` ${s.text}`),
            n.agent === "silent" ? h("span", { class: "quiet" }, n.answered ? ` for ${span((now() - n.answered) / 1000)}` : ", never has") : null),
          h("td", { class: "right" }, medianText(this.row(i))), h("td", { class: "right" }, medianText(this.column(i))));
      }))));
    this.list.scrollTop = position;
    if (focused) for (const b of this.list.querySelectorAll("button")) if (b.textContent === focused) b.focus({ preventScroll: true });
  }

  private row(i: number): Value[] {
    return this.matrix?.rows?.[i]?.filter((_, j) => j !== i) ?? [];
  }

  private column(j: number): Value[] {
    return this.matrix?.rows?.map((r) => r[j] ?? null).filter((_, i) => i !== j) ?? [];
  }

  private drawNode(): void {
    const o = this.overview;
    if (!o || !this.element.isConnected) return;
    const n = o.nodes.find((x) => x.name === this.node);
    if (!n) {
      refill(this.one, h("h2", {}, "One node"), h("p", { class: "empty" }, this.node ? `There is no node ${this.node} any more.` : "Choose a node to see what it measures and what others measure of it."));
      return;
    }
    if (!this.rows) return;
    const s = states[n.agent]!;
    const peers = [...this.rows.peers].sort((a, b) => (a[1][0] ?? Infinity) - (b[1][0] ?? Infinity));
    const cells = (b: Brief) => [
      h("td", { class: "right first", title: bases[b[5]]?.phrase }, b[0] === null ? "?" : `${b[5] === "m" ? "" : "~"}${ms(b[0])}`), h("td", { class: "right" }, b[1] === null ? "–" : ms(b[1])), h("td", { class: "right" }, b[2] === null ? "–" : ms(b[2])),
      h("td", { class: "right" }, b[3] === null ? "–" : percent(b[3])), h("td", { class: "right" }, b[4] === null ? "–" : span(b[4])),
    ];
    const position = this.one.querySelector(".tall")?.scrollTop ?? 0;
    refill(this.one,
      h("div", { class: "head" }, h("h2", {}, n.name), h("span", { class: `state ${s.tone}` }, h("span", { "aria-hidden": "true" }, s.mark), ` agent ${n.agent === "recorded" ? "recorded" : s.text}`)),
      h("p", { class: "quiet" }, [named(o.providers[n.provider]!), n.region, n.zone].filter(Boolean).join(" · ")),
      n.fault ? h("p", { class: "warning" }, n.fault) : null,
      distances(o, this.rows),
      h("div", { class: "wide tall", tabindex: 0, role: "region", "aria-label": `Row and column of ${n.name}` }, h("table", { class: "list" },
        h("caption", { class: "hidden" }, `What ${n.name} measures to each node, and each node to it; latencies in ms, those with ~ are estimated`),
        h("thead", {},
          h("tr", {}, h("td", { colspan: 2, class: "quiet small" }, "ms; ~ is estimated"), h("th", { scope: "colgroup", colspan: 5, class: "span" }, `from ${n.name}`), h("th", { scope: "colgroup", colspan: 5, class: "span" }, `to ${n.name}`)),
          h("tr", {}, h("th", { scope: "col" }, "Node"), h("th", { scope: "col" }, "Provider"),
            ...[0, 1].flatMap(() => ["Latency", "p50", "p99", "Loss %", "Age"].map((t) => h("th", { scope: "col", class: "right" }, t))))),
        h("tbody", {}, ...peers.map(([at, there, back]) => h("tr", {}, h("td", { class: "nowrap" }, h("button", { class: "link", click: () => this.open(o.nodes[at]?.name ?? "") }, o.nodes[at]?.name ?? "?")), h("td", { class: "quiet" }, named(o.providers[o.nodes[at]?.provider ?? 0]!)), ...cells(there), ...cells(back)))))));
    this.one.querySelector(".tall")!.scrollTop = position;
  }
}

function medianText(values: Value[]): string {
  const known = values.filter((v): v is number => v !== null).sort((a, b) => a - b);
  return known.length ? `${ms(known[known.length >> 1]!)} ms` : "–";
}

/** How far the other nodes are, provider by provider, on a logarithmic scale. */
function distances(o: Overview, rows: NodeRows): SVGSVGElement {
  const width = 640, left = 120, right = 16, step = 26;
  const height = 14 + o.providers.length * step + 22;
  const low = 30, high = 30000;
  const x = (us: number) => left + ((width - left - right) * Math.log(Math.min(Math.max(us, low), high) / low)) / Math.log(high / low);
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "strip distances", role: "img", "aria-label": `How far the other nodes are from ${rows.name}, by provider, on a logarithmic scale; the table below has the numbers` });
  for (const [us, label] of [[50, "50 µs"], [100, "0.1"], [200, "0.2"], [500, "0.5"], [1000, "1 ms"], [2000, "2"], [5000, "5"], [10000, "10"], [20000, "20"]] as const) {
    picture.append(svg("line", { x1: x(us), x2: x(us), y1: 6, y2: height - 20, class: "rule" }), svg("text", { x: x(us), y: height - 5, class: "tick" }, label));
  }
  o.providers.forEach((p, at) => {
    const name = named(p);
    picture.append(svg("text", { x: left - 10, y: 14 + at * step + step / 2, class: "side" }, name.length > 16 ? `${name.slice(0, 15)}…` : name));
  });
  for (const [at, there] of rows.peers) {
    const n = o.nodes[at];
    if (!n || there[0] === null) continue;
    // Side by side they would hide each other: up and down by name.
    const shift = ((hash(n.name) % 11) - 5) * 0.9;
    picture.append(svg("circle", { cx: x(there[0]), cy: 10 + n.provider * step + step / 2 + shift, r: 3.5, class: there[5] === "m" ? "dot" : "dot hollow" }, svg("title", {}, `${n.name}: ${latency(there[0])}`)));
  }
  return picture;
}

function hash(text: string): number {
  let v = 7;
  for (let i = 0; i < text.length; i++) v = (v * 31 + text.charCodeAt(i)) >>> 0;
  return v;
}
